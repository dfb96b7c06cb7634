//! Making, notifying and cleaning a fifodir.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, stat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, chown, mkdir, unlinkat};

use crate::stamp::Stamp;
use crate::sys::fd::{open_file_at, write};
use crate::sys::{dir, signal};

/// Length of the name of a subscriber's fifo: `ftrig1:`, a time stamp, `:`, six random characters.
pub const FIFO_NAME: usize = 39;
/// How the names begin of the fifos that letters are sent to, and of those that are removed when nobody reads them.
const NOTIFIED: &[u8] = b"ftrig1:@";
const CLEANED: &[u8] = b"ftrig1";

/// Who may subscribe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anyone: mode 01733.
    Public,
    /// Members of a group: mode 03730; the setgid bit gives fifos that group.
    Group(Gid),
}

/// Makes a fifodir with exact owner and mode, whatever the umask; `force` also sets them on one that exists.
///
/// An existing directory must belong to the real uid (EACCES) and be a directory (ENOTDIR); without `force` it is
/// otherwise left as it is.
pub fn make(path: &CStr, access: Access, force: bool) -> Result<(), Errno> {
    match mkdir(path, Mode::S_IRWXU) {
        Ok(()) => set_access(path, access),
        Err(Errno::EEXIST) => {
            let found = stat(path)?;
            if Uid::from_raw(found.st_uid) != Uid::current() {
                return Err(Errno::EACCES);
            }
            if !dir::is_directory(&found) {
                return Err(Errno::ENOTDIR);
            }
            if force { set_access(path, access) } else { Ok(()) }
        }
        Err(errno) => Err(errno),
    }
}

/// Sets group and mode; the group first, since changing it clears the setgid bit.
pub fn set_access(path: &CStr, access: Access) -> Result<(), Errno> {
    let mode = match access {
        Access::Public => 0o1733,
        Access::Group(gid) => {
            chown(path, None, Some(gid))?;
            0o3730
        }
    };
    chmod(path, mode)
}

/// Sets a mode exactly, following links.
pub fn chmod(path: &CStr, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_bits_truncate(mode as libc::mode_t);
    fchmodat(nix::fcntl::AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)
}

/// Sends `letters`, at most PIPE_BUF, to every subscriber, in one write each.
///
/// Never blocks: a full fifo misses them. A fifo that nobody reads is removed. The only error is a directory that
/// cannot be opened or read. SIGPIPE must not kill the caller: see [`signal::neutralise`].
pub fn notify(path: &CStr, letters: &[u8]) -> Result<(), Errno> {
    for_each_fifo(path, NOTIFIED, |fifo| send(fifo, letters))
}

/// Sends letters to a subscriber. Whether it is gone.
fn send(fifo: Result<OwnedFd, Errno>, letters: &[u8]) -> bool {
    match fifo {
        Ok(fifo) => write(&fifo, letters) == Err(Errno::EPIPE),
        Err(errno) => errno == Errno::ENXIO,
    }
}

/// A fifodir that is notified again and again: while nobody subscribes, each time costs a look at its stamp.
#[derive(Debug)]
pub struct Notifier {
    path: &'static CStr,
    /// Its stamp, and since when it has had it.
    seen: Option<(Stamp, Instant)>,
    /// With that stamp it has no subscriber, and no subscriber comes without another stamp.
    deserted: bool,
}

impl Notifier {
    /// For the fifodir `path`. Nothing is opened or read before the first event.
    pub fn new(path: &'static CStr) -> Notifier {
        Notifier { path, seen: None, deserted: false }
    }

    /// As [`notify`].
    pub fn notify(&mut self, letters: &[u8]) -> Result<(), Errno> {
        // By our own clock: that of the file system may be another's.
        let now = Instant::now();
        let stamp = Stamp::of(self.path);
        let seen = self.seen.filter(|&(seen, _)| Some(seen) == stamp);
        if seen.is_some() && self.deserted {
            return Ok(());
        }
        self.seen = seen.or(stamp.map(|stamp| (stamp, Instant::now())));
        let is_settled = |(seen, since): (Stamp, _)| now.saturating_duration_since(since) >= seen.settles_in();
        let settled = seen.is_some_and(is_settled);
        let mut subscribers = false;
        let result = for_each_fifo(self.path, NOTIFIED, |fifo| {
            subscribers = true;
            send(fifo, letters)
        });
        self.deserted = settled && !subscribers && result.is_ok();
        result
    }
}

/// Removes the fifos of subscribers that are gone, also of those that nobody notifies.
pub fn clean(path: &CStr) -> Result<(), Errno> {
    for_each_fifo(path, CLEANED, |fifo| fifo.is_err_and(|errno| errno == Errno::ENXIO))
}

/// Opens each subscriber's fifo, whose name begins with `prefix`, for `is_stale`, and removes those for which that
/// says so.
fn for_each_fifo(
    path: &CStr,
    prefix: &[u8],
    mut is_stale: impl FnMut(Result<OwnedFd, Errno>) -> bool,
) -> Result<(), Errno> {
    dir::for_each_in(path, |dir, name| {
        if name.to_bytes().len() == FIFO_NAME
            && name.to_bytes().starts_with(prefix)
            && is_stale(open_file_at(dir, name, OFlag::O_WRONLY | OFlag::O_NONBLOCK, 0))
        {
            let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
        }
        Ok(())
    })
}

/// `parent/child` as a C string.
pub fn join(parent: &CStr, child: &CStr) -> CString {
    let mut path = parent.to_bytes().to_vec();
    path.push(b'/');
    path.extend_from_slice(child.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// For programs that notify: a reader that vanishes is an EPIPE, not a death by SIGPIPE.
pub fn ignore_vanishing_readers() {
    let _ = signal::neutralise(signal::Signal::SIGPIPE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::subscription::Subscription;
    use std::os::unix::ffi::OsStrExt;

    fn fifodir() -> (tempfile::TempDir, CString) {
        let base = tempfile::tempdir().unwrap();
        let path = CString::new(base.path().join("event").as_os_str().as_bytes()).unwrap();
        make(&path, Access::Group(Gid::effective()), false).unwrap();
        (base, path)
    }

    fn names(path: &CStr) -> Vec<CString> {
        let mut list = Vec::new();
        dir::for_each(path, |name| {
            list.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        list
    }

    #[test]
    fn letters_reach_every_subscriber_in_one_piece() {
        ignore_vanishing_readers();
        let (_base, path) = fifodir();
        let mut one = Subscription::new(&path).unwrap();
        let mut two = Subscription::new(&path).unwrap();
        notify(&path, b"dD").unwrap();
        for subscription in [&mut one, &mut two] {
            let mut buffer = [0; 8];
            assert_eq!(subscription.read(&mut buffer), Ok(2));
            assert_eq!(&buffer[..2], b"dD");
            assert_eq!(subscription.read(&mut buffer), Err(Errno::EAGAIN));
        }
        drop((one, two));
        assert!(names(&path).is_empty());
    }

    #[test]
    fn a_notifier_misses_nobody_who_comes_after_it_found_nobody() {
        let (base, path) = fifodir();
        let path: &'static CStr = Box::leak(path.into_boxed_c_str());
        let mut notifier = Notifier::new(path);
        for known in [false, true] {
            while known && !notifier.deserted {
                notifier.notify(b"a").unwrap();
            }
            let mut subscription = Subscription::new(path).unwrap();
            notifier.notify(b"b").unwrap();
            assert_eq!(subscription.read(&mut [0; 8]), Ok(1), "known to be deserted: {known}");
            drop(subscription);
            notifier.notify(b"c").unwrap();
        }
        std::fs::remove_dir(base.path().join("event")).unwrap();
        assert_eq!(notifier.notify(b"f"), Err(Errno::ENOENT));
        assert!(!notifier.deserted);
    }

    #[test]
    fn a_fifo_without_reader_is_removed_and_other_names_are_not() {
        let (base, path) = fifodir();
        let stale = base.path().join("event/ftrig1:@400000006553f12500000000:abcdef");
        nix::unistd::mkfifo(&stale, Mode::from_bits_truncate(0o622)).unwrap();
        std::fs::write(base.path().join("event/other"), b"").unwrap();
        clean(&path).unwrap();
        assert_eq!(names(&path), [c"other".to_owned()]);
    }

    #[test]
    fn a_full_fifo_loses_letters_but_stays() {
        ignore_vanishing_readers();
        let (_base, path) = fifodir();
        let _subscription = Subscription::new(&path).unwrap();
        for _ in 0..100 {
            notify(&path, &[b'x'; 4096]).unwrap();
        }
        assert_eq!(names(&path).len(), 1);
    }
}
