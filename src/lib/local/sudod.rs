//! s6-sudod: the server's end of s6-sudo (spec/local-services-and-instances.md 5.3, 5.4).
//!
//! Who may ask is the business of s6-ipcserver-access in front of it; what may be asked for is its command line. A
//! client can hand over arguments, three descriptors, and values of variables that are there, empty, to take them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::fcntl::OFlag;

use crate::cli::{Args, Options, argv};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, SYSTEM, USAGE};
use crate::local::sudo::{DESCRIPTORS, Refusal, Request, SERVER_BANNER};
use crate::sys::cptr::{self, CPtr};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{Errno, Pid, env, fd};
use crate::unixmessage::{Inbox, Limits, Message};

/// Runs a program for a client, on the client's descriptors.
pub const PROGRAM: Program =
    Program { name: "s6-sudod", usage: "s6-sudod [ -0 ] [ -1 ] [ -2 ] [ -d ] [ -t timeout ] sargs...", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "t");
    // Which of the client's descriptors the program gets.
    let (mut takes, mut detached, mut limit) = ([true; DESCRIPTORS], false, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            '0' => takes[0] = false,
            '1' => takes[1] = false,
            '2' => takes[2] = false,
            'd' => (takes, detached) = ([false; DESCRIPTORS], true),
            't' => limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let deadline = limit.map(|limit| Instant::now() + limit);
    fd::open_missing_standard()
        .and_then(|()| signal::neutralise(Signal::SIGPIPE))
        .and_then(|()| signal::trap(&[Signal::SIGCHLD]))
        .and_then(|()| fd::set_nonblocking(fd::STDIN, true))
        .and_then(|()| fd::set_nonblocking(fd::STDOUT, true))
        .or_die("prepare", "descriptors")?;
    fd::write_before(fd::STDOUT, SERVER_BANNER, deadline).or_die("send", "the banner")?;
    let child = serve_request(options.operands(), takes, deadline)?;
    if fd::write_before(fd::STDOUT, &[0], deadline).is_err() {
        return Ok(hung_up(child));
    }
    match attend(child, detached)? {
        Fate::Ended(status) => {
            let _ = fd::write_before(fd::STDOUT, &u32::from(status.raw()).to_be_bytes(), None);
            Ok(error::OK)
        }
        Fate::EndedAlone => Ok(error::OK),
        Fate::HungUp => Ok(hung_up(child)),
    }
}

/// Reads the client's message and starts what it asks for. The client's descriptors are closed on return.
fn serve_request(program: Args, takes: [bool; DESCRIPTORS], deadline: Option<Instant>) -> Result<Pid, Die> {
    let mut inbox = Inbox::default();
    loop {
        if let Some(message) = inbox.take(Limits::FORMAT).or_die("receive", "the request")? {
            return start(program, takes, message);
        }
        match inbox.fill(fd::STDIN) {
            Ok(0) => return Err(die!(SYSTEM, "the client left without a request")),
            Ok(_) => {}
            Err(Errno::EAGAIN) => {
                poll::until_ready(fd::STDIN, poll::IN, deadline).or_die("receive", "the request")?;
            }
            failure => failure.or_die("receive", "the request").map(drop)?,
        }
    }
}

fn start(program: Args, takes: [bool; DESCRIPTORS], message: Message<'_>) -> Result<Pid, Die> {
    let fds: Vec<OwnedFd> = message.fds.collect();
    if fds.len() != DESCRIPTORS {
        return Err(die!(USAGE, "the request has not three descriptors"));
    }
    let request = Request::parse(message.body, program.is_empty()).map_err(|Refusal { code, answer, reason }| {
        answer.into_iter().for_each(answer_failure);
        die!(code, "invalid request: ", reason)
    })?;
    let own: Vec<&CStr> = program.iter().collect();
    let words = argv(own.into_iter().chain(request.args));
    let env = merge(&request.env, env::environ_list());
    let null = fd::open_file(c"/dev/null", OFlag::O_RDWR, 0).or_die("open", "/dev/null")?;
    let source = |i: usize| match i {
        _ if takes[i] => fds[i].as_fd(),
        2 => fd::STDERR,
        _ => null.as_fd(),
    };
    let redirects = [0, 1, 2].map(|i| Redirect::new(source(i), i as i32));
    let spawn = Spawn { env: &env, redirects: &redirects, ..Spawn::new(&words) };
    spawn.start().inspect_err(|&errno| answer_failure(errno)).or_die("spawn", spawn.file)
}

/// Tells the client why there is no program. If it does not listen, the end of the connection tells it.
fn answer_failure(errno: Errno) {
    let _ = fd::write(fd::STDOUT, &[errno as i32 as u8]);
}

/// The server's environment, in which what is present and empty takes the client's value, if the client has one.
/// Of several equal names, the server's first and the client's first count.
fn merge<'a>(client: &[&'a CStr], server: &[CPtr<'a>]) -> Vec<CPtr<'a>> {
    let mut filled: Vec<&[u8]> = Vec::new();
    let value = |entry: &'a CStr| {
        let name = entry.to_bytes();
        if name.iter().position(|&b| b == b'=') != name.len().checked_sub(1) || filled.contains(&name) {
            return entry;
        }
        filled.push(name);
        client.iter().find(|variable| variable.to_bytes().starts_with(name)).copied().unwrap_or(entry)
    };
    argv(cptr::strings(server).map(value))
}

/// How the wait for the program ends.
enum Fate {
    /// It ended and its client wants to know.
    Ended(WaitStatus),
    /// It ended after its client had left.
    EndedAlone,
    /// The client left.
    HungUp,
}

/// Waits for the program, and for its client to leave: a client that has nothing more to say has not left.
fn attend(child: Pid, detached: bool) -> Result<Fate, Die> {
    let mut left = false;
    loop {
        let mut fds = [PollFd::maybe((!left).then_some(fd::STDIN), 0)];
        poll::wait(&mut fds, None).or_die("wait for", "the program")?;
        while signal::take().is_some() {}
        if let Some((_, status)) = wait::reap(Which::One(child)) {
            return Ok(if left { Fate::EndedAlone } else { Fate::Ended(status) });
        }
        if fds[0].hung_up() {
            if !detached {
                return Ok(Fate::HungUp);
            }
            left = true;
        }
    }
}

/// Ends a program whose client has left, and this one with it.
fn hung_up(child: Pid) -> Exit {
    let _ = signal::kill(child, Signal::SIGTERM as i32);
    let _ = signal::kill(child, Signal::SIGCONT as i32);
    Exit::Code(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_present_and_empty_is_filled() {
        let server = argv([c"A=", c"B=own", c"C=", c"A=", c"D", c"E="]);
        let client = [c"A=1", c"A=2", c"B=theirs", c"D=theirs", c"E=", c"NEW=x", c"AA=x"];
        let merged: Vec<&CStr> = cptr::strings(&merge(&client, &server)).collect();
        assert_eq!(merged, [c"A=1", c"B=own", c"C=", c"A=", c"D", c"E="]);
    }
}
