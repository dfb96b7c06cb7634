//! s6-fdholder-transferdump: copy all held descriptors from one server to another (spec/events-and-fdholding.md 4)

use std::time::Duration;

use crate::cli::{Args, Options, Value};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::sys::fd;
use crate::text;

/// Exits 1 if one server does not give them, or the other does not take them.
pub const PROGRAM: Program = Program {
    name: "s6-fdholder-transferdump",
    usage: "s6-fdholder-transferdump [ -t timeoutfrom:timeoutto ] socketfrom socketto",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let (mut limit_from, mut limit_to) = (None, None);
    let mut options = Options::classic(args, "t");
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => (limit_from, limit_to) = limits(&value)?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(from), Some(to)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let dump = answered(Connection::open(from, limit_from)?.get_dump(), "get the dump of", from)?;
    answered(Connection::open(to, limit_to)?.set_dump(&dump), "set the dump of", to)?;
    Ok(OK)
}

/// `from:to`, either of which may be empty, or `from` alone, which may not.
fn limits(value: &Value) -> Result<(Option<Duration>, Option<Duration>), Die> {
    if value.bytes().is_empty() {
        return Err(Die::usage());
    }
    let mut parts = value.bytes().splitn(2, |&b| b == b':');
    let mut next = || match parts.next() {
        None | Some(b"") => Ok(None),
        Some(number) => text::parse_u32(number).map(text::limit).ok_or_else(Die::usage),
    };
    Ok((next()?, next()?))
}
