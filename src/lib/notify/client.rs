//! The service's side of the protocol, for a service written in Rust: the semantics of sd_notify(3),
//! sd_listen_fds(3) and sd_watchdog_enabled(3) on a system with or without systemd
//! (spec/sd-notify-and-fdstore.md 1.1, 3).
//!
//! ```no_run
//! # fn main() -> Result<(), s6::sys::Errno> {
//! use s6::notify::client;
//!
//! let passed = client::listen_fds()?;         // what an earlier instance stored
//! client::notify("STATUS=Loading")?;
//! client::notify("READY=1")?;                 // Ok(false) if nobody asked to be told
//! if let Some(interval) = client::watchdog_enabled()? {
//!     // say WATCHDOG=1 every interval / 2
//! }
//! # drop(passed); Ok(()) }
//! ```
//!
//! That NOTIFY_SOCKET is not set is no error anywhere. That a message was sent says nothing about what becomes of it.
//! The environment is only read: a program that starts others takes NOTIFY_SOCKET, WATCHDOG_PID, LISTEN_PID and their
//! kin out of theirs.

use std::ffi::{CString, OsString};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{getegid, geteuid, getgid, getpid, getuid};

use crate::sys::poll::{self, PollFd};
use crate::sys::scm::{self, Sender};
use crate::sys::{Errno, Pid, fd, process, socket};
use crate::text::{parse_u32, parse_u64};

/// The first passed descriptor.
const LISTEN_FDS_START: RawFd = 3;

/// A variable of the environment, as bytes.
fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(OsString::into_vec)
}

/// Sends `state`, lines of `NAME=value`, as it is. False if NOTIFY_SOCKET is not set.
///
/// Errors: EPROTO if the variable is no address, ENOENT or ECONNREFUSED if nobody listens there, and what else the
/// kernel says. Waits while the receiver's queue is full.
pub fn notify(state: impl AsRef<[u8]>) -> Result<bool, Errno> {
    notify_with_fds(None, state, &[])
}

/// As [`notify`], in the name of process `pid`. A sender without the privilege to do so speaks for itself.
pub fn notify_as(pid: Pid, state: impl AsRef<[u8]>) -> Result<bool, Errno> {
    notify_with_fds(Some(pid), state, &[])
}

/// As [`notify`] or [`notify_as`], with up to 253 descriptors (EINVAL beyond), such as those to store with FDSTORE=1.
pub fn notify_with_fds(pid: Option<Pid>, state: impl AsRef<[u8]>, fds: &[BorrowedFd<'_>]) -> Result<bool, Errno> {
    match variable("NOTIFY_SOCKET") {
        None => Ok(false),
        Some(address) => send(&Address::parse(&address)?, pid, state.as_ref(), fds).map(|()| true),
    }
}

/// Waits until the receiver has seen everything sent before, at most `timeout_usec` microseconds (`u64::MAX`: for
/// ever). ETIMEDOUT when that is over; false if NOTIFY_SOCKET is not set. A receiver that ends counts as one that saw.
pub fn barrier(timeout_usec: u64) -> Result<bool, Errno> {
    barrier_as(None, timeout_usec)
}

/// As [`barrier`], in the name of process `pid`.
pub fn barrier_as(pid: Option<Pid>, timeout_usec: u64) -> Result<bool, Errno> {
    let deadline = Instant::now().checked_add(Duration::from_micros(timeout_usec));
    let (here, there) = fd::pipe()?;
    if !notify_with_fds(pid, "BARRIER=1", &[there.as_fd()])? {
        return Ok(false);
    }
    drop(there);
    loop {
        let mut fds = [PollFd::new(here.as_fd(), 0)];
        poll::wait(&mut fds, deadline)?;
        if fds[0].hung_up() {
            return Ok(true);
        }
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(Errno::ETIMEDOUT);
        }
    }
}

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// A path, or an abstract name behind its `@`.
    Unix(CString),
    /// The host of a virtual machine.
    #[cfg(target_os = "linux")]
    Vsock { types: &'static [nix::sys::socket::SockType], cid: u32, port: u32 },
}

impl Address {
    fn parse(text: &[u8]) -> Result<Address, Errno> {
        match text {
            [b'/', ..] => {}
            #[cfg(target_os = "linux")]
            [b'@', _, ..] => {}
            #[cfg(target_os = "linux")]
            _ => return Self::parse_vsock(text).ok_or(Errno::EPROTO),
            #[cfg(not(target_os = "linux"))]
            _ => return Err(Errno::EPROTO),
        }
        CString::new(text).map(Address::Unix).map_err(|_| Errno::EPROTO)
    }

    /// `vsock:CID:PORT`, or with the type of the socket in the first word.
    #[cfg(target_os = "linux")]
    fn parse_vsock(text: &[u8]) -> Option<Address> {
        use nix::sys::socket::SockType::{Datagram, SeqPacket, Stream};
        let mut words = text.split(|&b| b == b':');
        let types: &[_] = match words.next()? {
            b"vsock" => &[Datagram, SeqPacket, Stream],
            b"vsock-dgram" => &[Datagram],
            b"vsock-seqpacket" => &[SeqPacket],
            b"vsock-stream" => &[Stream],
            _ => return None,
        };
        let cid = parse_u32(words.next()?).filter(|&cid| cid != libc::VMADDR_CID_ANY)?;
        let port = parse_u32(words.next()?)?;
        words.next().is_none().then_some(Address::Vsock { types, cid, port })
    }
}

fn send(address: &Address, pid: Option<Pid>, state: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    match address {
        Address::Unix(name) => {
            let socket = socket::datagram()?;
            socket::connect(&socket, &socket::notify_address(name)?)?;
            send_datagram(&socket, pid, state, fds)
        }
        #[cfg(target_os = "linux")]
        Address::Vsock { .. } if !fds.is_empty() => Err(Errno::EOPNOTSUPP),
        #[cfg(target_os = "linux")]
        Address::Vsock { types, cid, port } => vsock::send(types, nix::sys::socket::VsockAddr::new(*cid, *port), state),
    }
}

/// Credentials are the kernel's own affair, unless others are asked for or the real user is to be seen.
fn send_datagram(socket: &OwnedFd, pid: Option<Pid>, state: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let other = pid.filter(|&pid| pid != getpid());
    let is_changed = getuid() != geteuid() || getgid() != getegid();
    let sender = (other.is_some() || is_changed).then(|| Sender {
        pid: other.unwrap_or_else(getpid),
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
    });
    let bytes = [IoSlice::new(state)];
    match scm::send_as(socket, &bytes, fds, sender) {
        Err(_) if other.is_some() => scm::send(socket, &bytes, fds),
        sent => sent,
    }
    .map(drop)
}

#[cfg(target_os = "linux")]
mod vsock {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{
        AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, VsockAddr, bind, connect, send as transmit, shutdown,
        socket,
    };

    use super::*;

    /// Sends by the first type of socket that works. Where it is a connection, waits until the other side has read.
    pub fn send(types: &[SockType], to: VsockAddr, state: &[u8]) -> Result<(), Errno> {
        let mut outcome = Err(Errno::EPROTONOSUPPORT);
        for &kind in types {
            outcome = send_by(kind, to, state);
            if !matches!(outcome, Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT | Errno::ENODEV)) {
                break;
            }
        }
        outcome
    }

    fn send_by(kind: SockType, to: VsockAddr, state: &[u8]) -> Result<(), Errno> {
        let socket = socket(AddressFamily::Vsock, kind, SockFlag::SOCK_CLOEXEC, None)?;
        let number = socket.as_raw_fd();
        // The host may ask for a sender that only root can be.
        let privileged = (1..1024).rev().map(|port| bind(number, &VsockAddr::new(libc::VMADDR_CID_ANY, port)));
        let _ = privileged.into_iter().find(|bound| *bound != Err(Errno::EADDRINUSE));
        fd::retry(|| connect(number, &to))?;
        let mut rest = state;
        while !rest.is_empty() {
            rest = &rest[fd::retry(|| transmit(number, rest, MsgFlags::MSG_NOSIGNAL))?..];
        }
        if kind != SockType::Datagram {
            shutdown(number, Shutdown::Write)?;
            fd::read(&socket, &mut [0])?;
        }
        Ok(())
    }
}

/// A descriptor that the supervisor passed.
#[derive(Debug)]
pub struct Passed {
    /// The descriptor, now close-on-exec.
    pub fd: OwnedFd,
    /// Its name; `unknown` if the supervisor gives no names.
    pub name: Vec<u8>,
}

/// The descriptors that were passed to this process, in order. None if there are none, or they are for another
/// process. They are handed out once: a second call finds none.
///
/// Errors: EINVAL for a variable that is no number, or names that are more or fewer than descriptors; EBADF if one of
/// the descriptors is not open.
pub fn listen_fds() -> Result<Vec<Passed>, Errno> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let names = listen_names(&variable)?;
    let numbers = LISTEN_FDS_START..LISTEN_FDS_START + names.len() as RawFd;
    if !numbers.clone().all(fd::is_open) {
        return Err(Errno::EBADF);
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    numbers.zip(names).map(|(number, name)| Ok(Passed { fd: fd::inherited(number)?, name })).collect()
}

/// The names of the descriptors that are passed to this process.
fn listen_names(variable: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Vec<Vec<u8>>, Errno> {
    let Some(count) = variable("LISTEN_FDS") else { return Ok(Vec::new()) };
    let Some(pid) = variable("LISTEN_PID") else { return Ok(Vec::new()) };
    if parse_u32(&pid).ok_or(Errno::EINVAL)? != getpid().as_raw() as u32 {
        return Ok(Vec::new());
    }
    if let Some(inode) = variable("LISTEN_PIDFDID")
        && let Some(own) = process::pidfd_inode(getpid())
        && parse_u64(&inode).ok_or(Errno::EINVAL)? != own
    {
        return Ok(Vec::new());
    }
    let last = RawFd::MAX - LISTEN_FDS_START;
    let count = parse_u32(&count).filter(|&n| (1..=last as u32).contains(&n)).ok_or(Errno::EINVAL)? as usize;
    let Some(names) = variable("LISTEN_FDNAMES") else { return Ok(vec![b"unknown".to_vec(); count]) };
    if names.iter().filter(|&&b| b == b':').count() + 1 != count {
        return Err(Errno::EINVAL);
    }
    Ok(names.split(|&b| b == b':').map(<[u8]>::to_vec).collect())
}

/// How often this process must say `WATCHDOG=1` at the latest; it does so twice as often. `None`: it need not.
///
/// Errors: EINVAL for a variable that is no number.
pub fn watchdog_enabled() -> Result<Option<Duration>, Errno> {
    watchdog(&variable)
}

fn watchdog(variable: &dyn Fn(&str) -> Option<Vec<u8>>) -> Result<Option<Duration>, Errno> {
    let Some(interval) = variable("WATCHDOG_USEC") else { return Ok(None) };
    let interval = parse_u64(&interval).filter(|usec| !matches!(usec, 0 | &u64::MAX)).ok_or(Errno::EINVAL)?;
    let pid = match variable("WATCHDOG_PID") {
        Some(pid) => parse_u32(&pid).ok_or(Errno::EINVAL)?,
        None => getpid().as_raw() as u32,
    };
    Ok((pid == getpid().as_raw() as u32).then(|| Duration::from_micros(interval)))
}

/// Whether systemd runs this machine.
pub fn booted() -> bool {
    std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|about| about.is_dir())
}

/// CLOCK_MONOTONIC in microseconds, as MONOTONIC_USEC says beside RELOADING=1.
pub fn monotonic_usec() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use std::os::fd::AsRawFd;

    fn environment<'a>(list: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<Vec<u8>> + 'a {
        move |name| list.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes().to_vec())
    }

    fn names(list: &[(&str, &str)]) -> Result<Vec<String>, Errno> {
        let names = listen_names(&environment(list))?;
        Ok(names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect())
    }

    #[test]
    fn passed_descriptors_are_for_one_process_and_have_as_many_names() {
        let pid = getpid().to_string();
        let passed = |count, list| names(&[("LISTEN_FDS", count), ("LISTEN_PID", &pid), ("LISTEN_FDNAMES", list)]);
        assert_eq!(passed("2", "a:b"), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(passed("1", ""), Ok(vec!["".into()]));
        assert_eq!(passed("3", "::"), Ok(vec!["".into(); 3]));
        for (count, list) in [("2", "a"), ("1", "a:b"), ("0", ""), ("-1", ""), ("x", ""), ("2147483647", "a")] {
            assert_eq!(passed(count, list), Err(Errno::EINVAL), "{count} {list}");
        }
        assert_eq!(names(&[("LISTEN_FDS", "2"), ("LISTEN_PID", &pid)]), Ok(vec!["unknown".into(); 2]));
        assert_eq!(names(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "1")]), Ok(vec![]));
        assert_eq!(names(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "x")]), Err(Errno::EINVAL));
        assert_eq!(names(&[("LISTEN_FDS", "2")]), Ok(vec![]));
        assert_eq!(names(&[("LISTEN_PID", &pid)]), Ok(vec![]));
        let other = [("LISTEN_FDS", "2"), ("LISTEN_PID", &*pid), ("LISTEN_PIDFDID", "1")];
        assert_eq!(names(&other).unwrap().is_empty(), process::pidfd_inode(getpid()).is_some());
    }

    #[test]
    fn a_watchdog_is_for_one_process_or_for_all() {
        let pid = getpid().to_string();
        let second = Ok(Some(Duration::from_secs(1)));
        assert_eq!(watchdog(&environment(&[])), Ok(None));
        assert_eq!(watchdog(&environment(&[("WATCHDOG_USEC", "1000000")])), second);
        assert_eq!(watchdog(&environment(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", &pid)])), second);
        assert_eq!(watchdog(&environment(&[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1")])), Ok(None));
        for wrong in ["", "0", "x", "-5", "18446744073709551615"] {
            assert_eq!(watchdog(&environment(&[("WATCHDOG_USEC", wrong)])), Err(Errno::EINVAL), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_paths_abstract_names_or_virtual_sockets() {
        assert_eq!(Address::parse(b"/run/x"), Ok(Address::Unix(c"/run/x".into())));
        for wrong in ["", "run/x", "vsock", "vsock:1", "vsock:x:1", "vsock:4294967295:1", "vsock:1:2:3", "tcp:1:2"] {
            assert_eq!(Address::parse(wrong.as_bytes()), Err(Errno::EPROTO), "{wrong}");
        }
        assert_eq!(Address::parse(b"/a\0b"), Err(Errno::EPROTO));
        #[cfg(target_os = "linux")]
        {
            use nix::sys::socket::SockType;
            assert_eq!(Address::parse(b"@x"), Ok(Address::Unix(c"@x".into())));
            assert_eq!(Address::parse(b"@"), Err(Errno::EPROTO));
            let stream = Address::Vsock { types: &[SockType::Stream], cid: 2, port: 77 };
            assert_eq!(Address::parse(b"vsock-stream:2:77"), Ok(stream));
            let Ok(Address::Vsock { types, .. }) = Address::parse(b"vsock:2:77") else { panic!("no address") };
            assert_eq!(types.len(), 3);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_datagram_arrives_as_it_was_with_its_descriptors() {
        let receiver = socket::datagram().unwrap();
        nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::PassCred, &true).unwrap();
        let name = [b"@", &socket::bind_anywhere(&receiver).unwrap()[..]].concat();
        let address = Address::parse(&name).unwrap();
        send(&address, Some(getpid()), b"READY=1", &[receiver.as_fd(), receiver.as_fd()]).unwrap();
        let (mut buffer, mut fds) = ([0; 99], Vec::new());
        let received = scm::receive(&receiver, &mut buffer, &mut fds).unwrap();
        assert_eq!((&buffer[..received.length], fds.len()), (&b"READY=1"[..], 2));
        assert_eq!(received.sender.unwrap().pid, getpid());
        assert_eq!(send(&Address::parse(b"/nonexistent/s").unwrap(), None, b"x", &[]), Err(Errno::ENOENT));
    }

    /// Virtual sockets to this machine itself, where the kernel has them.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_virtual_machine_tells_its_host() {
        use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, getsockname, listen};
        let local = VsockAddr::new(libc::VMADDR_CID_LOCAL, libc::VMADDR_PORT_ANY);
        let Ok(server) = nix::sys::socket::socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
            .and_then(|server| bind(server.as_raw_fd(), &local).map(|()| server))
        else {
            eprintln!("skipped: no loopback of virtual sockets (modprobe vsock_loopback)");
            return;
        };
        listen(&server, Backlog::new(1).unwrap()).unwrap();
        let port = getsockname::<VsockAddr>(server.as_raw_fd()).unwrap().port();
        let client = std::thread::spawn(move || {
            send(&Address::parse(format!("vsock:1:{port}").as_bytes()).unwrap(), None, b"READY=1", &[])
        });
        let connection = socket::accept(&server).unwrap();
        fd::set_nonblocking(&connection, false).unwrap();
        let mut buffer = [0; 99];
        assert_eq!(fd::read(&connection, &mut buffer), Ok(7));
        drop(connection);
        assert_eq!(client.join().unwrap(), Ok(()));
    }
}
