//! s6-svlisten: starts a program and waits for what it does to services (spec/supervision.md 9).

use super::listening::{self, Listener};
use super::waiting::Target;
use crate::cli::{self, Args};
use crate::error::{Die, Exec, Exit, Program, USAGE};
use crate::events::ftrig;
use crate::{die, warn};

/// Listens to services, starts a program, then waits for the services.
pub const PROGRAM: Program = Program {
    name: "s6-svlisten",
    usage: "s6-svlisten [ -U | -u | -d | -D | -r | -R ] [ -a | -o ] [ -t timeout ] servicedir... \"\" prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut request = listening::options(args, "UudDrRaot", Target::DownReady)?;
    if request.wish.any && request.wish.first.is_some() {
        warn!("-o does not go together with -r or -R, taking it as -a");
        request.wish.any = false;
    }
    if request.operands.len() < 3 {
        return Err(Die::usage());
    }
    let unterminated = || die!(USAGE, "the list of service directories does not end: an empty word is missing");
    let (dirs, program) = cli::block(request.operands)?.ok_or_else(unterminated)?;
    if program.is_empty() {
        return Err(Die::usage());
    }
    if dirs.is_empty() {
        return Ok(Exec::operands(program).into());
    }
    let listener = Listener::new(&dirs, &request)?;
    ftrig::start(program)?;
    listener.wait()
}
