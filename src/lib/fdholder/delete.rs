//! s6-fdholder-delete: have a held descriptor dropped (spec/events-and-fdholding.md 4)

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::sys::fd;

/// Exits 1 if the server does not drop it.
pub const PROGRAM: Program =
    Program { name: "s6-fdholder-delete", usage: "s6-fdholder-delete [ -t timeout ] socket id", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut limit = None;
    let mut options = Options::classic(args, "t");
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(id)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    answered(Connection::open(path, limit)?.delete(id), "delete", id)?;
    Ok(OK)
}
