//! s6-ftrig-notify: sends letters to the subscribers of a fifodir (spec/events-and-fdholding.md 1).

use super::fifodir;
use crate::cli::Args;
use crate::error::{Die, Exit, OK, OrDie, Program};

/// Sends the bytes of its second argument, in one write per subscriber.
pub const PROGRAM: Program = Program { name: "s6-ftrig-notify", usage: "s6-ftrig-notify fifodir message", run };

fn run(args: Args) -> Result<Exit, Die> {
    let words = args.operands();
    let (Some(path), Some(message)) = (words.get(0), words.get(1)) else { return Err(Die::usage()) };
    fifodir::ignore_vanishing_readers();
    fifodir::notify(path, message.to_bytes()).or_die("notify fifodir", path)?;
    Ok(OK)
}
