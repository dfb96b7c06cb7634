//! s6-ipcserver-socketbinder: a bound unix socket for the program that follows
//! (spec/local-services-and-instances.md 2.2).

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program, SYSTEM};
use crate::sys::{Errno, fd, lock, socket};
use crate::{die, text};

/// Binds a socket, on descriptor 0, and runs a program.
pub const PROGRAM: Program = Program {
    name: "s6-ipcserver-socketbinder",
    usage: "s6-ipcserver-socketbinder [ -d | -D ] [ -b backlog ] [ -M | -m ] [ -a perms ] [ -B ] path prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "ba");
    let (mut reuse, mut datagram, mut nonblocking) = (true, false, true);
    let (mut backlog, mut mode) = (socket::BACKLOG_MOST, 0o777);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => reuse = true,
            'D' => reuse = false,
            'b' => backlog = value.u32()?,
            'M' => datagram = false,
            'm' => datagram = true,
            'a' => mode = text::parse_octal(value.bytes()).ok_or_else(Die::usage)? & 0o777,
            'B' => nonblocking = false,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(_)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };

    let listener = if datagram { socket::datagram() } else { socket::stream() }.or_die("create", "a socket")?;
    fd::set_nonblocking(&listener, nonblocking).or_die("change", "the socket")?;
    // The lock is for the moment between the removal and the binding. A server does not hold it: another one may
    // take its path over.
    let lock = if reuse { Some(take_path(path)?) } else { None };
    socket::bind_with_mode(&listener, path, mode).or_die("bind a socket to", path)?;
    if backlog != 0 {
        socket::listen(&listener, backlog).or_die("listen on", path)?;
    }
    drop(lock);
    fd::hand_over(listener, 0).or_die("move", "the socket to descriptor 0")?;
    Ok(Exec::operands(operands.from(1)).into())
}

/// Frees a path from whatever is there, and keeps other binders away while the result lives.
fn take_path(path: &CStr) -> Result<OwnedFd, Die> {
    let lock_path = CString::new([path.to_bytes(), b".lock"].concat()).unwrap_or_default();
    let lock = fd::open_file(&lock_path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o600)
        .or_die("open", &lock_path)?;
    if !lock::try_lock(&lock, lock::Kind::Exclusive).or_die("lock", &lock_path)? {
        return Err(die!(SYSTEM, Errno::EBUSY => "unable to lock ", lock_path));
    }
    match nix::unistd::unlink(path) {
        Ok(()) | Err(Errno::ENOENT) => Ok(lock),
        failure => failure.or_die("remove", path).map(|()| lock),
    }
}
