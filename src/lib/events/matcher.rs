//! When does what came through a fifo match? (spec/events-and-fdholding.md 2.5)
//!
//! Letters are taken in chunks of at most [`CHUNK`] bytes, and after each one the expression is tried on everything
//! since the subscription or the last match. Where the chunks end is part of the protocol: it decides how much a match
//! carries with it.

use crate::sys::regex::{Invalid, Regex};

/// Bytes after which the expression is tried.
pub const CHUNK: usize = 31;

/// Bytes that are taken from one fifo before others have their turn.
pub const TURN: usize = 32 * CHUNK;

/// Bytes that are remembered: what a fifo holds. Of a longer history without a match the older half is forgotten.
pub const MEMORY: usize = 65536;

/// One expression and what it has not matched yet.
#[derive(Debug)]
pub struct Matcher {
    regex: Regex,
    /// What came, and the NUL that the C library wants after it.
    history: Vec<u8>,
    /// The beginning of the history was forgotten, so that `^` cannot match any more.
    beheaded: bool,
}

impl Matcher {
    /// Nothing came yet.
    pub fn new(pattern: &[u8]) -> Result<Matcher, Invalid> {
        Ok(Matcher { regex: Regex::compile(pattern)?, history: Vec::new(), beheaded: false })
    }

    /// Takes the first chunk of `bytes`, which shrinks by it, and says what came since the last match if it now
    /// matches. For all matches in what one read gave, call until `bytes` is empty.
    pub fn take_chunk(&mut self, bytes: &mut &[u8]) -> Option<Vec<u8>> {
        let (chunk, rest) = bytes.split_at(bytes.len().min(CHUNK));
        *bytes = rest;
        self.history.pop();
        self.forget_if_full();
        self.history.extend_from_slice(chunk);
        self.history.push(0);
        let matches = match self.beheaded {
            false => self.regex.is_match(&self.history),
            true => self.regex.is_match_in_rest(&self.history),
        };
        matches.then(|| {
            self.history.pop();
            self.beheaded = false;
            std::mem::take(&mut self.history)
        })
    }

    fn forget_if_full(&mut self) {
        if self.history.len() + CHUNK > MEMORY {
            self.history.drain(..MEMORY / 2);
            self.beheaded = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All matches in reads of these bytes.
    fn matches(pattern: &str, reads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut matcher = Matcher::new(pattern.as_bytes()).unwrap();
        let mut found = Vec::new();
        for mut bytes in reads.iter().copied() {
            while !bytes.is_empty() {
                found.extend(matcher.take_chunk(&mut bytes));
            }
        }
        found
    }

    #[test]
    fn a_match_carries_everything_since_the_last_one() {
        assert_eq!(matches("a.*d", &[b"xa", b"b", b"cde"]), [b"xabcde"]);
        assert_eq!(matches("^b", &[b"a", b"b", b"c"]), [b""; 0]);
        assert_eq!(matches("^.b", &[b"ab", b"c", b"b"]), [b"ab", b"cb"]);
    }

    #[test]
    fn a_burst_is_cut_into_chunks() {
        let found = matches("x", &[&[b'x'; 100]]);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [31, 31, 31, 7]);
    }

    #[test]
    fn a_nul_hides_what_follows_but_is_delivered() {
        assert_eq!(matches("b", &[b"a\0b", b"b"]), [b""; 0]);
        assert_eq!(matches("a$", &[b"a\0b"]), [b"a\0b"]);
    }

    #[test]
    fn a_beginning_that_was_forgotten_is_not_found_again() {
        let noise = vec![b'a'; MEMORY + 1];
        assert_eq!(matches("^a*b", &[&noise, b"b"]), [b""; 0]);
        let found = matches("ab", &[&noise, b"b", b"ab"]);
        assert!(found[0].len() <= MEMORY && found[0].ends_with(b"ab"));
        assert_eq!(found[1], b"ab");
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_and_memory_is_bounded(
            reads in prop::collection::vec(prop::collection::vec(prop::sample::select(b"udx".to_vec()), 0..80), 0..20),
        ) {
            let mut matcher = Matcher::new(b"ud").unwrap();
            let (mut all, mut delivered) = (Vec::new(), Vec::new());
            for read in &reads {
                all.extend_from_slice(read);
                let mut bytes = &read[..];
                while !bytes.is_empty() {
                    let before = bytes.len();
                    let found = matcher.take_chunk(&mut bytes);
                    prop_assert_eq!(before - bytes.len(), before.min(CHUNK));
                    prop_assert!(found.as_ref().is_none_or(|found| found.windows(2).any(|pair| pair == b"ud")));
                    delivered.extend(found.into_iter().flatten());
                }
            }
            prop_assert!(all.starts_with(&delivered));
            prop_assert!(!all[delivered.len()..].windows(2).any(|pair| pair == b"ud"));
        }
    }
}
