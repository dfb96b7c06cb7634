//! s6-notify-fd-from-socket: run a daemon that says READY=1 to a socket, as for systemd, and pass that on to a
//! notification descriptor (spec/events-and-fdholding.md 5)

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::cli::{Args, Long, Options};
use crate::die;
use crate::error::{Die, Exec, Exit, OrDie, Program, TIMEOUT};
use crate::notify::helper;
use crate::sys::env::Env;
use crate::sys::fork::{self, Parent, Side};
use crate::sys::poll::{self, PollFd};
use crate::sys::process::Watch;
use crate::sys::{Errno, fd, socket};

/// Becomes the daemon; a helper listens.
pub const PROGRAM: Program = Program {
    name: "s6-notify-fd-from-socket",
    usage: "s6-notify-fd-from-socket [ -f ] [ -3 fd ] [ -t timeout ] prog...",
    run,
};

/// What only a long option says.
const DOUBLEFORK: char = '\u{100}';

const LONG: &[Long] = &[("no-doublefork", 'f'), ("doublefork", DOUBLEFORK), ("notification-fd", '3'), ("timeout", 't')];

/// Bytes of a datagram that are looked at.
const MOST: usize = 8191;

fn run(args: Args) -> Result<Exit, Die> {
    let mut parent = Parent::Nobody;
    let mut notification = None;
    let mut limit = None;
    let mut options = Options::long(args, "3t", LONG);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'f' => parent = Parent::Maker,
            DOUBLEFORK => parent = Parent::Nobody,
            '3' => notification = Some(value),
            't' => limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    if operands.is_empty() {
        return Err(Die::usage());
    }
    let (notification, _) = helper::notification_fd(notification.as_ref())?;
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let socket = socket::datagram().or_die("make", "a socket")?;
    fd::set_nonblocking(&socket, true).or_die("make", "a socket")?;
    let name = socket::bind_anywhere(&socket).or_die("bind", "a socket")?;
    // Where the system has no such thing, the helper does without.
    let daemon = Watch::open(nix::unistd::getpid()).ok();
    match fork::split(parent).or_die("start", "the helper")? {
        Side::Helper => helper::live(|| relay(&socket, &notification, daemon.as_ref(), limit)),
        Side::Maker => drop((socket, notification, daemon)),
    }
    let mut env = Env::inherited();
    env.set(b"NOTIFY_SOCKET", &[b"@", &name[..]].concat());
    Ok(Exec::operands(operands).with_env(env).into())
}

/// Waits for READY=1, or until the daemon is gone or nobody reads the notification descriptor any more, and passes it
/// on.
fn relay(socket: &OwnedFd, notification: &OwnedFd, daemon: Option<&Watch>, limit: Option<Duration>) -> Result<(), Die> {
    helper::leave_standard()?;
    let deadline = limit.map(|limit| Instant::now() + limit);
    let mut buffer = [0; MOST];
    let mut is_over = false;
    loop {
        match fd::read(socket, &mut buffer) {
            Ok(count) if is_ready(&buffer[..count]) => {
                return fd::write_all(notification, b"\n").or_die("write to", "the notification descriptor");
            }
            Ok(_) => continue,
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).or_die("read from", "the socket"),
        }
        if is_over {
            return Ok(());
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(die!(TIMEOUT, Errno::ETIMEDOUT => "the daemon did not get ready"));
        }
        let mut polled = [
            PollFd::new(socket.as_fd(), poll::IN),
            PollFd::new(notification.as_fd(), 0),
            PollFd::maybe(daemon.and_then(Watch::fd), poll::IN),
        ];
        poll::wait(&mut polled, deadline).or_die("wait for", "the daemon")?;
        if polled[1].hung_up() {
            return Ok(());
        }
        is_over = polled[2].ready(); // but for its last words
    }
}

/// Whether one line of the message is `READY=1`.
fn is_ready(message: &[u8]) -> bool {
    message.split(|&b| b == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_line_of_its_own() {
        for yes in ["READY=1", "READY=1\n", "STATUS=x\nREADY=1", "STATUS=x\nREADY=1\nMAINPID=2\n"] {
            assert!(is_ready(yes.as_bytes()), "{yes}");
        }
        for no in ["", "\n", "READY=0", "XREADY=1\n", "READY=11", "READY=1 \n", "STATUS=READY=1"] {
            assert!(!is_ready(no.as_bytes()), "{no}");
        }
    }
}
