//! s6-fdstore-restore: run a service with what an fd-holder has of its store
//! (spec/sd-notify-and-fdstore.md 4.6).
//!
//! s6-supervise with an `fdstore-holder` starts run by way of this when it has just started itself, for it may be the
//! successor of one that was killed. It waits for the holder, and the supervisor need not.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::Duration;

use super::client;
use super::mirror;
use super::store::Entry;
use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::fdholder::client::Connection;
use crate::sys::env::{self, Env};
use crate::sys::fd;
use crate::text::{decimal, parse_u32};
use crate::warn;

/// Gives the descriptors to the supervisor and to the program.
pub const PROGRAM: Program = Program {
    name: "s6-fdstore-restore",
    usage: "s6-fdstore-restore [ -t timeout ] holdersocket service prog...",
    run,
};

/// How long the holder may take, unless told otherwise.
pub const LIMIT: Duration = Duration::from_millis(5000);
/// Microseconds that the supervisor may take.
const PATIENCE_USEC: u64 = 5_000_000;
/// The first passed descriptor.
const FIRST: RawFd = 3;

fn run(args: Args) -> Result<Exit, Die> {
    let mut limit = Some(LIMIT);
    let mut options = Options::classic(args, "t");
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => limit = value.limit()?,
            other => return Err(options.unknown(other)),
        }
    }
    let operands = options.operands();
    let (Some(holder), Some(service), Some(_)) = (operands.get(0), operands.get(1), operands.get(2)) else {
        return Err(Die::usage());
    };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let mut found = recover(holder, service, limit);
    give_back(&found);
    let mut env = Env::inherited();
    // Of what the supervisor has no room for it tells the holder, and numbers beyond that are for others.
    let most = env::get("FDSTORE").and_then(|max| parse_u32(max.to_bytes()));
    found.truncate(most.map_or(usize::MAX, |max| max as usize));
    pass(found, &mut env).or_die("pass on", "the descriptors")?;
    Ok(Exec::operands(operands.from(2)).with_env(env).into())
}

/// What the holder has. A service without it is better than none.
pub fn recover(holder: &CStr, service: &CStr, limit: Option<Duration>) -> Vec<Entry<OwnedFd>> {
    match Connection::open(holder, limit) {
        Ok(mut connection) => mirror::recover(&mut connection, service).unwrap_or_else(|errno| {
            warn!(errno => "unable to recover what ", holder, " holds of ", service);
            Vec::new()
        }),
        Err(die) => {
            die.warn();
            Vec::new()
        }
    }
}

/// Tells the supervisor what it lost. The private variable says that the holder has it already, and as what.
fn give_back(found: &[Entry<OwnedFd>]) {
    for entry in found {
        let poll: &[u8] = if entry.poll { b"" } else { b"\nFDPOLL=0" };
        let serial = decimal(entry.serial);
        let message = [b"FDSTORE=1\nX_S6_SERIAL=", serial.as_bytes(), poll, b"\nFDNAME=", &entry.name].concat();
        if let Err(errno) = client::notify_with_fds(None, message, &[entry.file.as_fd()]) {
            warn!(errno => "unable to give the supervisor back what was stored");
            return;
        }
    }
    if !found.is_empty()
        && let Err(errno) = client::barrier(PATIENCE_USEC)
    {
        warn!(errno => "unable to wait for the supervisor");
    }
}

/// Puts the descriptors where the next program expects them, and says so in its environment.
pub fn pass(found: Vec<Entry<OwnedFd>>, env: &mut Env) -> Result<(), crate::sys::Errno> {
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES"] {
        env.unset(name.as_bytes());
    }
    if found.is_empty() {
        return Ok(());
    }
    let (count, names) = (found.len(), found.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>().join(&b':'));
    // Above all places first, so that none is taken by one that is yet to move.
    let above = FIRST + count as RawFd;
    let moved = found.iter().map(|entry| fd::duplicate(&entry.file, above)).collect::<Result<Vec<_>, _>>()?;
    drop(found);
    for (place, file) in (FIRST..).zip(moved) {
        fd::hand_over(file, place)?;
    }
    env.set(b"LISTEN_FDS", decimal(count as u64).as_bytes());
    env.set(b"LISTEN_FDNAMES", &names);
    env.set(b"LISTEN_PID", decimal(nix::unistd::getpid().as_raw() as u64).as_bytes());
    Ok(())
}
