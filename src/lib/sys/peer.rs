//! Who is at the other end of a unix stream socket.

use std::os::fd::AsFd;

use super::{Errno, Pid};

/// The credentials of a process, as they were when it connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Its number, where the kernel tells (Linux).
    pub pid: Option<Pid>,
}

/// Asks the kernel who connected.
#[cfg(target_os = "linux")]
pub fn credentials(socket: impl AsFd) -> Result<Peer, Errno> {
    let got = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(Peer { uid: got.uid(), gid: got.gid(), pid: Some(Pid::from_raw(got.pid())) })
}

/// Asks the kernel who connected.
#[cfg(not(target_os = "linux"))]
pub fn credentials(socket: impl AsFd) -> Result<Peer, Errno> {
    let (uid, gid) = nix::unistd::getpeereid(socket)?;
    Ok(Peer { uid: uid.as_raw(), gid: gid.as_raw(), pid: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_of_a_pair_is_this_process() {
        let (here, _there) = crate::sys::socket::pair().unwrap();
        let peer = credentials(&here).unwrap();
        assert_eq!((peer.uid, peer.gid), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    }
}
