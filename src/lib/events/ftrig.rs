//! What s6-ftrig-wait, s6-ftrig-listen1 and s6-ftrig-listen share: subscribe, start a program, wait for matches.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::Instant;

use super::matcher::{Matcher, TURN};
use super::subscription::Subscription;
use crate::cli::Args;
use crate::error::{Die, Exit, OK, OrDie, SYSTEM};
use crate::sys::Errno;
use crate::sys::fd::{STDOUT, write_all};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::spawn::Spawn;
use crate::sys::wait::{Which, reap};
use crate::{cli, die};

/// One fifodir of the command line, subscribed to, and the expression that its letters are to match.
#[derive(Debug)]
pub struct Expectation {
    subscription: Subscription,
    matcher: Matcher,
}

impl Expectation {
    /// Subscribes. From here on no letter is missed.
    pub fn new(fifodir: &CStr, pattern: &CStr) -> Result<Expectation, Die> {
        let matcher = Matcher::new(pattern.to_bytes())
            .map_err(|e| die!(SYSTEM, "invalid regular expression ", pattern, ": ", e.reason))?;
        Ok(Expectation { subscription: Subscription::new(fifodir).or_die("subscribe to", fifodir)?, matcher })
    }

    /// Reads what came, at most one turn's worth: the letters since the subscription if they match.
    fn read(&mut self) -> Result<Option<Vec<u8>>, Errno> {
        let mut buffer = [0; TURN];
        let mut bytes = match self.subscription.read(&mut buffer) {
            Ok(length) => &buffer[..length],
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        while !bytes.is_empty() {
            if let Some(letters) = self.matcher.take_chunk(&mut bytes) {
                return Ok(Some(letters));
            }
        }
        Ok(None)
    }
}

/// How a wait ended.
#[derive(PartialEq, Eq, Debug)]
pub enum End {
    /// With the match that was still missing: these letters.
    Matched(Vec<u8>),
    /// At the deadline.
    TimedOut,
    /// By a signal that ends the program.
    Signal(i32),
}

/// Traps the signals that would leave fifos behind, and the death of the program that listeners start.
pub fn prepare() -> Result<(), Die> {
    signal::trap_endings(&[Signal::SIGCHLD]).or_die("trap", "signals")
}

/// Starts the program of a listener. It is not waited for, and its exit code does not matter.
pub fn start(program: Args) -> Result<(), Die> {
    Spawn::new(program.list()).start().or_die("spawn", program.get(0).unwrap_or(c"")).map(drop)
}

/// All of s6-ftrig-wait and, with a `program`, s6-ftrig-listen1: waits for one match and prints it.
pub fn wait_for_one(
    fifodir: &CStr,
    pattern: &CStr,
    program: Option<Args>,
    deadline: Option<Instant>,
    timed_out: u8,
) -> Result<Exit, Die> {
    prepare()?;
    let expected = Expectation::new(fifodir, pattern)?;
    program.map_or(Ok(()), start)?;
    match wait(vec![expected], true, deadline)? {
        End::Matched(mut letters) => {
            letters.push(b'\n');
            write_all(STDOUT, &letters).or_die("write to", "stdout")?;
            Ok(OK)
        }
        End::TimedOut => Err(die!(timed_out, "timed out while waiting for a match of ", pattern, " in ", fifodir)),
        End::Signal(number) => Ok(Exit::Signal(number)),
    }
}

/// Waits until all expressions have matched, in any order, or until `any` one has. Those that have matched are
/// unsubscribed at once, the others at the end.
pub fn wait(mut missing: Vec<Expectation>, any: bool, deadline: Option<Instant>) -> Result<End, Die> {
    loop {
        let mut fds: Vec<PollFd> = missing.iter().map(|e| PollFd::new(e.subscription.as_fd(), poll::IN)).collect();
        poll::wait(&mut fds, deadline).or_die("poll", "")?;
        if let Some(number) = take_signal() {
            return Ok(End::Signal(number));
        }
        // From the last to the first, so that what is removed does not move what is still to be looked at.
        for index in (0..fds.len()).rev().filter(|&index| fds[index].readable()) {
            if let Some(letters) = missing[index].read().or_die("read from", "fifo")? {
                missing.swap_remove(index);
                if any || missing.is_empty() {
                    return Ok(End::Matched(letters));
                }
            }
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(End::TimedOut);
        }
    }
}

/// Reaps dead children and says which signal, if any, is to end the program.
pub fn take_signal() -> Option<i32> {
    while let Some(number) = signal::take() {
        if number != Signal::SIGCHLD as i32 {
            return Some(number);
        }
        while reap(Which::Any).is_some() {}
    }
    None
}

/// The moment `limit` from now.
pub fn deadline(limit: &cli::Value) -> Result<Option<Instant>, Die> {
    Ok(limit.limit()?.and_then(|limit| Instant::now().checked_add(limit)))
}
