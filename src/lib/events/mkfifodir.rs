//! s6-mkfifodir: makes a fifodir (spec/events-and-fdholding.md 1).

use nix::unistd::Gid;

use super::fifodir::{self, Access};
use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};

/// Makes a directory that anyone, or the members of one group, may subscribe in.
pub const PROGRAM: Program = Program { name: "s6-mkfifodir", usage: "s6-mkfifodir [ -f ] [ -g gid ] fifodir", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "g");
    let (mut force, mut access) = (false, Access::Public);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'f' => force = true,
            'g' => access = Access::Group(Gid::from_raw(value.u32()?)),
            other => return Err(options.unknown(other)),
        }
    }
    let path = options.operands().get(0).ok_or_else(Die::usage)?;
    fifodir::make(path, access, force).or_die("make fifodir", path)?;
    Ok(OK)
}
