//! What the stream editors share: standard input, line by line, to standard output.
//!
//! Whatever one read brings is written out before the next read, which may block. A line without end does not fill
//! the memory: its head is edited, the rest of it passes as it is.

use super::lines::Ends;
use crate::error::{Die, Exit, OK, OrDie};
use crate::sys::fd;

/// Bytes of a line that are seen at once. Anything that an editor looks at is in the first hundred.
const HEAD: usize = 64 * 1024;

/// Edits a line.
pub trait Editor {
    /// Whether a NUL ends a line too. In the output it is a newline.
    const NUL_ENDS_LINES: bool;
    /// Whether the last line gets the newline that it lacks.
    const ENDS_LAST_LINE: bool;

    /// Writes what becomes of `line`, without its terminator. `ended`: whether it has one, or goes on beyond what
    /// is seen here.
    fn edit(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>);
}

/// Runs an editor to the end of the input.
pub fn run(editor: impl Editor) -> Result<Exit, Die> {
    let mut filter = Filter { editor, input: Vec::with_capacity(HEAD), ends: Ends::default(), in_rest: false };
    let mut out = Vec::new();
    loop {
        let end = fd::read_into(fd::STDIN, &mut filter.input).or_die("read", "standard input")? == 0;
        filter.turn(end, &mut out);
        fd::write_all(fd::STDOUT, &out).or_die("write to", "standard output")?;
        if end {
            return Ok(OK);
        }
        out.clear();
    }
}

struct Filter<E> {
    editor: E,
    /// The beginning of a line that is not complete, and what was read after it.
    input: Vec<u8>,
    ends: Ends,
    /// Whether the input goes on with the rest of a line whose head is out already.
    in_rest: bool,
}

impl<E: Editor> Filter<E> {
    /// Edits what is complete, and what will not become any more complete.
    fn turn(&mut self, end: bool, out: &mut Vec<u8>) {
        let mut done = 0;
        while let Some(end) = self.ends.first(&self.input) {
            self.ends.pass();
            if self.input[end] == b'\n' || E::NUL_ENDS_LINES {
                self.put(done..end, true, out);
                out.push(b'\n');
                self.in_rest = false;
                done = end + 1;
            }
        }
        let rest = self.input.len() - done;
        if self.in_rest || rest >= HEAD || (end && rest > 0) {
            self.put(done..self.input.len(), rest >= HEAD, out);
            self.in_rest = true;
            done = self.input.len();
        }
        if end && self.in_rest && E::ENDS_LAST_LINE {
            out.push(b'\n');
        }
        self.input.drain(..done);
        self.ends.forget(done);
    }

    fn put(&mut self, range: std::ops::Range<usize>, ended: bool, out: &mut Vec<u8>) {
        if self.in_rest {
            out.extend_from_slice(&self.input[range]);
        } else {
            self.editor.edit(&self.input[range], ended, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Puts `<`, or `(` if it is not ended, in front of each line.
    struct Mark<const NUL: bool>;

    impl<const NUL: bool> Editor for Mark<NUL> {
        const NUL_ENDS_LINES: bool = NUL;
        const ENDS_LAST_LINE: bool = NUL;

        fn edit(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
            out.push(if ended { b'<' } else { b'(' });
            out.extend_from_slice(line);
        }
    }

    /// The output for input that comes in these pieces.
    fn output<E: Editor>(editor: E, pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut filter = Filter { editor, input: Vec::with_capacity(HEAD), ends: Ends::default(), in_rest: false };
        let mut out = Vec::new();
        for piece in pieces {
            for part in piece.chunks(HEAD) {
                let room = HEAD - filter.input.len();
                let (now, later) = part.split_at(room.min(part.len()));
                for part in [now, later] {
                    filter.input.extend_from_slice(part);
                    filter.turn(false, &mut out);
                    assert!(filter.input.len() < HEAD);
                }
            }
        }
        filter.turn(true, &mut out);
        out
    }

    #[test]
    fn lines_end_as_they_did_or_with_newlines() {
        assert_eq!(output(Mark::<false>, &[b"a\n\nb\0c\nd".to_vec()]), b"<a\n<\n<b\0c\n(d");
        assert_eq!(output(Mark::<true>, &[b"a\n\nb\0c\nd".to_vec()]), b"<a\n<\n<b\n<c\n(d\n");
        assert_eq!(output(Mark::<true>, &[]), b"");
    }

    #[test]
    fn an_endless_line_is_edited_once_and_passes() {
        let line = vec![b'x'; 3 * HEAD + 5];
        let want = [b"<", &line[..], b"\n<y\n"].concat();
        assert_eq!(output(Mark::<true>, &[line, b"\ny\n".to_vec()]), want);
    }

    proptest! {
        #[test]
        fn how_the_input_is_cut_makes_no_difference(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\n\0ab".to_vec()), 0..9), 0..9)
        ) {
            prop_assert_eq!(output(Mark::<true>, &pieces), output(Mark::<true>, &[pieces.concat()]));
            prop_assert_eq!(output(Mark::<false>, &pieces), output(Mark::<false>, &[pieces.concat()]));
        }
    }
}
