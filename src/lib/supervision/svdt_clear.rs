//! s6-svdt-clear: forgets the recorded deaths of a service (spec/supervision.md 10).

use crate::cli::Args;
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::servicedir::files;

/// Replaces the death tally by an empty one.
pub const PROGRAM: Program = Program { name: "s6-svdt-clear", usage: "s6-svdt-clear servicedir", run };

fn run(args: Args) -> Result<Exit, Die> {
    let dir = args.operands().get(0).ok_or_else(Die::usage)?;
    let path = files::path(dir, "supervise/death_tally");
    files::replace(&path, &files::path(dir, "supervise/death_tally.new"), b"").or_die("clear", &path)?;
    Ok(OK)
}
