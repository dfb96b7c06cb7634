//! ucspilogd: syslog messages from standard input made readable (spec/logging-and-chainloaders.md 5).

use super::filter::{self, Editor};
use super::priority;
use crate::cli::{Args, Options};
use crate::error::{Die, Exit, Program};
use crate::sys::env;
use crate::tai::TEXT;

/// Copies standard input to standard output, each line with variables in front and its code decoded.
pub const PROGRAM: Program = Program { name: "ucspilogd", usage: "ucspilogd [ -D default ] [ var... ]", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut default = b"<undefined>".to_vec();
    let mut options = Options::classic(args, "D");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'D' => default = value.into_bytes(),
            letter => return Err(options.unknown(letter)),
        }
    }
    let mut prefix = Vec::new();
    for name in options.operands().iter() {
        prefix.extend_from_slice(env::get(name.to_bytes()).map_or(&default, |value| value.to_bytes()));
        prefix.extend_from_slice(b": ");
    }
    filter::run(Syslog { prefix })
}

struct Syslog {
    /// The variables, the same for each line.
    prefix: Vec<u8>,
}

impl Editor for Syslog {
    const NUL_ENDS_LINES: bool = true;
    const ENDS_LAST_LINE: bool = true;

    fn edit(&mut self, line: &[u8], _ended: bool, out: &mut Vec<u8>) {
        let (stamp, message) = line.split_at(stamp_length(line));
        out.extend_from_slice(stamp);
        out.extend_from_slice(&self.prefix);
        priority::decode(message, out);
    }
}

/// The length of a label and its space at the beginning of a line, whatever digits it has; 0 if there is none.
fn stamp_length(line: &[u8]) -> usize {
    let labelled = line.starts_with(b"@") && line.iter().position(|&b| b == b' ') == Some(TEXT);
    if labelled { TEXT + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_stays_in_front() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"<13>x", b"v: user.notice: x"),
            (b"@40000000586846a500000000 <13>x", b"@40000000586846a500000000 v: user.notice: x"),
            (b"@40000000586846a500000000 ", b"@40000000586846a500000000 v: "),
            (b"@40000000586846a500000000", b"v: @40000000586846a500000000"),
            (b"@4 <13>x", b"v: @4 <13>x"),
            (b"", b"v: "),
        ];
        for (line, want) in cases {
            let mut out = Vec::new();
            Syslog { prefix: b"v: ".to_vec() }.edit(line, true, &mut out);
            assert_eq!(out, *want, "{}", line.escape_ascii());
        }
    }
}
