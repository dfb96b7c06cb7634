//! s6-tai64n: a stamp in front of each line (spec/logging-and-chainloaders.md 3).

use super::filter::{self, Editor};
use crate::error::Program;
use crate::tai::Tai64n;

/// Copies standard input to standard output, each line after a label and a space.
pub const PROGRAM: Program = Program { name: "s6-tai64n", usage: "s6-tai64n", run: |_| filter::run(Stamp) };

struct Stamp;

impl Editor for Stamp {
    const NUL_ENDS_LINES: bool = false;
    const ENDS_LAST_LINE: bool = true;

    fn edit(&mut self, line: &[u8], _ended: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&Tai64n::now().text());
        out.push(b' ');
        out.extend_from_slice(line);
    }
}
