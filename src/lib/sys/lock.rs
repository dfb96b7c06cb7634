//! POSIX record locks over a whole file: `l_whence` SEEK_SET, start 0, length 0.
//!
//! They belong to the process and vanish when it closes *any* descriptor of the file, so a program opens its lock
//! file once and never again (design.md 4.3). flock and open-file-description locks would not exclude C programs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use super::{Errno, Pid, check};

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
    set(fd.as_fd(), &request(kind(wanted)))
}

fn set(fd: BorrowedFd<'_>, lock: &libc::flock) -> Result<bool, Errno> {
    // SAFETY: F_SETLK reads one flock through a valid pointer.
    match check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, lock) }) {
        Ok(_) => Ok(true),
        Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Takes an exclusive lock on one byte, so that a file is as many locks as are needed. The byte need not exist.
pub fn try_lock_byte(fd: impl AsFd, offset: u32) -> Result<bool, Errno> {
    let mut lock = request(libc::F_WRLCK as libc::c_short);
    lock.l_start = offset.into();
    lock.l_len = 1;
    set(fd.as_fd(), &lock)
}

/// Waits for the lock. EINTR when a caught signal came first.
pub fn lock(fd: impl AsFd, wanted: Kind) -> Result<(), Errno> {
    let lock = request(kind(wanted));
    // SAFETY: F_SETLKW reads one flock through a valid pointer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETLKW, &lock) })?;
    Ok(())
}

/// Waits for the lock, at most `limit`; `Ok(false)` if that is over. Uses SIGALRM and the alarm clock of the process,
/// and leaves the signal as it was and the clock off.
pub fn lock_within(fd: impl AsFd, wanted: Kind, limit: Duration) -> Result<bool, Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    let deadline = Instant::now() + limit;
    let only_alarm = SigSet::from(Signal::SIGALRM);
    // An alarm that comes before the wait has begun is lost, so it repeats.
    const AGAIN: Duration = Duration::from_millis(10);
    // SAFETY: sigaction is a plain C struct for which all zeros is a valid value.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize; // no SA_RESTART: the wait is to be interrupted
    // SAFETY: both pointers are live, and the handler does nothing.
    check(unsafe { libc::sigaction(libc::SIGALRM, &action, &mut before) })?;
    let mask = only_alarm.thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    set_alarm(limit, AGAIN)?;
    let outcome = loop {
        match lock(fd.as_fd(), wanted) {
            Err(Errno::EINTR) if Instant::now() < deadline => {}
            Err(Errno::EINTR) => break Ok(false),
            other => break other.map(|()| true),
        }
    };
    set_alarm(Duration::ZERO, Duration::ZERO)?;
    mask.thread_set_mask()?;
    // SAFETY: the action that was there before, through a live pointer.
    check(unsafe { libc::sigaction(libc::SIGALRM, &before, std::ptr::null_mut()) })?;
    outcome
}

/// Sets the alarm clock to ring after `first` (zero: never), then every `again`.
fn set_alarm(first: Duration, again: Duration) -> Result<(), Errno> {
    let time = |length: Duration| libc::timeval { tv_sec: length.as_secs() as _, tv_usec: length.subsec_micros() as _ };
    let timer = libc::itimerval { it_interval: time(again), it_value: time(first) };
    // SAFETY: setitimer reads one itimerval through a live pointer.
    check(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }).map(drop)
}

/// Whether another process holds the file locked exclusively: the question behind "is it running?".
pub fn is_locked(fd: impl AsFd) -> Result<bool, Errno> {
    Ok(holder(fd)?.is_some())
}

/// The process that holds the file locked exclusively; its number is 0 if it is in a PID namespace out of sight.
pub fn holder(fd: impl AsFd) -> Result<Option<Pid>, Errno> {
    let mut lock = request(libc::F_RDLCK as libc::c_short);
    // SAFETY: F_GETLK reads and writes one flock through a valid pointer.
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GETLK, &mut lock) })?;
    Ok((lock.l_type != libc::F_UNLCK as libc::c_short).then(|| Pid::from_raw(lock.l_pid)))
}
