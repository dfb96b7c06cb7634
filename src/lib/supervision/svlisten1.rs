//! s6-svlisten1: starts a program and waits for what it does to a service (spec/supervision.md 9).

use super::listening::{self, Listener};
use super::waiting::Target;
use crate::cli::Args;
use crate::error::{Die, Exit, Program};
use crate::events::ftrig;

/// Listens to a service, starts a program, then waits for the service.
pub const PROGRAM: Program = Program {
    name: "s6-svlisten1",
    usage: "s6-svlisten1 [ -U | -u | -d | -D | -r | -R ] [ -t timeout ] servicedir prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let request = listening::options(args, "UudDrRt", Target::DownReady)?;
    let program = request.operands.from(1);
    let (Some(dir), false) = (request.operands.get(0), program.is_empty()) else { return Err(Die::usage()) };
    let listener = Listener::new(&[dir], &request)?;
    ftrig::start(program)?;
    listener.wait()
}
