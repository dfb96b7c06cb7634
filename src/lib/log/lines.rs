//! The input of s6-log: read in large pieces, cut into lines in place (spec/logging-and-chainloaders.md 15.2).

use std::ops::Range;
use std::os::fd::AsFd;

use crate::sys::scan::{BLOCK, line_ends};
use crate::sys::{Errno, fd};

/// Bytes of the large buffer: more than a full pipe, and so many that malloc maps them, and gives them back to the system
/// when they are freed.
const LARGE: usize = 160 * 1024;
/// The least room for a read into the large buffer, whatever is left of an unfinished line.
const ROOM: usize = 4 * 1024;

/// A buffer of lines.
#[derive(Debug)]
pub struct Lines<'a> {
    buffer: Buffer<'a>,
    /// Bytes of lines that were given out.
    done: usize,
    ends: Ends,
    /// Length at which a line is split.
    limit: usize,
}

/// The newlines and NULs of a text that grows behind.
#[derive(Debug, Default)]
pub struct Ends {
    /// Bytes that were searched.
    searched: usize,
    /// What was found in the last block of them and not passed yet, as bits: the highest is for the last byte.
    found: u64,
}

impl Ends {
    /// The first one that was not passed.
    pub fn first(&mut self, text: &[u8]) -> Option<usize> {
        while self.found == 0 {
            let rest = &text[self.searched..];
            let mut last = [b' '; BLOCK];
            let block = match rest.first_chunk() {
                Some(block) => block,
                None if rest.is_empty() => return None,
                None => {
                    last[BLOCK - rest.len()..].copy_from_slice(rest);
                    &last
                }
            };
            self.found = line_ends(block);
            self.searched += rest.len().min(BLOCK);
        }
        Some(self.searched + self.found.trailing_zeros() as usize - BLOCK)
    }

    /// Goes beyond the first one.
    pub fn pass(&mut self) {
        self.found &= self.found.wrapping_sub(1);
    }

    /// The text has lost so many bytes at its beginning, and had no more to find.
    pub fn forget(&mut self, bytes: usize) {
        debug_assert!(self.found == 0);
        self.searched -= bytes;
    }
}

/// Bytes in a small piece of memory that is there anyway, or, when much comes at a time, in a large one.
#[derive(Debug)]
struct Buffer<'a> {
    small: &'a mut [u8],
    used: usize,
    /// In use if it has any capacity.
    large: Vec<u8>,
}

impl Buffer<'_> {
    fn is_large(&self) -> bool {
        self.large.capacity() > 0
    }

    fn bytes(&self) -> &[u8] {
        if self.is_large() { &self.large } else { &self.small[..self.used] }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        if self.is_large() { &mut self.large } else { &mut self.small[..self.used] }
    }

    /// Reads once, as much as there is room for. A small buffer that is full is too small.
    fn read(&mut self, fd: impl AsFd) -> Result<usize, Errno> {
        if self.is_large() {
            if self.large.capacity() - self.large.len() < ROOM {
                self.large.reserve(LARGE);
            }
            return fd::read_into(fd, &mut self.large);
        }
        let got = fd::read(fd, &mut self.small[self.used..])?;
        self.used += got;
        if self.used == self.small.len() {
            self.grow();
        }
        Ok(got)
    }

    fn grow(&mut self) {
        self.large.reserve_exact(LARGE.max(2 * self.used));
        self.large.extend_from_slice(&self.small[..self.used]);
        self.used = 0;
    }

    fn push(&mut self, byte: u8) {
        if !self.is_large() && self.used < self.small.len() {
            self.small[self.used] = byte;
            self.used += 1;
            return;
        }
        if !self.is_large() {
            self.grow();
        }
        self.large.push(byte);
    }

    fn forget(&mut self, bytes: usize) {
        if self.is_large() {
            self.large.drain(..bytes);
        } else {
            self.small.copy_within(bytes..self.used, 0);
            self.used -= bytes;
        }
    }

    /// Frees the large buffer if what is in it is little.
    fn shrink(&mut self) {
        if self.large.len() <= self.small.len() / 2 {
            self.used += self.large.len();
            self.small[..self.used].copy_from_slice(&self.large);
            self.large = Vec::new();
        }
    }
}

impl<'a> Lines<'a> {
    /// A buffer that begins in, and comes back to, a small piece of memory. It splits lines above a limit of bytes; 0 is
    /// none.
    pub fn new(small: &'a mut [u8], limit: usize) -> Self {
        let limit = if limit == 0 { usize::MAX } else { limit };
        Lines { buffer: Buffer { small, used: 0, large: Vec::new() }, done: 0, ends: Ends::default(), limit }
    }

    /// Reads once; 0 is the end of the input. The lines that were given out must have been [forgotten](Self::forget).
    pub fn read(&mut self, fd: impl AsFd) -> Result<usize, Errno> {
        self.buffer.read(fd)
    }

    /// Reads one byte, for an input that somebody else goes on reading; 0 is the end of it.
    pub fn read_byte(&mut self, fd: impl AsFd) -> Result<usize, Errno> {
        let mut byte = [0];
        let got = fd::read(fd, &mut byte)?;
        byte[..got].iter().for_each(|&byte| self.buffer.push(byte));
        Ok(got)
    }

    /// Whether the buffer has grown beyond what a quiet input needs.
    pub fn is_large(&self) -> bool {
        self.buffer.is_large()
    }

    /// Gives the memory of a large buffer back, unless a long unfinished line is in it.
    pub fn shrink(&mut self) {
        if self.is_large() {
            self.buffer.shrink();
        }
    }

    /// Whether there is a line without an end.
    pub fn has_partial(&self) -> bool {
        self.done < self.buffer.bytes().len()
    }

    /// Whether what was begun is longer than a line may be, and the last byte that was read does not end it.
    pub fn is_too_long(&self) -> bool {
        let line = &self.buffer.bytes()[self.done..];
        line.len() > self.limit && !matches!(line.last(), Some(b'\n' | b'\0'))
    }

    /// Ends the line that has no end, which is not split. Nothing may be read any more.
    pub fn end(&mut self) {
        if self.has_partial() {
            self.buffer.push(b'\n');
            self.limit = usize::MAX;
        }
    }

    /// What the ranges of lines are ranges of.
    pub fn text(&self) -> &[u8] {
        self.buffer.bytes()
    }

    /// Finds the next lines, as many as there are and there is room for, and says how many. A newline follows each
    /// one in the text, unless it was split: then the rest of it follows, which is never empty.
    pub fn find(&mut self, lines: &mut [Range<usize>]) -> usize {
        let mut found = 0;
        while let Some(line) = lines.get_mut(found) {
            let end = self.ends.first(self.buffer.bytes());
            let length = end.unwrap_or(self.buffer.bytes().len()) - self.done;
            if length > self.limit {
                *line = self.done..self.done + self.limit;
                self.done = line.end;
            } else if let Some(end) = end {
                *line = self.done..end;
                self.buffer.bytes_mut()[end] = b'\n';
                self.done = end + 1;
                self.ends.pass();
            } else {
                break;
            }
            found += 1;
        }
        found
    }

    /// Forgets the lines that were given out, after the last of them was: their ranges mean nothing any more.
    pub fn forget(&mut self) {
        self.buffer.forget(self.done);
        self.ends.forget(self.done);
        self.done = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// The lines of input that comes in these pieces, each with whether it ended.
    fn split(limit: usize, pieces: &[Vec<u8>], batch: usize) -> Vec<(Vec<u8>, bool)> {
        let mut small = [0; 40];
        let mut lines = Lines::new(&mut small, limit);
        let mut all = Vec::new();
        let mut ranges = vec![0..0; batch];
        let mut turn = |lines: &mut Lines<'_>| {
            loop {
                let found = lines.find(&mut ranges);
                let text = lines.text();
                all.extend(ranges[..found].iter().map(|r| (text[r.clone()].to_vec(), text[r.end] == b'\n')));
                if found < batch {
                    break;
                }
            }
            lines.forget();
        };
        for piece in pieces {
            piece.iter().for_each(|&byte| lines.buffer.push(byte));
            turn(&mut lines);
        }
        lines.end();
        turn(&mut lines);
        assert!(!lines.has_partial());
        all
    }

    /// The same, by the words of the specification.
    fn reference(limit: usize, input: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut all = Vec::new();
        let mut lines: Vec<&[u8]> = input.split(|b| b"\n\0".contains(b)).collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        for mut line in lines {
            while line.len() > limit {
                all.push((line[..limit].to_vec(), false));
                line = &line[limit..];
            }
            all.push((line.to_vec(), true));
        }
        all
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_input_comes(
            pieces in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\n\0abcdefgh".to_vec()), 0..30), 0..9),
            limit in 1usize..12,
            batch in 1usize..5,
        ) {
            prop_assert_eq!(split(limit, &pieces, batch), reference(limit, &pieces.concat()));
            prop_assert_eq!(split(0, &pieces, batch), reference(usize::MAX, &pieces.concat()));
        }
    }

    #[test]
    fn the_buffer_grows_under_load_and_shrinks_again() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut small = [0; 100];
        let mut lines = Lines::new(&mut small, 8192);
        let mut ranges = [const { 0..0 }; 8];
        let mut turn = |lines: &mut Lines<'_>, bytes: &[u8]| {
            (&writer).write_all(bytes).unwrap();
            let got = lines.read(&reader).unwrap();
            while lines.find(&mut ranges) > 0 {}
            lines.forget();
            got
        };
        assert_eq!(turn(&mut lines, b"one\n"), 4);
        assert!(!lines.is_large());
        assert_eq!(turn(&mut lines, &[b'x'; 120]), 100);
        assert!(lines.is_large());
        lines.shrink();
        assert!(lines.is_large(), "the unfinished line needs it");
        assert_eq!(turn(&mut lines, &[b'y'; 9000]), 9020);
        turn(&mut lines, b"\nrest");
        lines.shrink();
        assert!(!lines.is_large());
        assert_eq!(lines.text(), b"rest");
        turn(&mut lines, b" of it\n+");
        assert_eq!(lines.text(), b"+");
    }
}
