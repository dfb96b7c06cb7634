//! s6-svok: is a service directory supervised? (spec/supervision.md 7)

use crate::cli::Args;
use crate::error::{Die, Exit, OrDie, Program};
use crate::servicedir::control;
use crate::sys::Errno;

/// Exits 0 if `supervise/lock` is locked, 1 if it is not or not there.
pub const PROGRAM: Program = Program { name: "s6-svok", usage: "s6-svok servicedir", run };

fn run(args: Args) -> Result<Exit, Die> {
    let dir = args.operands().get(0).ok_or_else(Die::usage)?;
    match control::is_running(dir, "supervise") {
        Ok(running) => Ok(Exit::Code(if running { 0 } else { 1 })),
        Err(Errno::ENOENT) => Ok(Exit::Code(1)),
        failure => failure.or_die("look at the lock of", dir).map(|_| Exit::Code(1)),
    }
}
