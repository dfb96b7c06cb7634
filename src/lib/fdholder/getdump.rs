//! s6-fdholder-getdump: run a program with all held descriptors (spec/events-and-fdholding.md 4)

use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::fdholder::dump;
use crate::sys::fd;

/// Exits 1 if the server does not give them.
pub const PROGRAM: Program =
    Program { name: "s6-fdholder-getdump", usage: "s6-fdholder-getdump [ -t timeout ] socket prog...", run };

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
    let (Some(path), Some(_)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let dump = answered(Connection::open(path, limit)?.get_dump(), "get the dump of", path)?;
    let env = dump::to_env(dump).or_die("hand over", "the descriptors")?;
    Ok(Exec::operands(operands.from(1)).with_env(env).into())
}
