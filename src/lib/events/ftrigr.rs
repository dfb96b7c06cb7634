//! What s6-ftrigrd and the C client library say to each other (spec/events-and-fdholding.md 2.2 to 2.5).

use std::ffi::CStr;

use crate::sys::Errno;
use crate::text;

/// What a client says first.
pub const CLIENT_BANNER: &[u8; 16] = b"ftrigr v2.0 (b)\n";
/// What the server says first, on both its channels.
pub const SERVER_BANNER: &[u8; 16] = b"ftrigr v2.0 (a)\n";
/// The most bytes of a message.
const MOST: usize = 0x0100_0000;
/// Bytes of the length before a message.
const LENGTH: usize = 4;

/// Messages that come in, in pieces of any size.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// How many of the bytes have been taken.
    taken: usize,
}

impl Frames {
    /// Adds what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message; EMSGSIZE if it is too long to wait for.
    pub fn take(&mut self) -> Result<Option<&[u8]>, Errno> {
        let Some((length, rest)) = self.bytes[self.taken..].split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MOST {
            return Err(Errno::EMSGSIZE);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.taken + LENGTH;
        self.taken = start + length;
        Ok(Some(&self.bytes[start..self.taken]))
    }
}

/// Messages that go out, as far as they could not be written yet.
#[derive(Debug, Default)]
pub struct Pending {
    bytes: Vec<u8>,
    /// How many of the bytes have been written.
    written: usize,
}

impl Pending {
    /// Adds a message made of these parts.
    pub fn put(&mut self, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.extend((length as u32).to_be_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    /// What is to be written.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So much was.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.rest().len() {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Watch a fifodir. `Err` is what to answer when it does not say which, and for what.
    Subscribe {
        /// The client's name for this subscription.
        id: u32,
        /// Whether it goes on after a match.
        repeat: bool,
        /// Milliseconds until it fails; 0 is never.
        timeout: u32,
        /// Fifodir and expression.
        target: Result<(&'a CStr, &'a CStr), Errno>,
    },
    /// Stop watching.
    Cancel {
        /// Which.
        id: u32,
    },
}

/// Understands a message; `None` if it is none that a client may send.
pub fn parse(message: &[u8]) -> Option<Request<'_>> {
    let (letter, mut rest) = message.split_first()?;
    let mut number = || {
        let (number, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u32::from_be_bytes(*number))
    };
    match letter {
        b'+' => {
            let (id, flags, timeout, _opcode, length) = (number()?, number()?, number()?, number()?, number()?);
            let sound = rest.len() == length as usize && timeout <= i32::MAX as u32;
            sound.then(|| Request::Subscribe { id, repeat: flags & 1 != 0, timeout, target: target(rest) })
        }
        b'-' => {
            let id = number()?;
            rest.is_empty().then_some(Request::Cancel { id })
        }
        _ => None,
    }
}

/// Two strings that end in NUL.
fn target(bytes: &[u8]) -> Result<(&CStr, &CStr), Errno> {
    let string = |bytes| CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::EPROTO);
    let path = string(bytes)?;
    let expression = string(&bytes[path.count_bytes() + 1..])?;
    if bytes.len() < 3 || !bytes.ends_with(b"\0") { Err(Errno::EPROTO) } else { Ok((path, expression)) }
}

/// The number of the asynchronous channel in the value of [`CHANNEL`]; it is none of the synchronous ones.
pub fn channel(value: &[u8]) -> Option<i32> {
    text::parse_u32(value)?.try_into().ok().filter(|number| *number > 1)
}

/// The variable that names the asynchronous channel.
pub const CHANNEL: &str = "SKALIBS_CHILD_SPAWN_FDS";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subscribe(fields: [u32; 5], data: &[u8]) -> Vec<u8> {
        let numbers = fields.iter().flat_map(|field| field.to_be_bytes());
        std::iter::once(b'+').chain(numbers).chain(data.iter().copied()).collect()
    }

    #[test]
    fn requests_are_understood() {
        let message = subscribe([7, 1, 100, 99, 5], b"a\0bc\0");
        let target = Ok((c"a", c"bc"));
        assert_eq!(parse(&message), Some(Request::Subscribe { id: 7, repeat: true, timeout: 100, target }));
        assert_eq!(parse(b"-\0\0\x01\x02"), Some(Request::Cancel { id: 258 }));
    }

    #[test]
    fn lengths_are_exact_and_timeouts_fit_an_int() {
        for wrong in [
            &b""[..],
            b"+",
            b"-\0\0\0",
            b"-\0\0\0\0\0",
            b"?abcdef",
            &subscribe([1, 0, 0, 0, 5], b"a\0b\0"),
            &subscribe([1, 0, 0, 0, 3], b"a\0b\0"),
            &subscribe([1, 0, 0x8000_0000, 0, 4], b"a\0b\0"),
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_target_is_two_strings() {
        for wrong in [&b"a\0"[..], b"", b"ab", b"a\0b", b"\0", b"\0\0"] {
            assert_eq!(target(wrong), Err(Errno::EPROTO), "{wrong:?}");
        }
        assert_eq!(target(b"\0b\0"), Ok((c"", c"b")));
        assert_eq!(target(b"a\0\0"), Ok((c"a", c"")));
    }

    #[test]
    fn the_channel_is_a_number_of_its_own() {
        assert_eq!(channel(b"3"), Some(3));
        for wrong in [&b""[..], b"0", b"1", b"x", b"-1", b"4294967295"] {
            assert_eq!(channel(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_comes() {
        let mut frames = Frames::default();
        frames.extend(&0x0100_0001u32.to_be_bytes());
        assert_eq!(frames.take(), Err(Errno::EMSGSIZE));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(
            messages in prop::collection::vec(any::<Vec<u8>>(), 0..10), cuts in prop::collection::vec(1..40usize, 1..50),
        ) {
            let mut pending = Pending::default();
            messages.iter().for_each(|message| pending.put(&[message]));
            let (mut frames, mut came) = (Frames::default(), Vec::new());
            for cut in cuts.iter().cycle() {
                let cut = (*cut).min(pending.rest().len());
                if cut == 0 {
                    break;
                }
                frames.extend(&pending.rest()[..cut]);
                pending.advance(cut);
                while let Some(message) = frames.take().unwrap() {
                    came.push(message.to_vec());
                }
            }
            prop_assert_eq!(came, messages);
        }

        #[test]
        fn any_message_is_understood_or_refused(message in any::<Vec<u8>>(), data in any::<Vec<u8>>()) {
            let _ = (parse(&message), parse(&subscribe([1, 2, 3, 4, data.len() as u32], &data)));
        }
    }
}
