//! s6-svwait: waits until services are up, ready, down or restarted (spec/supervision.md 9).

use super::listening::{self, Listener};
use super::waiting::Target;
use crate::cli::Args;
use crate::error::{Die, Exit, OK, Program};

/// Waits for services.
pub const PROGRAM: Program = Program {
    name: "s6-svwait",
    usage: "s6-svwait [ -U | -u | -d | -D | -r | -R ] [ -a | -o ] [ -t timeout ] servicedir...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let request = listening::options(args, "UudDrRaot", Target::Down)?;
    let dirs: Vec<_> = request.operands.iter().collect();
    if dirs.is_empty() {
        return Ok(OK);
    }
    Listener::new(&dirs, &request)?.wait()
}
