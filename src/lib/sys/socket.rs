//! Unix sockets: close-on-exec from birth, addresses of exact length, connections with a time limit.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::TimeVal;

use super::Errno;
use super::fd::{retry, set_nonblocking};

/// The longest path of a socket: `sun_path` less its NUL.
pub const PATH_MOST: usize = size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

/// The backlog that asks for as much as the system allows. SOMAXCONN of some C libraries is less than that.
pub const BACKLOG_MOST: u32 = i32::MAX as u32;

/// A new stream socket.
pub fn stream() -> Result<OwnedFd, Errno> {
    nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
}

/// A new datagram socket.
pub fn datagram() -> Result<OwnedFd, Errno> {
    nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// Two connected stream sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::sys::socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
}

/// The address of a socket in the file system: at most 107 bytes (ENAMETOOLONG), not empty (ENOENT).
pub fn address(path: &CStr) -> Result<UnixAddr, Errno> {
    if path.is_empty() { Err(Errno::ENOENT) } else { UnixAddr::new(path) }
}

/// An address as NOTIFY_SOCKET has it: a path, or `@name` for Linux's abstract names, which are exactly as long as
/// they are written.
pub fn notify_address(text: &CStr) -> Result<UnixAddr, Errno> {
    match text.to_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => address(text),
    }
}

/// Binds to an abstract name that the kernel chooses; returns that name, five hexadecimal digits.
#[cfg(target_os = "linux")]
pub fn bind_anywhere(socket: impl AsFd) -> Result<Vec<u8>, Errno> {
    let number = socket.as_fd().as_raw_fd();
    nix::sys::socket::bind(number, &UnixAddr::new_unnamed())?;
    let bound: UnixAddr = nix::sys::socket::getsockname(number)?;
    bound.as_abstract().map(<[u8]>::to_vec).ok_or(Errno::EADDRNOTAVAIL)
}

/// Other systems have no such names: EAFNOSUPPORT.
#[cfg(not(target_os = "linux"))]
pub fn bind_anywhere(_socket: impl AsFd) -> Result<Vec<u8>, Errno> {
    Err(Errno::EAFNOSUPPORT)
}

/// Asks for the pidfd of the sender with every message. ENOPROTOOPT before Linux 6.5.
#[cfg(target_os = "linux")]
pub fn pass_pidfd(socket: impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let (number, size) = (socket.as_fd().as_raw_fd(), size_of_val(&on) as libc::socklen_t);
    // SAFETY: the option is one int, whose address and size are given.
    super::check(unsafe {
        libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_PASSPIDFD, std::ptr::from_ref(&on).cast(), size)
    })
    .map(drop)
}

/// Connects a socket.
pub fn connect(socket: impl AsFd, to: &UnixAddr) -> Result<(), Errno> {
    retry(|| nix::sys::socket::connect(socket.as_fd().as_raw_fd(), to))
}

/// A nonblocking stream connection to the server at `path`. A server whose queue is full is waited for until
/// `deadline` (ETIMEDOUT).
pub fn connect_stream(path: &CStr, deadline: Option<Instant>) -> Result<OwnedFd, Errno> {
    let (address, socket) = (address(path)?, stream()?);
    if let Some(deadline) = deadline {
        // A nonblocking connect would fail with EAGAIN at once, and poll does not wait for room in a queue.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
        let limit = TimeVal::new(left.as_secs().try_into().unwrap_or(i32::MAX.into()), left.subsec_micros() as _);
        nix::sys::socket::setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    }
    match connect(&socket, &address) {
        Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
        other => other?,
    }
    set_nonblocking(&socket, true)?;
    Ok(socket)
}

/// Takes one connection, nonblocking, off a listening socket's queue. EAGAIN when there is none.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let number = retry(|| nix::sys::socket::accept4(listener.as_fd().as_raw_fd(), flags))?;
    // SAFETY: the kernel just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A connection as a super-server sees it: in blocking mode, with the path that its client is bound to.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub fd: OwnedFd,
    path: [u8; PATH_MOST + 1],
    length: usize,
}

impl Accepted {
    /// The client's path; empty if it is bound to none.
    pub fn path(&self) -> &[u8] {
        &self.path[..self.length]
    }
}

/// Takes one connection off a listening unix socket's queue, with its client's path, by one system call.
pub fn accept_with_path(listener: impl AsFd) -> Result<Accepted, Errno> {
    // SAFETY: sockaddr_un is a plain C struct for which all zeros is a valid value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of an address through the pointer, and its length.
    let number = Errno::result(unsafe {
        libc::accept4(listener.as_fd().as_raw_fd(), (&raw mut address).cast(), &mut length, libc::SOCK_CLOEXEC)
    })?;
    // SAFETY: the kernel just made this descriptor; nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let room = (length as usize).saturating_sub(std::mem::offset_of!(libc::sockaddr_un, sun_path));
    let path = address.sun_path.map(|c| c as u8);
    let length = path.iter().take(room).take_while(|&&b| b != 0).count();
    Ok(Accepted { fd, path, length })
}

/// Gives a socket a path, with permissions by the umask.
pub fn bind(socket: impl AsFd, path: &CStr) -> Result<(), Errno> {
    nix::sys::socket::bind(socket.as_fd().as_raw_fd(), &address(path)?)
}

/// As [`bind`], with exact permissions whatever the umask. There is never a moment with more of them.
pub fn bind_with_mode(socket: impl AsFd, path: &CStr, mode: u32) -> Result<(), Errno> {
    let before = umask(Mode::from_bits_truncate(!mode as libc::mode_t & 0o777));
    let bound = bind(socket, path);
    umask(before);
    bound
}

/// Listens. The kernel cuts a backlog beyond what the system allows.
pub fn listen(socket: impl AsFd, backlog: u32) -> Result<(), Errno> {
    // SAFETY: listen takes two integers.
    Errno::result(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog.min(BACKLOG_MOST) as libc::c_int) })
        .map(drop)
}

/// The path that a socket is bound to; empty if there is none.
pub fn local_path(socket: impl AsFd) -> Result<Vec<u8>, Errno> {
    let address: UnixAddr = nix::sys::socket::getsockname(socket.as_fd().as_raw_fd())?;
    Ok(address.path().map_or_else(Vec::new, |p| p.as_os_str().as_bytes().to_vec()))
}

/// Whether the descriptor is a socket of any kind.
pub fn is_socket(fd: impl AsFd) -> bool {
    nix::sys::stat::fstat(fd).is_ok_and(|s| s.st_mode & libc::S_IFMT == libc::S_IFSOCK)
}

/// Whether it is a socket that takes connections.
pub fn is_listening(fd: impl AsFd) -> bool {
    nix::sys::socket::getsockopt(&fd, sockopt::AcceptConn).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn both_ends_learn_the_names_that_they_have() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| CString::new(dir.path().join(name).as_os_str().as_bytes()).unwrap();
        let server = stream().unwrap();
        bind_with_mode(&server, &path("server"), 0o640).unwrap();
        listen(&server, 5).unwrap();
        for name in [path("client").as_c_str(), c""] {
            let client = stream().unwrap();
            if !name.is_empty() {
                bind(&client, name).unwrap();
            }
            connect(&client, &address(&path("server")).unwrap()).unwrap();
            assert_eq!(accept_with_path(&server).unwrap().path(), name.to_bytes());
            assert_eq!(local_path(&client).unwrap(), name.to_bytes());
        }
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&dir.path().join("server").metadata().unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o640);
    }

    #[test]
    fn a_full_queue_is_waited_for_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = CString::new(dir.path().join("s").as_os_str().as_bytes()).unwrap();
        let server = stream().unwrap();
        nix::sys::socket::bind(server.as_raw_fd(), &address(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(20));
        let first = connect_stream(&path, soon()).unwrap();
        assert_eq!(connect_stream(&path, soon()).err(), Some(Errno::ETIMEDOUT));
        drop((accept(&server).unwrap(), first));
        assert!(connect_stream(&path, soon()).is_ok());
    }

    #[test]
    fn addresses_are_neither_empty_nor_too_long() {
        assert_eq!(address(c"").err(), Some(Errno::ENOENT));
        assert!(address(&CString::new(vec![b'x'; 107]).unwrap()).is_ok());
        assert_eq!(address(&CString::new(vec![b'x'; 108]).unwrap()).err(), Some(Errno::ENAMETOOLONG));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_names_are_as_long_as_written() {
        let receiver = datagram().unwrap();
        let name = bind_anywhere(&receiver).unwrap();
        assert_eq!(name.len(), 5);
        let sender = datagram().unwrap();
        let text = CString::new([b"@", &name[..]].concat()).unwrap();
        connect(&sender, &notify_address(&text).unwrap()).unwrap();
    }
}
