//! s6-tai64nlocal: labels made readable (spec/logging-and-chainloaders.md 4).

use super::filter::{self, Editor};
use super::human::Human;
use crate::cli::{Args, Options};
use crate::error::{Die, Exit, Program};
use crate::sys::calendar::Zone;
use crate::tai::{TEXT, Tai64n};

/// Copies standard input to standard output, a label at the beginning of a line replaced by the time it stands for.
pub const PROGRAM: Program = Program { name: "s6-tai64nlocal", usage: "s6-tai64nlocal [ -g ]", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut zone = Zone::Local;
    let mut options = Options::classic(args, "");
    while let Some((letter, _)) = options.next()? {
        match letter {
            'g' => zone = Zone::Utc,
            letter => return Err(options.unknown(letter)),
        }
    }
    filter::run(Convert(Human::new(zone)))
}

struct Convert(Human);

impl Editor for Convert {
    const NUL_ENDS_LINES: bool = false;
    const ENDS_LAST_LINE: bool = false;

    /// A label with nothing behind it, not even the end of the line, may be half of something else.
    fn edit(&mut self, line: &[u8], ended: bool, out: &mut Vec<u8>) {
        let stamp = line.first_chunk::<TEXT>().and_then(Tai64n::parse);
        match stamp.filter(|_| ended || line.len() > TEXT).and_then(|stamp| self.0.text(stamp)) {
            Some(text) => {
                out.extend_from_slice(text);
                out.extend_from_slice(&line[TEXT..]);
            }
            None => out.extend_from_slice(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_label_at_the_beginning_is_converted() {
        let cases: &[(&[u8], bool, &[u8])] = &[
            (b"@40000000586846a500000000 x", true, b"2017-01-01 00:00:00.000000000 x"),
            (b"@40000000586846A500000000xyz", false, b"2017-01-01 00:00:00.000000000xyz"),
            (b"@40000000586846a500000000", true, b"2017-01-01 00:00:00.000000000"),
            (b"@40000000586846a500000000", false, b"@40000000586846a500000000"),
            (b" @40000000586846a500000000", true, b" @40000000586846a500000000"),
            (b"@40000000586846a50000000g", true, b"@40000000586846a50000000g"),
            (b"@40000000586846a5", true, b"@40000000586846a5"),
            (b"", true, b""),
        ];
        for (line, ended, want) in cases {
            let mut out = Vec::new();
            Convert(Human::new(Zone::Utc)).edit(line, *ended, &mut out);
            assert_eq!(out, *want, "{}", line.escape_ascii());
        }
    }
}
