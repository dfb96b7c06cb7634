//! Lines on their way out: what could not be written yet, and what need not be copied because it stands in the input
//! buffer as it shall stand in the output.

use std::ops::Range;

/// Lines for one descriptor.
#[derive(Debug, Default)]
pub struct Outlet {
    /// What comes first is in `queued`; the rest of it is room.
    buffer: Vec<u8>,
    queued: Range<usize>,
    /// What comes then: a piece of the input text, ending with a line.
    run: Range<usize>,
}

/// The room that an empty queue may keep: for a line or two, which the program has without asking the system.
const SMALL: usize = 256;

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
        let room = self.room(decoration.len() + line.len() + 1);
        let (front, rest) = room.split_at_mut(decoration.len());
        copy(front, decoration);
        let (middle, back) = rest.split_at_mut(line.len());
        copy(middle, &text[line.clone()]);
        back.copy_from_slice(b"\n");
    }

    /// Copies what is left in the text, before the text changes.
    pub fn settle(&mut self, text: &[u8]) {
        if !self.run.is_empty() {
            let run = self.run.clone();
            self.room(run.len()).copy_from_slice(&text[run]);
        }
        self.run = 0..0;
    }

    /// Makes the queue longer by so many bytes, which are to be filled in.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let start = self.queued.end;
        self.queued.end += bytes;
        if self.queued.end > self.buffer.len() {
            self.buffer.resize(self.queued.end.next_power_of_two().max(SMALL), 0);
        }
        &mut self.buffer[start..self.queued.end]
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.run.is_empty()
    }

    /// What is to be written next. It ends with a line.
    pub fn front<'a>(&'a self, text: &'a [u8]) -> &'a [u8] {
        if self.queued.is_empty() { &text[self.run.clone()] } else { &self.buffer[self.queued.clone()] }
    }

    /// The first bytes of the front were written.
    pub fn advance(&mut self, bytes: usize) {
        if self.queued.is_empty() {
            self.run.start += bytes;
            return;
        }
        self.queued.start += bytes;
        // What moves is less than what was written since it last moved.
        if self.queued.start > self.queued.len() {
            self.buffer.copy_within(self.queued.clone(), 0);
            self.queued = 0..self.queued.len();
        }
    }

    /// Whether an empty queue has more room than a quiet input needs.
    pub fn is_large(&self) -> bool {
        self.queued.is_empty() && self.buffer.len() > SMALL
    }

    /// Gives that room back.
    pub fn shrink(&mut self) {
        if self.is_large() {
            self.buffer = Vec::new();
        }
    }
}

/// Copies bytes to a place of the same length, those of an ordinary line without a call of memcpy: musl's takes longer
/// to begin than to copy a line.
fn copy(to: &mut [u8], from: &[u8]) {
    if !(halves::<16>(to, from) || halves::<32>(to, from) || halves::<64>(to, from)) {
        to.copy_from_slice(from);
    }
}

/// Copies the first N bytes and the last N, if that is all, each in a few registers.
#[inline(always)]
fn halves<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(head), Some(tail)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else { return false };
    if from.len() > 2 * N {
        return false;
    }
    to.first_chunk_mut::<N>().into_iter().for_each(|to| *to = *head);
    to.last_chunk_mut::<N>().into_iter().for_each(|to| *to = *tail);
    true
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
