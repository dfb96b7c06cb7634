//! s6-sudoc: the client's end of s6-sudo (spec/local-services-and-instances.md 5.2).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OrDie, Program, SYSTEM, USAGE};
use crate::local::ipcclient;
use crate::local::sudo::{Request, SERVER_BANNER};
use crate::sys::cptr;
use crate::sys::signal::{self, Signal};
use crate::sys::wait::WaitStatus;
use crate::sys::{Errno, env, fd, poll};
use crate::unixmessage::Outbox;

/// Sends its arguments, environment and standard descriptors over a connection; ends as the program at the other
/// end of it does.
pub const PROGRAM: Program =
    Program { name: "s6-sudoc", usage: "s6-sudoc [ -e ] [ -t timeoutconn ] [ -T timeoutrun ] [ args... ]", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "tT");
    let (mut with_environment, mut limit, mut run_limit) = (true, None, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'e' => with_environment = false,
            't' => limit = value.limit()?,
            'T' => run_limit = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let from_server = fd::inherited(ipcclient::READ).or_die("read from", "the server (descriptor 6)")?;
    let to_server = fd::inherited(ipcclient::WRITE).or_die("write to", "the server (descriptor 7)")?;
    fd::open_missing_standard()
        .and_then(|()| signal::neutralise(Signal::SIGPIPE))
        .and_then(|()| fd::set_nonblocking(&from_server, true))
        .and_then(|()| fd::set_nonblocking(&to_server, true))
        .or_die("prepare", "descriptors")?;

    let deadline = after(limit);
    let banner: [u8; SERVER_BANNER.len()] = receive(&from_server, BANNER, deadline)?;
    if banner != *SERVER_BANNER {
        return Err(die!(USAGE, "wrong server banner"));
    }
    let env = if with_environment { variables() } else { Vec::new() };
    let body = Request { args: options.operands().iter().collect(), env }.encode();
    send(&to_server, &body, deadline).or_die("send", "the request")?;
    // The program at the other end has them now: its pipes are to end with it, not with us.
    fd::close(0);
    fd::close(1);

    let [errno] = receive(&from_server, "confirmation from the server", deadline)?;
    if errno != 0 {
        return Err(die!(SYSTEM, Errno::from_raw(errno.into()) => "the server was unable to run the program"));
    }
    let status = receive(&from_server, "the status of the program", after(run_limit))?;
    Ok(Exit::Code(WaitStatus::from_raw(i32::from_be_bytes(status)).estatus()))
}

fn after(limit: Option<Duration>) -> Option<Instant> {
    limit.map(|limit| Instant::now() + limit)
}

/// The environment, but for what is no variable: the server refuses that.
fn variables() -> Vec<&'static CStr> {
    cptr::strings(env::environ_list()).filter(|entry| entry.to_bytes().contains(&b'=')).collect()
}

/// What the server says first, unless whoever is in front of it does not let this user in.
const BANNER: &str = "its banner";

/// What the server says next; its end is an error.
fn receive<const N: usize>(from: impl AsFd, what: &str, deadline: Option<Instant>) -> Result<[u8; N], Die> {
    let mut bytes = [0; N];
    match fd::read_before(from, &mut bytes, deadline) {
        Ok(0) if what == BANNER => {
            Err(die!(SYSTEM, "the server closed the connection at once: perhaps it does not admit this user"))
        }
        Ok(count) if count < N => Err(die!(SYSTEM, "the server closed the connection instead of sending ", what)),
        Ok(_) => Ok(bytes),
        failure => failure.or_die("receive", what).map(|_| bytes),
    }
}

fn send(to: impl AsFd, body: &[u8], deadline: Option<Instant>) -> Result<(), Errno> {
    let mut message: Outbox<BorrowedFd<'_>> = Outbox::default();
    message.put(&[body], [fd::STDIN, fd::STDOUT, fd::STDERR])?;
    while !message.flush(to.as_fd())? {
        poll::until_ready(to.as_fd(), poll::OUT, deadline)?;
    }
    Ok(())
}
