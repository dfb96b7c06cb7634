//! s6-fdholder-setdump: have all descriptors of a dump held (spec/events-and-fdholding.md 4)

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::fdholder::dump;
use crate::sys::fd;

/// Exits 1 if the server does not take them.
pub const PROGRAM: Program =
    Program { name: "s6-fdholder-setdump", usage: "s6-fdholder-setdump [ -t timeout ] socket", run };

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
    let count = dump::count()?;
    // Looked at before anything is opened here, so that no number of the dump can mean something of ours.
    let dump = dump::from_env(count).map(dump::borrow);
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let mut server = Connection::open(path, limit)?;
    answered(dump?.and_then(|dump| server.set_dump(&dump)), "set the dump of", path)?;
    Ok(OK)
}
