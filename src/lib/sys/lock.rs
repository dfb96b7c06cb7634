//! POSIX record locks over a whole file: `l_whence` SEEK_SET, start 0, length 0.
//!
//! They belong to the process and vanish when it closes *any* descriptor of the file, so a program opens its lock
//! file once and never again (design.md 4.3). flock and open-file-description locks would not exclude C programs.

use std::os::fd::{AsFd, AsRawFd};

use super::{Errno, check};

/// What kind of lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Many holders; needs a descriptor open for reading.
    Shared,
    /// One holder; needs a descriptor open for writing.
    Exclusive,
}

fn request(kind: libc::c_short) -> libc::flock {
    // SAFETY: flock is a plain C struct for which all zeros is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

fn kind(kind: Kind) -> libc::c_short {
    match kind {
        Kind::Shared => libc::F_RDLCK as libc::c_short,
        Kind::Exclusive => libc::F_WRLCK as libc::c_short,
    }
}

/// Takes the lock; `Ok(false)` if another process holds a conflicting one.
pub fn try_lock(fd: impl AsFd, wanted: Kind) -> Result<bool, Errno> {
    let lock = request(kind(wanted));
    // SAFETY: F_SETLK reads one flock through a valid pointer.
    match check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLK, &lock) }) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Waits for the lock. EINTR when a caught signal came first.
pub fn lock(fd: impl AsFd, wanted: Kind) -> Result<(), Errno> {
    let lock = request(kind(wanted));
    // SAFETY: F_SETLKW reads one flock through a valid pointer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLKW, &lock) })?;
    Ok(())
}

/// Whether another process holds the file locked exclusively: the question behind "is it running?".
pub fn is_locked(fd: impl AsFd) -> Result<bool, Errno> {
    let mut lock = request(libc::F_RDLCK as libc::c_short);
    // SAFETY: F_GETLK reads and writes one flock through a valid pointer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
