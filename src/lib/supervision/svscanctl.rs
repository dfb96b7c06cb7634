//! s6-svscanctl: sends commands to a scanner (spec/supervision.md 5).

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OK, Program, SYSTEM, USAGE};
use crate::servicedir::control::{self, Failure};

/// Writes its option letters to the control fifo of a scan directory.
pub const PROGRAM: Program = Program { name: "s6-svscanctl", usage: "s6-svscanctl [ -zabhitqnN ] scandir", run };

/// Letters that one call may send.
const MOST: usize = 64;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "");
    let mut commands = Vec::with_capacity(MOST);
    while let Some((letter, _)) = options.next()? {
        if !"zabhitqnN".contains(letter) {
            return Err(options.unknown(letter));
        }
        if commands.len() == MOST {
            return Err(die!(USAGE, "too many commands"));
        }
        commands.push(letter as u8);
    }
    let dir = options.operands().get(0).ok_or_else(Die::usage)?;
    match control::send(dir, ".s6-svscan", &commands) {
        Ok(()) => Ok(OK),
        Err(Failure::NotListening) => Err(die!(USAGE, "unable to control ", dir, ": no s6-svscan is listening")),
        Err(Failure::Broken) => Err(die!(USAGE, "unable to control ", dir, ": .s6-svscan/control is not there")),
        Err(Failure::System(errno)) => Err(die!(SYSTEM, errno => "unable to control ", dir)),
    }
}
