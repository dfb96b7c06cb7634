//! Lines on their way out: what could not be written yet, and what need not be copied because it stands in the input
//! buffer as it shall stand in the output.

use std::ops::Range;

/// A queue of lines for one descriptor.
#[derive(Debug, Default)]
pub struct Outlet {
    queue: Vec<u8>,
    /// Bytes of the queue that are written.
    written: usize,
    /// What comes after the queue: a piece of the input text, ending with a line.
    run: Range<usize>,
}

/// A queue may keep this capacity while it is empty.
const SMALL: usize = 4 * 1024;

impl Outlet {
    /// Adds a line of the text, given without its newline, which is added if the text does not have it.
    pub fn push(&mut self, text: &[u8], line: &Range<usize>) {
        if text.get(line.end) != Some(&b'\n') {
            self.push_decorated(text, b"", line);
        } else if self.run.end == line.start && !self.run.is_empty() {
            self.run.end = line.end + 1;
        } else {
            self.settle(text);
            self.run = line.start..line.end + 1;
        }
    }

    /// Adds a line with something in front of it.
    pub fn push_decorated(&mut self, text: &[u8], decoration: &[u8], line: &Range<usize>) {
        self.settle(text);
        self.queue.extend_from_slice(decoration);
        self.queue.extend_from_slice(&text[line.clone()]);
        self.queue.push(b'\n');
    }

    /// Copies what is left in the text, before the text changes.
    pub fn settle(&mut self, text: &[u8]) {
        self.queue.extend_from_slice(&text[self.run.clone()]);
        self.run = 0..0;
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.run.is_empty()
    }

    /// What is to be written next. It ends with a line.
    pub fn front<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        if self.queue.is_empty() { &text[self.run.clone()] } else { &self.queue[self.written..] }
    }

    /// The first bytes of the front were written.
    pub fn advance(&mut self, bytes: usize) {
        if self.queue.is_empty() {
            self.run.start += bytes;
            return;
        }
        self.written += bytes;
        if self.written == self.queue.len() {
            self.queue.clear();
            self.written = 0;
        } else if self.written > self.queue.len() / 2 {
            self.queue.drain(..self.written);
            self.written = 0;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Outlet::default();
    }

    /// Whether an empty queue holds memory that a quiet input does not need.
    pub fn is_large(&self) -> bool {
        self.queue.is_empty() && self.queue.capacity() > SMALL
    }

    /// Gives that memory back.
    pub fn shrink(&mut self) {
        if self.is_large() {
            self.queue = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_come_out_in_order_however_much_is_taken_at_a_time(
            turns in prop::collection::vec(
                (prop::collection::vec((0usize..5, any::<bool>(), any::<bool>()), 0..9), 0usize..60), 0..9),
        ) {
            let (mut outlet, mut want, mut got) = (Outlet::default(), Vec::new(), Vec::new());
            for (lines, mut taken) in turns {
                let mut text = Vec::new();
                let mut ranges = Vec::new();
                for (length, ended, _) in &lines {
                    let start = text.len();
                    text.extend((0..*length).map(|i| b'a' + i as u8));
                    ranges.push(start..text.len());
                    text.push(if *ended { b'\n' } else { b'+' });
                }
                for (range, (_, _, decorated)) in ranges.iter().zip(&lines) {
                    if *decorated {
                        outlet.push_decorated(&text, b"> ", range);
                        want.extend_from_slice(b"> ");
                    } else {
                        outlet.push(&text, range);
                    }
                    want.extend_from_slice(&text[range.clone()]);
                    want.push(b'\n');
                }
                while taken > 0 && !outlet.is_empty() {
                    let front = outlet.front(&text);
                    prop_assert_eq!(front.last(), Some(&b'\n'));
                    let bytes = taken.min(front.len());
                    got.extend_from_slice(&front[..bytes]);
                    outlet.advance(bytes);
                    taken -= bytes;
                }
                outlet.settle(&text);
            }
            while !outlet.is_empty() {
                got.extend_from_slice(outlet.front(b""));
                outlet.advance(outlet.front(b"").len());
            }
            prop_assert_eq!(got, want);
        }
    }
}
