//! Signals as events: trapped signals stay blocked except inside [`poll::wait`](super::poll::wait).
//!
//! The handler sets one bit. Because the signal can only arrive while ppoll waits, with its mask swapped by the
//! kernel, looking at the bits after the wait misses nothing, and no self-pipe, no descriptor and no heap is spent
//! in a process that exists once per service.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use nix::sys::signal::{SigSet, Signal};

use super::{Errno, Pid, check};

static PENDING: AtomicU64 = AtomicU64::new(0);
static TRAPPED: AtomicU64 = AtomicU64::new(0);
static WAIT_MASK: OnceLock<SigSet> = OnceLock::new();

/// The highest signal number: real-time signals go to 64 on Linux.
const HIGHEST: i32 = 64;

extern "C" fn note(signal: libc::c_int) {
    PENDING.fetch_or(bit(signal), Ordering::Relaxed);
}

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// Turns the signals into events, also where the parent had them blocked or ignored. To be called once.
pub fn trap(signals: &[Signal]) -> Result<(), Errno> {
    trap_numbers(&mut signals.iter().map(|&s| s as i32))
}

/// Traps every signal that can be caught, real-time ones included; those that only a fault raises (SEGV, BUS, FPE,
/// ILL, SYS, TRAP) and the stop signals keep their effect.
pub fn trap_all() -> Result<(), Errno> {
    use Signal::*;
    let keep = [SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGTSTP, SIGTTIN, SIGTTOU];
    trap_numbers(&mut (1..=HIGHEST).filter(|&n| !keep.iter().any(|&k| k as i32 == n)))
}

/// For a program that must clean up before it ends: traps `also`, and those of HUP, INT, QUIT and TERM that the parent
/// has not ignored. When [`take`] gives one of these, return [`Exit::Signal`](crate::error::Exit::Signal).
pub fn trap_endings(also: &[Signal]) -> Result<(), Errno> {
    let endings = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM].map(|s| s as i32);
    let mut numbers = endings.into_iter().filter(|&n| !is_ignored(n)).chain(also.iter().map(|&s| s as i32));
    trap_numbers(&mut numbers)
}

fn is_ignored(number: i32) -> bool {
    // SAFETY: a null new action changes nothing; the old one is written through a live pointer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn trap_numbers(numbers: &mut dyn Iterator<Item = i32>) -> Result<(), Errno> {
    let mut inherited = SigSet::thread_get_mask()?;
    // SAFETY: sigset_t is a plain value; SigSet is a transparent wrapper that hands out only references.
    let mut blocked: libc::sigset_t = *inherited.as_ref();
    let mut waiting: libc::sigset_t = *inherited.as_ref();
    let mut bits = 0;
    for number in numbers {
        // SAFETY: zeroed sigaction with a handler that only does one atomic store; all pointers are live.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            libc::sigfillset(&mut action.sa_mask);
            if check(libc::sigaction(number, &action, std::ptr::null_mut())).is_err() {
                continue; // the C library keeps a few real-time signals to itself
            }
            libc::sigaddset(&mut blocked, number);
            libc::sigdelset(&mut waiting, number);
        }
        bits |= bit(number);
    }
    TRAPPED.store(bits, Ordering::Relaxed);
    // SAFETY: both sets were initialised above.
    inherited = unsafe { SigSet::from_sigset_t_unchecked(waiting) };
    let _ = WAIT_MASK.set(inherited);
    // SAFETY: as above.
    unsafe { SigSet::from_sigset_t_unchecked(blocked) }.thread_set_mask()
}

/// The mask that ppoll puts in place while it waits; `None` if nothing was trapped.
pub(super) fn wait_mask() -> Option<&'static SigSet> {
    WAIT_MASK.get()
}

/// Takes one signal that came since it was last taken, lowest number first, as its number.
pub fn take() -> Option<i32> {
    let pending = PENDING.load(Ordering::Relaxed);
    if pending == 0 {
        return None;
    }
    let number = pending.trailing_zeros() as i32 + 1;
    PENDING.fetch_and(!bit(number), Ordering::Relaxed);
    Some(number)
}

/// Sends signal `number` to a process. ESRCH when it is gone.
pub fn kill(pid: Pid, number: i32) -> Result<(), Errno> {
    // SAFETY: kill takes any two integers.
    check(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Sends signal `number` to a process group.
pub fn kill_group(group: Pid, number: i32) -> Result<(), Errno> {
    kill(Pid::from_raw(-group.as_raw()), number)
}

/// Gives SIGPIPE its default effect back in this process, or neutralises it: a write then fails with EPIPE.
///
/// Neutralised by an empty handler, not by SIG_IGN: exec sets caught signals back to the default, so no child
/// inherits it.
pub fn neutralise(signal: Signal) -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeroed sigaction with a handler that does nothing; all pointers are live.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        check(libc::sigaction(signal as i32, &action, std::ptr::null_mut())).map(drop)
    }
}

/// What a child does before it executes: trapped signals back to the default, then an empty mask.
/// Async-signal-safe; the parent blocked every signal before it made the child.
pub(super) fn reset_in_child() {
    let mut trapped = TRAPPED.load(Ordering::Relaxed);
    // SAFETY: zeroed sigaction is SIG_DFL; sigemptyset initialises the set; both calls are async-signal-safe.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        while trapped != 0 {
            libc::sigaction(trapped.trailing_zeros() as i32 + 1, &action, std::ptr::null_mut());
            trapped &= trapped - 1;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Ends this process by a signal that it had trapped, so that the parent sees what happened.
pub fn end_by(number: i32) -> ! {
    untrap();
    let _ = kill(nix::unistd::getpid(), number);
    super::entry::end(128u8.wrapping_add(number as u8))
}

/// Restores what [`trap`] changed, before this process executes something else.
pub fn untrap() {
    reset_in_child();
    TRAPPED.store(0, Ordering::Relaxed);
}
