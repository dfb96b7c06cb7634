//! s6-socklog: syslog messages from a datagram socket to standard output (spec/logging-and-chainloaders.md 6).

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, UnixAddr, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::unlink;

use super::priority;
use crate::chain::identity::Identity;
use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OK, OrDie, Program, SYSTEM, TIMEOUT, USAGE};
use crate::readiness::Readiness;
use crate::sys::fd::{self, Nonblocking};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, lock};
use crate::text::parse_u32;

/// Prints each datagram as a line.
pub const PROGRAM: Program = Program {
    name: "s6-socklog",
    usage: "s6-socklog [ -d notif ] [ -r ] [ -U | -u uid -g gid -G gidlist ] [ -l linelen ] [ -t lameducktimeout ] \
            [ -x socket | -i ip_port ]",
    run,
};

/// The port of syslog.
const PORT: u16 = 514;
/// What `-l` can be.
const LENGTHS: std::ops::RangeInclusive<u32> = 76..=1024 * 1024;
/// The most that is added to a message: an address, a facility and a priority, dots, a newline.
const ADDED: usize = 80;

/// Where to listen.
enum Address {
    Path(CString),
    Ip(SocketAddr),
}

fn run(args: Args) -> Result<Exit, Die> {
    let (mut notify, mut raw, mut limit, mut lame_duck) = (None, false, 1024, None);
    let mut identity = Identity::default();
    let mut address = Address::Path(c"/dev/log".to_owned());
    let mut options = Options::classic(args, "dugGltxi");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => notify = Some(value.u32()?),
            'r' => raw = true,
            'l' => limit = value.u32()?.clamp(*LENGTHS.start(), *LENGTHS.end()),
            't' => lame_duck = value.limit()?,
            'x' => address = Address::Path(value.into_cstring()),
            'i' => address = Address::Ip(parse_address(value.bytes()).ok_or_else(Die::usage)?),
            letter if identity.option(letter, &value)? => {}
            letter => return Err(options.unknown(letter)),
        }
    }
    let readiness = notify.map(Readiness::on).transpose()?;
    for (number, name) in [(1, "standard output"), (2, "standard error")] {
        if !fd::is_open(number) {
            return Err(die!(USAGE, name, " is not open"));
        }
    }
    fd::to_dev_null(0).or_die("open", "/dev/null")?;
    // Held for life: whoever has it may replace the socket.
    let (socket, _lock) = match address {
        Address::Path(path) => listen(&path).map(|(socket, lock)| (Socket::Unix(socket), Some(lock)))?,
        Address::Ip(address) => {
            (Socket::Udp(bind_udp(address).or_die("bind a socket to", &address.to_string())?), None)
        }
    };
    fd::set_nonblocking(socket.as_fd(), true).or_die("make nonblocking", "the socket")?;
    identity.apply()?;
    signal::neutralise(Signal::SIGPIPE).or_die("catch", "SIGPIPE")?;
    signal::trap(&[Signal::SIGTERM]).or_die("trap", "SIGTERM")?;
    let _stdout = Nonblocking::new(fd::STDOUT).or_die("make nonblocking", "standard output")?;
    if let Some(readiness) = readiness {
        readiness.announce();
    }
    Receiver { socket, raw, limit: limit as usize, datagram: Vec::new(), output: Vec::new() }.run(lame_duck)
}

/// `ip` or `ip_port`; also `ip:port` for IPv4.
fn parse_address(text: &[u8]) -> Option<SocketAddr> {
    let ip = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok();
    if let Some(ip) = ip(text) {
        return Some(SocketAddr::new(ip, PORT));
    }
    let separator = text.iter().rposition(|b| b"_:".contains(b))?;
    let ip = ip(&text[..separator]).filter(|ip| text[separator] == b'_' || ip.is_ipv4())?;
    let port = parse_u32(&text[separator + 1..])?.try_into().ok()?;
    Some(SocketAddr::new(ip, port))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// A UDP socket. One for IPv6 leaves IPv4 to another.
fn bind_udp(address: SocketAddr) -> Result<UdpSocket, Errno> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(UdpSocket::from(socket))
}

/// A socket that anybody may send to, in the place of one that nobody listens to; and the lock beside it.
fn listen(path: &CStr) -> Result<(UnixDatagram, OwnedFd), Die> {
    UnixAddr::new(path).or_die("bind a socket to", path)?;
    let lock_path = CString::new([path.to_bytes(), b".lock"].concat()).unwrap_or_default();
    let lock = fd::open_file(&lock_path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o600)
        .or_die("open", &lock_path)?;
    if !lock::try_lock(&lock, lock::Kind::Exclusive).or_die("lock", &lock_path)? {
        return Err(die!(SYSTEM, "unable to lock ", lock_path, ": another s6-socklog listens there"));
    }
    let _ = unlink(path);
    let mask = umask(Mode::empty());
    let bound = UnixDatagram::bind(OsStr::from_bytes(path.to_bytes()));
    umask(mask);
    Ok((bound.map_err(errno).or_die("bind a socket to", path)?, lock))
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Udp(socket) => socket.as_fd(),
        }
    }

    /// One datagram, cut to the buffer: its length, and who sent it, if that has a name.
    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<SocketAddr>), Errno> {
        match self {
            Socket::Unix(socket) => fd::retry(|| socket.recv(buffer).map_err(errno)).map(|length| (length, None)),
            Socket::Udp(socket) => {
                fd::retry(|| socket.recv_from(buffer).map_err(errno)).map(|(n, from)| (n, Some(from)))
            }
        }
    }
}

struct Receiver {
    socket: Socket,
    raw: bool,
    /// Bytes of a message that are printed.
    limit: usize,
    datagram: Vec<u8>,
    /// Lines that are not written yet. Without room for another one, no more are received: the senders wait.
    output: Vec<u8>,
}

impl Receiver {
    fn run(mut self, lame_duck: Option<Duration>) -> Result<Exit, Die> {
        // One more than the limit, to know what was longer.
        self.datagram.resize(self.limit + 1, 0);
        let (mut ending, mut deadline) = (false, None);
        loop {
            if ending && self.output.is_empty() {
                return Ok(OK);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return Err(die!(TIMEOUT, "timed out: standard output does not take what was received"));
            }
            let receives = !ending && self.has_room();
            let mut fds = [
                PollFd::maybe(receives.then(|| self.socket.as_fd()), poll::IN),
                PollFd::maybe((!self.output.is_empty()).then_some(fd::STDOUT), poll::OUT),
            ];
            poll::wait(&mut fds, deadline).or_die("poll", "")?;
            while let Some(signal) = signal::take() {
                if signal == Signal::SIGTERM as i32 && !ending {
                    ending = true;
                    deadline = lame_duck.map(|limit| Instant::now() + limit);
                }
            }
            if fds[0].ready() && !ending {
                self.receive()?;
            }
            self.write()?;
        }
    }

    fn has_room(&self) -> bool {
        self.output.len() + self.limit + ADDED <= 4 * self.limit
    }

    /// Receives while something is there and there is room for it.
    fn receive(&mut self) -> Result<(), Die> {
        while self.has_room() {
            match self.socket.receive(&mut self.datagram) {
                Ok((length, sender)) => print(&self.datagram[..length], sender, self.limit, self.raw, &mut self.output),
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(die!(SYSTEM, errno => "unable to receive from the socket")),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), Die> {
        while !self.output.is_empty() {
            match fd::write(fd::STDOUT, &self.output) {
                Ok(bytes) => drop(self.output.drain(..bytes)),
                Err(Errno::EAGAIN) => break,
                failure => return failure.or_die("write to", "standard output").map(drop),
            }
        }
        Ok(())
    }
}

/// Makes a line of a datagram, of which nothing but the given bytes is looked at. An empty one is nothing.
fn print(datagram: &[u8], sender: Option<SocketAddr>, limit: usize, raw: bool, out: &mut Vec<u8>) {
    if datagram.is_empty() {
        return;
    }
    let shown = &datagram[..datagram.len().min(limit)];
    let length = shown.iter().rposition(|b| !b"\n\0".contains(b)).map_or(0, |last| last + 1);
    if let Some(sender) = sender {
        out.extend_from_slice(format!("{}_{}: ", sender.ip(), sender.port()).as_bytes());
    }
    let start = out.len();
    if raw {
        out.extend_from_slice(&shown[..length]);
    } else {
        priority::decode(&shown[..length], out);
    }
    out[start..].iter_mut().filter(|b| b"\n\0".contains(b)).for_each(|b| *b = b'~');
    if datagram.len() > limit {
        out.extend_from_slice(b"...");
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(datagram: &[u8], sender: Option<&str>, raw: bool) -> String {
        let mut out = Vec::new();
        print(datagram, sender.map(|text| text.parse().unwrap()), 76, raw, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_datagram_is_a_line() {
        for (datagram, want) in [
            (&b"<13>hello\n"[..], "user.notice: hello\n"),
            (b"<13>a\nb\0c\n\0", "user.notice: a~b~c\n"),
            (b"\n\n", "\n"),
            (b"", ""),
            (b"<1", "<1\n"),
            (b"<13\n>x", "<13~>x\n"),
        ] {
            assert_eq!(printed(datagram, None, false), want, "{}", datagram.escape_ascii());
        }
        assert_eq!(printed(b"<13>hello", None, true), "<13>hello\n");
        assert_eq!(printed(b"x", Some("127.0.0.1:16001"), false), "127.0.0.1_16001: x\n");
        assert_eq!(printed(b"x", Some("[::1]:514"), false), "::1_514: x\n");
        assert_eq!(printed(&[b'x'; 76], None, true), "x".repeat(76) + "\n");
        assert_eq!(printed(&[b'x'; 77], None, true), "x".repeat(76) + "...\n");
    }

    proptest! {
        #[test]
        fn no_datagram_is_more_than_one_line_or_than_the_room_for_it(
            datagram in prop::collection::vec(any::<u8>(), 1..78), raw in any::<bool>(),
        ) {
            let mut out = Vec::new();
            let sender = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
            print(&[b"<103>", &datagram[..]].concat()[..datagram.len()], Some(sender), 76, raw, &mut out);
            prop_assert!(out.len() <= 76 + ADDED);
            prop_assert_eq!(out.iter().filter(|b| b"\n\0".contains(b)).count(), 1);
            prop_assert!(out.ends_with(b"\n"));
        }
    }

    #[test]
    fn addresses_have_a_port_or_the_usual_one() {
        for (text, want) in [
            ("127.0.0.1", Some("127.0.0.1:514")),
            ("127.0.0.1_5", Some("127.0.0.1:5")),
            ("127.0.0.1:5", Some("127.0.0.1:5")),
            ("::1", Some("[::1]:514")),
            ("::1_7", Some("[::1]:7")),
            ("nohost", None),
            ("127.0.0.1:x", None),
            ("127.0.0.1_65536", None),
            ("127.0.0.1_", None),
            ("_5", None),
        ] {
            assert_eq!(parse_address(text.as_bytes()), want.map(|w| w.parse().unwrap()), "{text}");
        }
    }
}
