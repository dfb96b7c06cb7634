//! s6-ftrig-listen1: starts a program and waits for letters that match (spec/events-and-fdholding.md 1).

use super::ftrig;
use crate::cli::{Args, Options};
use crate::error::{Die, Exit, Program};

/// Subscribes to a fifodir, then starts a program, waits for a match and prints what came.
pub const PROGRAM: Program =
    Program { name: "s6-ftrig-listen1", usage: "s6-ftrig-listen1 [ -t timeout ] fifodir regexp prog...", run };

/// The exit code of a listener at its time limit.
pub const TIMED_OUT: u8 = 1;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "t", &[("timeout", 't')]);
    let mut deadline = None;
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => deadline = ftrig::deadline(&value)?,
            other => return Err(options.unknown(other)),
        }
    }
    let words = options.operands();
    let program = words.from(2);
    let (Some(fifodir), Some(pattern), false) = (words.get(0), words.get(1), program.is_empty()) else {
        return Err(Die::usage());
    };
    ftrig::wait_for_one(fifodir, pattern, Some(program), deadline, TIMED_OUT)
}
