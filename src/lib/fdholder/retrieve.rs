//! s6-fdholder-retrieve: run a program with a held descriptor as its standard input
//! (spec/events-and-fdholding.md 4)

use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::fdholder::client::{Connection, answered};
use crate::sys::fd;

/// Exits 1 if the server does not give it.
pub const PROGRAM: Program = Program {
    name: "s6-fdholder-retrieve",
    usage: "s6-fdholder-retrieve [ -D ] [ -t timeout ] socket id prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut delete = false;
    let mut limit = None;
    let mut options = Options::classic(args, "t");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'D' => delete = true,
            't' => limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(id), Some(_)) = (operands.get(0), operands.get(1), operands.get(2)) else {
        return Err(Die::usage());
    };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let retrieved = answered(Connection::open(path, limit)?.retrieve(id, delete), "retrieve", id)?;
    fd::hand_over(retrieved, 0).or_die("move the descriptor to", "standard input")?;
    Ok(Exec::operands(operands.from(2)).into())
}
