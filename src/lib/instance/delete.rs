//! s6-instance-delete (spec/local-services-and-instances.md 10).

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, SYSTEM};
use crate::events::fifodir::join;
use crate::instance::create::{INSTANCE, INSTANCES, check_operands};
use crate::instance::turn::Turn;
use crate::instance::{link, tree, unlink};
use crate::servicedir::files;
use crate::sys::Errno;

/// Ends an instance and removes it.
pub const PROGRAM: Program =
    Program { name: "s6-instance-delete", usage: "s6-instance-delete [ -X ] [ -t timeout ] service name", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, unlink::Options::WITH_VALUE);
    let mut wanted = unlink::Options::default();
    while let Some((letter, value)) = options.next()? {
        if !wanted.take(letter, &value)? {
            return Err(options.unknown(letter));
        }
    }
    let operands = options.operands();
    let (Some(service), Some(name)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    check_operands(service, name)?;
    let scandir = files::path(service, INSTANCE);
    link::check_scanner(&scandir)?;
    link::trap_signals()?;
    let deadline = wanted.deadline();
    let _turn = Turn::wait(&scandir, name, deadline)?
        .ok_or_else(|| die!(SYSTEM, Errno::EBUSY => "another program is at work on ", name))?;
    unlink::unlink(&scandir, name, &wanted, deadline)?;
    let copy = join(&files::path(service, INSTANCES), name);
    tree::remove(&copy).or_die("remove", &copy)?;
    Ok(error::OK)
}
