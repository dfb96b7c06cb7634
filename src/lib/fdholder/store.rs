//! s6-fdholder-store: have a descriptor held (spec/events-and-fdholding.md 4)

use std::time::Duration;

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::sys::fd;
use crate::tai::Tai64n;

/// Exits 1 if the server does not store it.
pub const PROGRAM: Program = Program {
    name: "s6-fdholder-store",
    usage: "s6-fdholder-store [ -d fd ] [ -t timeout ] [ -T fdtimeout ] socket id",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut number = 0;
    let mut limit = None;
    let mut lifetime: Option<Duration> = None;
    let mut options = Options::classic(args, "dtT");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => number = value.u32()?,
            't' => limit = value.limit()?,
            'T' => lifetime = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(id)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let stored = fd::borrow(number.try_into().unwrap_or(-1));
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let mut server = Connection::open(path, limit)?;
    let until = lifetime.map_or_else(Tai64n::never, |lifetime| Tai64n::now().after(lifetime));
    answered(stored.and_then(|fd| server.store(id, until, fd)), "store", id)?;
    Ok(OK)
}
