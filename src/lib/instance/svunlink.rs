//! s6-svunlink: a service taken out of a live scan directory (spec/local-services-and-instances.md 7.2).

use nix::sys::stat::lstat;
use nix::unistd::{AccessFlags, access};

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, Program, SYSTEM};
use crate::events::fifodir::join;
use crate::instance::turn::Turn;
use crate::instance::{link, svlink, unlink};
use crate::sys::Errno;

/// Removes a service from a scan directory and waits for the end of its supervisor.
pub const PROGRAM: Program =
    Program { name: "s6-svunlink", usage: "s6-svunlink [ -X ] [ -t timeout ] scandir name", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, unlink::Options::WITH_VALUE);
    let mut wanted = unlink::Options::default();
    while let Some((letter, value)) = options.next()? {
        if !wanted.take(letter, &value)? {
            return Err(options.unknown(letter));
        }
    }
    let operands = options.operands();
    let (Some(scandir), Some(name)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    svlink::check_name(name)?;
    if let Err(Errno::ENOENT | Errno::ENOTDIR) = access(scandir, AccessFlags::F_OK) {
        return Ok(error::OK);
    }
    link::trap_signals()?;
    let deadline = wanted.deadline();
    let turn = match Turn::wait(scandir, name, deadline) {
        // Who may not change the scan directory need not, where the name is not there.
        Err(die)
            if matches!(die.errno(), Some(Errno::EACCES | Errno::EROFS))
                && lstat(join(scandir, name).as_c_str()) == Err(Errno::ENOENT) =>
        {
            return Ok(error::OK);
        }
        turn => turn?,
    };
    let _turn = turn.ok_or_else(|| die!(SYSTEM, Errno::EBUSY => "another program is at work on ", name))?;
    unlink::unlink(scandir, name, &wanted, deadline)?;
    Ok(error::OK)
}
