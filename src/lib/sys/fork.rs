//! A helper: a process that goes on in this program while its maker becomes another.

use super::{Errno, entry, wait};
use nix::unistd::{ForkResult, fork};

/// Whose child a helper is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parent {
    /// Of the process that made it, which may be surprised by a child that it does not know.
    Maker,
    /// Of nobody: process 1, or the nearest subreaper, takes it.
    Nobody,
}

/// Which process this is after [`split`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The one that was there.
    Maker,
    /// The new one, with copies of all descriptors. What it does not use it has to drop, and its end is
    /// [`entry::end`].
    Helper,
}

/// Makes a helper, and returns in both processes.
pub fn split(parent: Parent) -> Result<Side, Errno> {
    // SAFETY: the process has one thread, so that no lock is held by another, and the child may run ordinary code.
    let fork = || unsafe { fork() };
    match (fork()?, parent) {
        (ForkResult::Parent { .. }, Parent::Maker) => Ok(Side::Maker),
        (ForkResult::Child, Parent::Maker) => Ok(Side::Helper),
        (ForkResult::Parent { child }, Parent::Nobody) => match wait::wait_for(child).map(|status| status.code()) {
            Ok(Some(0)) => Ok(Side::Maker),
            Ok(Some(errno)) => Err(Errno::from_raw(errno.into())),
            Ok(None) => Err(Errno::ECHILD),
            // SIGCHLD is ignored, so nobody knows how it ended. Most forks succeed.
            Err(Errno::ECHILD) => Ok(Side::Maker),
            Err(errno) => Err(errno),
        },
        (ForkResult::Child, Parent::Nobody) => match fork() {
            Ok(ForkResult::Parent { .. }) => entry::end(0),
            Ok(ForkResult::Child) => Ok(Side::Helper),
            Err(errno) => entry::end(errno as i32 as u8),
        },
    }
}
