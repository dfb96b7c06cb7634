//! Descriptors in messages (SCM_RIGHTS), and the sender's credentials where the receiver asked for them.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::fd::retry;
use super::{Errno, Pid};

/// The most descriptors that the kernel passes in one message.
pub const MAX_FDS: usize = 253;

/// Room for [`MAX_FDS`] descriptors, for the credentials of a sender and for its pidfd.
const CONTROL: usize = space(MAX_FDS * size_of::<RawFd>()) + space(64) + space(size_of::<RawFd>());

/// The control message with the pidfd of the sender.
#[cfg(target_os = "linux")]
const SCM_PIDFD: libc::c_int = 4;

/// CMSG_SPACE as a constant: no system pads more than this.
const fn space(data: usize) -> usize {
    size_of::<libc::cmsghdr>() + 16 + data.next_multiple_of(8)
}

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What one receive brought, beside its bytes and descriptors.
#[derive(Debug)]
pub struct Received {
    /// Bytes in the buffer; 0 is the end of a stream, or an empty datagram.
    pub length: usize,
    /// Whether a datagram was longer than the buffer.
    pub cut: bool,
    /// Who sent it, if the socket has SO_PASSCRED (Linux).
    pub sender: Option<Sender>,
    /// Its pidfd, if the socket has SO_PASSPIDFD (Linux) and it was there when the message was read.
    pub pidfd: Option<OwnedFd>,
    /// Whether control data came that is neither descriptors nor credentials.
    pub foreign: bool,
}

/// The process that sent a datagram, as the kernel vouches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its number.
    pub pid: Pid,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Sends bytes and up to [`MAX_FDS`] descriptors (EINVAL beyond) in one message; what is left of the bytes after a
/// short write is to be sent without descriptors. A peer that is gone is an EPIPE, never a SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    send_as(socket, bytes, fds, None)
}

/// As [`send`], in the name of another process (Linux; elsewhere `sender` means nothing). EPERM for who may not.
pub fn send_as(
    socket: impl AsFd,
    bytes: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
    sender: Option<Sender>,
) -> Result<usize, Errno> {
    if fds.len() > MAX_FDS {
        return Err(Errno::EINVAL);
    }
    let mut control = Control([0; CONTROL]);
    // SAFETY: msghdr is a plain C struct for which all zeros, null pointers included, is a valid value; so are its
    // padding fields, which musl has and the kernel reads as the upper halves of the lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = bytes.as_ptr().cast_mut().cast();
    message.msg_iovlen = bytes.len() as _;
    let mut parts = Parts { control: &mut control, filled: 0 };
    if !fds.is_empty() {
        // A BorrowedFd has the representation of a descriptor number.
        parts.add(libc::SCM_RIGHTS, fds);
    }
    #[cfg(target_os = "linux")]
    if let Some(Sender { pid, uid, gid }) = sender {
        parts.add(libc::SCM_CREDENTIALS, &[libc::ucred { pid: pid.as_raw(), uid, gid }]);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = sender;
    if parts.filled > 0 {
        message.msg_controllen = parts.filled as _;
        message.msg_control = control.0.as_mut_ptr().cast();
    }
    retry(|| sendmsg(socket.as_fd(), &message)).map(|sent| sent as usize)
}

/// Control data under construction.
struct Parts<'a> {
    control: &'a mut Control,
    filled: usize,
}

impl Parts<'_> {
    /// Appends one message of level SOL_SOCKET.
    fn add<T: Copy>(&mut self, kind: libc::c_int, data: &[T]) {
        let size = size_of_val(data) as libc::c_uint;
        // SAFETY: both only compute.
        let (space, length) = unsafe { (libc::CMSG_SPACE(size) as usize, libc::CMSG_LEN(size)) };
        let room = &mut self.control.0[self.filled..][..space];
        // SAFETY: the room is aligned, since the buffer and every CMSG_SPACE are, and holds a header followed by
        // `size` bytes, at the place that CMSG_DATA names.
        unsafe {
            let header = room.as_mut_ptr().cast::<libc::cmsghdr>();
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = length as _;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(data.as_ptr().cast(), size as usize);
        }
        self.filled += space;
    }
}

/// The system call itself: musl's function refuses control data above 1024 bytes, which is 252 descriptors.
#[cfg(target_os = "linux")]
fn sendmsg(socket: BorrowedFd<'_>, message: &libc::msghdr) -> Result<libc::c_long, Errno> {
    // SAFETY: the message and all it points to live through the call, and the kernel only reads them.
    Errno::result(unsafe { libc::syscall(libc::SYS_sendmsg, socket.as_raw_fd(), message, libc::MSG_NOSIGNAL) })
}

#[cfg(not(target_os = "linux"))]
fn sendmsg(socket: BorrowedFd<'_>, message: &libc::msghdr) -> Result<libc::ssize_t, Errno> {
    // SAFETY: the message and all it points to live through the call, which only reads them.
    Errno::result(unsafe { libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL) })
}

/// Receives once into `buffer`. Descriptors that came with the bytes, close-on-exec, go to `fds`.
///
/// ENOBUFS if the kernel could not hand over all descriptors (this process has no free numbers): those that it did
/// are closed, and the bytes are lost.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut (impl Extend<OwnedFd> + ?Sized),
) -> Result<Received, Errno> {
    let mut control = Control([0; CONTROL]);
    let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as in send.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut bytes;
    message.msg_iovlen = 1;
    let length = retry(|| {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: the message points to one live, writable buffer of bytes and one for control data.
        Errno::result(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) })
    })?;
    let complete = message.msg_flags & libc::MSG_CTRUNC == 0;
    let cut = message.msg_flags & libc::MSG_TRUNC != 0;
    let mut received = Received { length: length as usize, cut, sender: None, pidfd: None, foreign: false };
    // SAFETY: recvmsg filled the control buffer and set msg_controllen to what it used; CMSG_FIRSTHDR and
    // CMSG_NXTHDR stay within that, and each header's cmsg_len says how much data follows it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            let size = ((*header).cmsg_len as usize).saturating_sub(data as usize - header as usize);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    // The kernel just made these descriptors; nobody else knows them.
                    let number = |i| data.cast::<RawFd>().add(i).read_unaligned();
                    let came = (0..size / size_of::<RawFd>()).map(|i| OwnedFd::from_raw_fd(number(i)));
                    if complete { fds.extend(came) } else { came.for_each(drop) }
                }
                #[cfg(target_os = "linux")]
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if size >= size_of::<libc::ucred>() => {
                    let libc::ucred { pid, uid, gid } = data.cast::<libc::ucred>().read_unaligned();
                    received.sender = Some(Sender { pid: Pid::from_raw(pid), uid, gid });
                }
                #[cfg(target_os = "linux")]
                (libc::SOL_SOCKET, SCM_PIDFD) if size >= size_of::<RawFd>() => {
                    // An error number, below zero, stands for a sender that is gone.
                    let number = data.cast::<RawFd>().read_unaligned();
                    received.pidfd = (number >= 0).then(|| OwnedFd::from_raw_fd(number));
                }
                _ => received.foreign = true,
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    if complete { Ok(received) } else { Err(Errno::ENOBUFS) }
}

#[cfg(test)]
mod tests {
    use super::super::{fd, socket};
    use super::*;

    fn slices(bytes: &[u8]) -> [IoSlice<'_>; 1] {
        [IoSlice::new(bytes)]
    }

    #[test]
    fn as_many_descriptors_pass_as_the_kernel_allows() {
        let (here, there) = socket::pair().unwrap();
        let (reader, writer) = fd::pipe().unwrap();
        let list = vec![writer.as_fd(); MAX_FDS];
        assert_eq!(send(&here, &slices(b"ab"), &list), Ok(2));
        let mut buffer = [0; 8];
        let mut fds = Vec::new();
        assert_eq!(receive(&there, &mut buffer, &mut fds).unwrap().length, 2);
        assert_eq!(fds.len(), MAX_FDS);
        drop((writer, here));
        fd::write_all(&fds[MAX_FDS - 1], b"x").unwrap();
        fds.clear();
        assert_eq!(fd::read(&reader, &mut buffer), Ok(1));
        assert_eq!(fd::read(&reader, &mut buffer), Ok(0), "a descriptor was left open");
        assert_eq!(receive(&there, &mut buffer, &mut fds).unwrap().length, 0);
    }

    #[test]
    fn one_too_many_is_refused() {
        let (here, _there) = socket::pair().unwrap();
        let list = vec![here.as_fd(); MAX_FDS + 1];
        assert_eq!(send(&here, &slices(b"x"), &list), Err(Errno::EINVAL));
    }

    #[test]
    fn a_vanished_peer_is_an_error_and_no_signal() {
        let (here, there) = socket::pair().unwrap();
        drop(there);
        assert_eq!(send(&here, &slices(b"x"), &[]), Err(Errno::EPIPE));
    }

    #[test]
    fn received_descriptors_are_close_on_exec() {
        let (here, there) = socket::pair().unwrap();
        send(&here, &slices(b"x"), &[here.as_fd()]).unwrap();
        let mut fds = Vec::new();
        receive(&there, &mut [0; 1], &mut fds).unwrap();
        let flags = nix::fcntl::fcntl(&fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_sender_is_known_to_who_asks() {
        let (here, there) = socket::pair().unwrap();
        nix::sys::socket::setsockopt(&there, nix::sys::socket::sockopt::PassCred, &true).unwrap();
        let knows_pidfds = socket::pass_pidfd(&there).is_ok();
        send(&here, &slices(b"x"), &[here.as_fd(); MAX_FDS]).unwrap();
        let mut fds = Vec::new();
        let received = receive(&there, &mut [0; 1], &mut fds).unwrap();
        assert_eq!(received.sender.unwrap().pid, nix::unistd::getpid());
        assert_eq!(received.pidfd.is_some(), knows_pidfds);
        assert_eq!((fds.len(), received.foreign), (MAX_FDS, false));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_sender_may_name_itself_beside_its_descriptors() {
        let (here, there) = socket::pair().unwrap();
        nix::sys::socket::setsockopt(&there, nix::sys::socket::sockopt::PassCred, &true).unwrap();
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let sender = Sender { pid: nix::unistd::getpid(), uid, gid };
        send_as(&here, &slices(b"x"), &[here.as_fd(); MAX_FDS], Some(sender)).unwrap();
        let mut fds = Vec::new();
        let received = receive(&there, &mut [0; 1], &mut fds).unwrap();
        assert_eq!((received.sender, fds.len()), (Some(sender), MAX_FDS));
    }
}
