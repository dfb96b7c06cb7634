//! s6-notify-socket-from-fd: run a daemon that writes a newline to a descriptor when it is ready, and tell systemd's
//! notification socket (spec/events-and-fdholding.md 5)

use std::ffi::CStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use crate::cli::{Args, Long, Options};
use crate::die;
use crate::error::{Die, Exec, Exit, OrDie, Program, SYSTEM, TIMEOUT};
use crate::notify::helper;
use crate::sys::env::{self, Env};
use crate::sys::fork::{self, Parent, Side};
use crate::sys::{Errno, Pid, fd, poll, scm, socket};
use crate::text::decimal;

/// Becomes the daemon; a helper listens.
pub const PROGRAM: Program = Program {
    name: "s6-notify-socket-from-fd",
    usage: "s6-notify-socket-from-fd [ -d fd ] [ -f ] [ -t timeout ] [ -k ] prog...",
    run,
};

/// What only a long option says.
const DOUBLEFORK: char = '\u{100}';

const LONG: &[Long] = &[
    ("notification-fd", 'd'),
    ("no-doublefork", 'f'),
    ("doublefork", DOUBLEFORK),
    ("timeout", 't'),
    ("keep-environment", 'k'),
];

/// The variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";

fn run(args: Args) -> Result<Exit, Die> {
    let mut parent = Parent::Nobody;
    let mut number = 1;
    let mut limit = None;
    let mut keep = false;
    let mut options = Options::long(args, "dt", LONG);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => number = value.u32()?,
            'f' => parent = Parent::Maker,
            DOUBLEFORK => parent = Parent::Nobody,
            't' => limit = value.limit()?,
            'k' => keep = true,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    if operands.is_empty() {
        return Err(Die::usage());
    }
    let exec = Exec::operands(operands);
    let Some(target) = env::get(SOCKET).filter(|target| !target.is_empty()) else { return Ok(exec.into()) };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let (reader, writer) = fd::pipe().or_die("make", "a pipe")?;
    let relay = Relay { target, daemon: nix::unistd::getpid(), deadline: limit.map(|limit| Instant::now() + limit) };
    match fork::split(parent).or_die("start", "the helper")? {
        Side::Helper => {
            drop(writer);
            helper::live(|| relay.run(&reader))
        }
        Side::Maker => drop(reader),
    }
    let number = number.try_into().map_err(|_| Errno::EBADF);
    number.and_then(|number| fd::hand_over(writer, number)).or_die("set up", "the notification descriptor")?;
    let mut env = Env::inherited();
    if !keep {
        env.unset(SOCKET.as_bytes());
    }
    Ok(exec.with_env(env).into())
}

/// What the helper knows.
struct Relay {
    target: &'static CStr,
    daemon: Pid,
    deadline: Option<Instant>,
}

impl Relay {
    /// Waits for a newline, and says so to the socket; then waits until the message has been read.
    fn run(&self, reader: &OwnedFd) -> Result<(), Die> {
        helper::leave_standard()?;
        let mut buffer = [0; 512];
        loop {
            match self.read(reader, &mut buffer)? {
                0 => return Err(Die::silent(1)),
                count if buffer[..count].contains(&b'\n') => break,
                _ => {}
            }
        }
        let socket = socket::datagram().or_die("make", "a socket")?;
        fd::set_nonblocking(&socket, true).or_die("make", "a socket")?;
        let address = socket::notify_address(self.target).or_die("understand", self.target)?;
        socket::connect(&socket, &address).or_die("connect to", self.target)?;
        let pid = decimal(self.daemon.as_raw() as u32);
        let ready = [b"READY=1\nMAINPID=", pid.as_bytes(), b"\n"].concat();
        self.send(&socket, &ready, None)?;
        let (barrier, other_end) = fd::pipe().or_die("make", "a pipe")?;
        self.send(&socket, b"BARRIER=1\n", Some(other_end))?;
        while self.read(&barrier, &mut buffer)? > 0 {}
        Ok(())
    }

    fn send(&self, socket: &OwnedFd, message: &[u8], descriptor: Option<OwnedFd>) -> Result<(), Die> {
        let fds: Vec<_> = descriptor.iter().map(|fd| fd.as_fd()).collect();
        loop {
            match scm::send(socket, &[IoSlice::new(message)], &fds) {
                Err(Errno::EAGAIN) => self.wait(socket, poll::OUT)?,
                // It has read what came before, and ended: there is nobody to wait for.
                Err(Errno::ECONNREFUSED) if descriptor.is_some() => return Ok(()),
                sent => return sent.or_die("write to", self.target).map(drop),
            }
        }
    }

    fn read(&self, from: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Die> {
        self.wait(from, poll::IN)?;
        fd::read(from, buffer).or_die("read from", "a pipe")
    }

    fn wait(&self, fd: &OwnedFd, events: i16) -> Result<(), Die> {
        let code = |errno| if errno == Errno::ETIMEDOUT { TIMEOUT } else { SYSTEM };
        let ready = poll::until_ready(fd, events, self.deadline);
        ready.map_err(|errno| die!(code(errno), errno => "unable to tell ", self.target))
    }
}
