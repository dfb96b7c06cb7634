//! s6-cleanfifodir: removes the fifos of subscribers that are gone (spec/events-and-fdholding.md 1).

use super::fifodir;
use crate::cli::Args;
use crate::error::{Die, Exit, OK, OrDie, Program};

/// Removes fifos that nobody reads; writes nothing to the others.
pub const PROGRAM: Program = Program { name: "s6-cleanfifodir", usage: "s6-cleanfifodir fifodir", run };

fn run(args: Args) -> Result<Exit, Die> {
    let path = args.operands().get(0).ok_or_else(Die::usage)?;
    fifodir::clean(path).or_die("clean fifodir", path)?;
    Ok(OK)
}
