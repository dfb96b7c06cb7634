//! s6-fghack: keep a daemon that forks in the foreground (spec/logging-and-chainloaders.md 14).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::cli::Args;
use crate::error::{Die, Exit, OrDie, Program, SYSTEM};
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::{Errno, fd, wait};
use crate::{die, warn};

/// Runs a program and waits until all its descendants have ended, too.
pub const PROGRAM: Program = Program { name: "s6-fghack", usage: "s6-fghack prog...", run };

/// Descriptors of the pipe that the program inherits: a daemon that closes "all" of them may close a few.
const HELD: usize = 31;
/// Exit code when something was written on the pipe.
const WRITTEN: u8 = 102;

fn run(args: Args) -> Result<Exit, Die> {
    let words = args.operands();
    let name = words.get(0).ok_or_else(Die::usage)?;
    warn!("s6-fghack only hides a daemon from its supervisor: make it stay in the foreground, or write its pidfile");
    let (reader, writer) = fd::pipe().or_die("make a pipe", "")?;
    let mut held = vec![writer];
    while held.len() < HELD {
        match fd::duplicate(&held[0], 0) {
            // Fewer will do where the limit of open files is low.
            Err(Errno::EMFILE) => break,
            copy => held.push(copy.or_die("duplicate a descriptor", "")?),
        }
    }
    let inherited: Vec<Redirect<'_>> = held.iter().map(in_place).collect();
    let child = Spawn { redirects: &inherited, ..Spawn::new(words.list()) }.start();
    let child = child.map_err(|errno| die!(SYSTEM, errno => "unable to spawn ", name))?;
    drop(held);
    match fd::read(&reader, &mut [0]).or_die("read", "the pipe")? {
        0 => {}
        _ => return Err(die!(WRITTEN, "the program wrote on the pipe of s6-fghack")),
    }
    match wait::wait_for(child) {
        // Where SIGCHLD is ignored the kernel takes the status for itself.
        Err(Errno::ECHILD) => Ok(Exit::Code(0)),
        status => Ok(Exit::Code(status.or_die("wait for", name)?.estatus())),
    }
}

/// Left where it is, open for the child.
fn in_place(fd: &OwnedFd) -> Redirect<'_> {
    Redirect::new(fd.as_fd(), fd.as_raw_fd())
}
