//! s6-sdnotify: tells the supervisor, from a shell script, what systemd-notify tells systemd
//! (spec/sd-notify-and-fdstore.md 3).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use nix::unistd::{Gid, Uid, getgid, getpid, getppid, getuid};

use super::client;
use super::grammar;
use crate::cli::{Args, Long, Options, Value};
use crate::die;
use crate::error::{Die, Exec, Exit, OK, OrDie, Program, SYSTEM, TIMEOUT, USAGE};
use crate::sys::{Errno, Pid, env, fd, process};
use crate::text::{decimal, parse_u32};
use crate::users::{self, Key};

/// Sends a notification, and may execute a program then.
pub const PROGRAM: Program = Program {
    name: "s6-sdnotify",
    usage: "s6-sdnotify [ --ready ] [ --reloading ] [ --stopping ] [ --status=text ] [ --pid[=pid] ] [ --uid=user ] \
            [ --fd=number... ] [ --fdname=name ] [ --no-block ] [ --booted ] [ --exec ] [ variable=value... ] [ \\; prog... ]",
    run,
};

const LONG: &[Long] = &[
    ("ready", 'r'),
    ("reloading", 'l'),
    ("stopping", 's'),
    ("status", 'S'),
    ("pid", 'p'),
    ("pid", 'P'),
    ("uid", 'U'),
    ("fd", 'F'),
    ("fdname", 'N'),
    ("no-block", 'n'),
    ("booted", 'b'),
    ("exec", 'e'),
];

/// Microseconds that the supervisor has to look at what was sent.
const PATIENCE_USEC: u64 = 5_000_000;

/// The exit code when nobody asked to be told.
const NOT_SET: u8 = 1;

/// What the command line asks for.
#[derive(Default)]
struct Request {
    ready: bool,
    reloading: bool,
    stopping: bool,
    status: Option<Vec<u8>>,
    main: Option<Pid>,
    user: Option<(Uid, Option<Gid>)>,
    fds: Vec<BorrowedFd<'static>>,
    name: Option<Vec<u8>>,
    no_block: bool,
    booted: bool,
    exec: bool,
    variables: Vec<&'static [u8]>,
    program: Option<Args>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let request = parse(args)?;
    if request.booted {
        return Ok(Exit::Code(if client::booted() { 0 } else { 1 }));
    }
    let message = request.message();
    if message.is_empty() || request.exec != request.program.is_some() {
        return Err(Die::usage());
    }
    if request.name.is_some() && request.fds.is_empty() {
        return Err(die!(USAGE, "--fdname names the descriptors given by --fd, and there are none"));
    }
    match request.user {
        Some((uid, gid)) => as_user(uid, gid, || request.send(&message))?,
        None => request.send(&message)?,
    }
    Ok(request.program.map_or(OK, |program| Exec::operands(program).into()))
}

/// Options and variables in any order; then, behind a lone semicolon, the program.
fn parse(mut args: Args) -> Result<Request, Die> {
    let mut request = Request::default();
    loop {
        let mut options = Options::gnu(args, "SPUFN", LONG);
        while let Some((letter, value)) = options.next()? {
            request.take(letter, value, &options)?;
        }
        args = options.operands();
        match args.get(0).map(CStr::to_bytes) {
            None => return Ok(request),
            Some(b";") if request.exec => {
                request.program = Some(args.operands()).filter(|program| !program.is_empty());
                return Ok(request);
            }
            Some(variable) => request.variables.push(variable),
        }
    }
}

impl Request {
    fn take(&mut self, letter: char, value: Value, options: &Options) -> Result<(), Die> {
        match letter {
            'r' => self.ready = true,
            'l' => self.reloading = true,
            's' => self.stopping = true,
            'S' => self.status = Some(value.into_bytes()),
            'p' => self.main = Some(caller()),
            'P' => self.main = Some(main_pid(value.bytes())?),
            'U' => self.user = Some(user(value.bytes())?),
            'F' => {
                let number = value.u32()?;
                let borrowed = i32::try_from(number).map_err(|_| Errno::EBADF).and_then(fd::borrow);
                self.fds.push(borrowed.or_die("use descriptor", &decimal(number))?);
            }
            'N' if grammar::is_name(value.bytes()) => self.name = Some(value.into_bytes()),
            'N' => return Err(die!(USAGE, "no valid name for a descriptor: ", value.bytes())),
            'n' => self.no_block = true,
            'b' => self.booted = true,
            'e' => self.exec = true,
            other => return Err(options.unknown(other)),
        }
        Ok(())
    }

    fn send(&self, message: &[u8]) -> Result<(), Die> {
        let sender = Some(self.main.unwrap_or_else(caller));
        match client::notify_with_fds(sender, message, &self.fds) {
            Ok(true) => {}
            Ok(false) => return Err(die!(NOT_SET, "NOTIFY_SOCKET is not set: nobody to notify")),
            Err(errno) => return Err(die!(SYSTEM, errno => "unable to notify the supervisor")),
        }
        if !self.no_block {
            match client::barrier_as(sender, PATIENCE_USEC) {
                // One that has ended, as s6-notify-fd-from-socket does when it knows enough, has looked at it, too.
                Ok(_) | Err(Errno::ECONNREFUSED) => {}
                Err(Errno::ETIMEDOUT) => {
                    return Err(die!(TIMEOUT, "the supervisor did not look at it within 5 seconds"));
                }
                other => drop(other.or_die("wait for", "the supervisor")?),
            }
        }
        Ok(())
    }

    /// The message: what the options say, in a fixed order, then the variables. What is given twice counts as it was
    /// given last.
    fn message(&self) -> Vec<u8> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut put = |line: Vec<u8>| {
            let key = |line: &[u8]| line.iter().position(|&b| b == b'=').map_or(line.len(), |at| at + 1);
            match lines.iter_mut().find(|known| known[..key(known)] == line[..key(&line)]) {
                Some(known) => *known = line,
                None => lines.push(line),
            }
        };
        let assignment = |name: &[u8], value: &[u8]| [name, b"=", value].concat();
        let number = |name: &[u8], value: u64| assignment(name, decimal(value).as_bytes());
        if self.reloading {
            put(b"RELOADING=1".to_vec());
            put(number(b"MONOTONIC_USEC", client::monotonic_usec()));
        }
        if self.ready {
            put(b"READY=1".to_vec());
        }
        if self.stopping {
            put(b"STOPPING=1".to_vec());
        }
        if let Some(status) = &self.status {
            put(assignment(b"STATUS", status));
        }
        if let Some(pid) = self.main {
            put(number(b"MAINPID", pid.as_raw() as u64));
            if let Some(inode) = process::pidfd_inode(pid) {
                put(number(b"MAINPIDFDID", inode));
            }
        }
        if !self.fds.is_empty() {
            put(b"FDSTORE=1".to_vec());
        }
        if let Some(name) = &self.name {
            put(assignment(b"FDNAME", name));
        }
        self.variables.iter().for_each(|variable| put(variable.to_vec()));
        lines.join(&b'\n')
    }
}

/// The script that called us, in whose name we speak: our parent, unless that is the supervisor of the machine or of
/// the user.
fn caller() -> Pid {
    let parent = getppid();
    let manager = env::get("MANAGERPID").and_then(|pid| parse_u32(pid.to_bytes()));
    if parent.as_raw() <= 1 || manager == Some(parent.as_raw() as u32) { getpid() } else { parent }
}

/// A user by name or number, and its group, if it has an account.
fn user(word: &[u8]) -> Result<(Uid, Option<Gid>), Die> {
    let number = parse_u32(word);
    let mut account = users::user(Key::Name(word)).or_die("look up", word)?;
    if let (None, Some(number)) = (&account, number) {
        account = users::user(Key::Id(number)).or_die("look up", word)?;
    }
    match (account, number) {
        (Some(account), _) => Ok((Uid::from_raw(account.uid), Some(Gid::from_raw(account.gid)))),
        (None, Some(number)) => Ok((Uid::from_raw(number), None)),
        (None, None) => Err(die!(USAGE, "no such user: ", word)),
    }
}

/// Does something with the real ids of a user, which are those that the receiver sees; the effective ones stay.
fn as_user<T>(uid: Uid, gid: Option<Gid>, act: impl FnOnce() -> Result<T, Die>) -> Result<T, Die> {
    let before = (getuid(), getgid());
    process::set_real_ids(uid, gid.unwrap_or(before.1)).or_die("change", "my user")?;
    let outcome = act();
    process::set_real_ids(before.0, before.1).or_die("change back", "my user")?;
    outcome
}

fn main_pid(word: &[u8]) -> Result<Pid, Die> {
    match word {
        b"" | b"auto" => Ok(caller()),
        b"parent" => Ok(getppid()),
        b"self" => Ok(getpid()),
        number => {
            let pid = parse_u32(number).and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0);
            pid.map(Pid::from_raw).ok_or_else(|| die!(USAGE, "no such process number: ", number))
        }
    }
}
