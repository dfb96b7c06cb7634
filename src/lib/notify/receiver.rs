//! The supervisor's end of the protocol: the socket, and who sends what to it (spec/sd-notify-and-fdstore.md 1.1).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::grammar;
#[cfg(target_os = "linux")]
use crate::sys::fd;
use crate::sys::process::{self, Watch};
use crate::sys::scm::{self, Sender};
use crate::sys::{Errno, Pid, socket};

/// Room for one message, and one byte to see that it is too long.
pub type Buffer = [u8; grammar::MOST + 1];

/// A datagram socket that clients find by NOTIFY_SOCKET. Does not block.
#[derive(Debug)]
pub struct Receiver {
    socket: OwnedFd,
    address: CString,
    /// The device and inode of the socket at that address, if it is a path.
    place: Option<Place>,
}

type Place = (libc::dev_t, libc::ino_t);

fn place(path: &CStr) -> Option<Place> {
    nix::sys::stat::lstat(path).ok().map(|about| (about.st_dev, about.st_ino))
}

/// One datagram from a sender that the kernel vouches for.
#[derive(Debug)]
pub struct Incoming<'b> {
    /// Its bytes.
    pub payload: &'b [u8],
    /// Who sent it.
    pub sender: Sender,
    /// The sender's pidfd, if the kernel gave it.
    pub pidfd: Option<OwnedFd>,
}

impl Receiver {
    /// At an abstract address that the kernel chooses: it needs no directory, works for who has changed root or user,
    /// and leaves nothing behind.
    #[cfg(target_os = "linux")]
    pub fn anywhere() -> Result<Receiver, Errno> {
        let socket = Self::socket()?;
        let name = socket::bind_anywhere(&socket)?;
        let address = CString::new([b"@", &name[..]].concat()).map_err(|_| Errno::EADDRNOTAVAIL)?;
        Ok(Receiver { socket, address, place: None })
    }

    /// ENOSYS: there are no abstract addresses here, nor credentials that name a process.
    #[cfg(not(target_os = "linux"))]
    pub fn anywhere() -> Result<Receiver, Errno> {
        Err(Errno::ENOSYS)
    }

    /// In the file system, for everybody to send to: mode 0666. An old socket in its place is removed. ENAMETOOLONG if
    /// the path as clients see it, with the current directory in front if it is relative, is longer than 107 bytes.
    pub fn at(path: &CStr) -> Result<Receiver, Errno> {
        let address = match path.to_bytes() {
            [b'/', ..] => path.to_owned(),
            relative => {
                let here = nix::unistd::getcwd()?.into_os_string().into_encoded_bytes();
                CString::new([&here[..], b"/", relative].concat()).map_err(|_| Errno::EINVAL)?
            }
        };
        socket::address(&address)?; // Too long a path removes nothing.
        if nix::sys::stat::lstat(path).is_ok_and(|about| about.st_mode & libc::S_IFMT == libc::S_IFSOCK) {
            nix::unistd::unlink(path)?;
        }
        let socket = Self::socket()?;
        socket::bind_with_mode(&socket, &address, 0o666)?;
        Ok(Receiver { socket, place: place(&address), address })
    }

    /// Credentials are asked for before anybody can send.
    #[cfg(target_os = "linux")]
    fn socket() -> Result<OwnedFd, Errno> {
        let socket = socket::datagram()?;
        fd::set_nonblocking(&socket, true)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::PassCred, &true)?;
        match socket::pass_pidfd(&socket) {
            Ok(()) | Err(Errno::ENOPROTOOPT) => Ok(socket),
            Err(errno) => Err(errno),
        }
    }

    /// ENOSYS, as for [`Receiver::anywhere`].
    #[cfg(not(target_os = "linux"))]
    fn socket() -> Result<OwnedFd, Errno> {
        Err(Errno::ENOSYS)
    }

    /// The value of NOTIFY_SOCKET.
    pub fn address(&self) -> &CStr {
        &self.address
    }

    /// Takes one datagram off the queue; its descriptors go to `fds`. EAGAIN when there is none. `None` for one that
    /// counts for nothing: too long, or from nobody whom this process could know. ENOBUFS for one with more
    /// descriptors than this process has room for: they are closed.
    pub fn receive<'b>(&self, buffer: &'b mut Buffer, fds: &mut Vec<OwnedFd>) -> Result<Option<Incoming<'b>>, Errno> {
        let received = scm::receive(&self.socket, buffer, fds)?;
        Ok(match received.sender {
            Some(sender) if sender.pid.as_raw() > 0 && !received.cut && received.length < buffer.len() => {
                Some(Incoming { payload: &buffer[..received.length], sender, pidfd: received.pidfd })
            }
            _ => None,
        })
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // By another name it may have been replaced already.
        if self.place.is_some() && self.place == place(&self.address) {
            let _ = nix::unistd::unlink(self.address.as_c_str());
        }
    }
}

impl Incoming<'_> {
    /// Whether the sender descends from this process. It must not be gone; an orphan of ours that nobody has reaped
    /// yet is not.
    pub fn is_from_descendant(&mut self) -> bool {
        self.is_from_descendant_of(nix::unistd::getpid())
    }

    /// Whether the sender, who must not be gone, descends from `ancestor`.
    pub fn is_from_descendant_of(&mut self, ancestor: Pid) -> bool {
        let pid = self.sender.pid;
        // With a hand on the process, the number cannot become another's while its parents are looked up.
        let watch = match self.pidfd.take() {
            Some(pidfd) => Watch::of(pid, pidfd),
            None => Watch::open(pid),
        };
        match watch {
            Ok(watch) => process::descends_from(pid, ancestor) && watch.kill(0) != Err(Errno::ESRCH),
            Err(Errno::ENOSYS) => process::descends_from(pid, ancestor),
            Err(_) => false,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    fn client(receiver: &Receiver) -> OwnedFd {
        let client = socket::datagram().unwrap();
        socket::connect(&client, &socket::notify_address(receiver.address()).unwrap()).unwrap();
        client
    }

    #[test]
    fn messages_come_with_their_sender_up_to_the_longest() {
        let receiver = Receiver::anywhere().unwrap();
        assert!(receiver.address().to_bytes().starts_with(b"@"));
        let client = client(&receiver);
        for (length, taken) in [(0, true), (grammar::MOST, true), (grammar::MOST + 1, false), (9999, false)] {
            scm::send(&client, &[IoSlice::new(&vec![b'x'; length])], &[]).unwrap();
            let (mut buffer, mut fds) = ([0; grammar::MOST + 1], Vec::new());
            let incoming = receiver.receive(&mut buffer, &mut fds).unwrap();
            assert_eq!(incoming.is_some(), taken, "{length} bytes");
            if let Some(mut incoming) = incoming {
                assert_eq!((incoming.payload.len(), incoming.sender.pid), (length, nix::unistd::getpid()));
                assert!(!incoming.is_from_descendant());
            }
        }
        let mut buffer = [0; grammar::MOST + 1];
        assert_eq!(receiver.receive(&mut buffer, &mut Vec::new()).err(), Some(Errno::EAGAIN));
    }

    #[test]
    fn a_path_is_for_everybody_and_goes_with_the_receiver() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("socket");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
        let receiver = Receiver::at(&name).unwrap();
        assert_eq!(receiver.address(), &*name);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        client(&receiver);
        drop(receiver);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(Receiver::at(&name).err(), Some(Errno::EADDRINUSE));
        assert!(!std::fs::metadata(&path).unwrap().file_type().is_socket());
        let long = CString::new(vec![b'x'; 107]).unwrap();
        assert_eq!(Receiver::at(&long).err(), Some(Errno::ENAMETOOLONG));
    }
}
