//! s6-fdholder-list: list the names of held descriptors (spec/events-and-fdholding.md 4)

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::sys::Errno;
use crate::sys::fd::{self, STDOUT};
use crate::text;

/// Exits 1 if the server does not say.
pub const PROGRAM: Program = Program { name: "s6-fdholder-list", usage: "s6-fdholder-list [ -t timeout ] socket", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut limit = None;
    let mut options = Options::classic(args, "t");
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let path = options.operands().get(0).ok_or_else(Die::usage)?;
    let can_write = fd::is_open(1);
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let names = answered(Connection::open(path, limit)?.list(), "list the descriptors of", path)?;
    let mut lines = Vec::new();
    for name in names {
        lines.extend(text::quote(name.to_bytes()));
        lines.push(b'\n');
    }
    let written = if can_write { fd::write_all(STDOUT, &lines) } else { Err(Errno::EBADF) };
    written.or_die("write to", "standard output")?;
    Ok(OK)
}
