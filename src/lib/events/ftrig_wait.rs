//! s6-ftrig-wait: waits for letters that match (spec/events-and-fdholding.md 1).

use super::ftrig;
use crate::cli::{Args, Options};
use crate::error::{Die, Exit, Program, TIMEOUT};

/// Subscribes to a fifodir, waits for a match and prints what came.
pub const PROGRAM: Program =
    Program { name: "s6-ftrig-wait", usage: "s6-ftrig-wait [ -t timeout ] fifodir regexp", run };

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
    let (Some(fifodir), Some(pattern)) = (words.get(0), words.get(1)) else { return Err(Die::usage()) };
    ftrig::wait_for_one(fifodir, pattern, None, deadline, TIMEOUT)
}
