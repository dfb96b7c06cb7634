//! One subscriber of a fifodir, in this process: no helper, no second process to wake.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{mkfifo, unlink};

use crate::events::fifodir::{FIFO_NAME, join};
use crate::sys::fd::{self, open_file};
use crate::sys::random;
use crate::tai::Tai64n;

/// Tries to find a name that is not taken. One suffices unless somebody plays with the clock and the generator.
const ATTEMPTS: usize = 16;

/// A fifo in a fifodir, from which the letters that a notifier sends can be read. Removed when dropped.
///
/// Its path is kept as given: a program does not change directory while it holds one by a relative path.
#[derive(Debug)]
pub struct Subscription {
    reader: OwnedFd,
    /// Keeps the reader from seeing end of file each time a notifier closes.
    _writer: OwnedFd,
    path: CString,
}

impl Subscription {
    /// Subscribes: every letter sent after this call returns will be read.
    pub fn new(fifodir: &CStr) -> Result<Subscription, Errno> {
        if fifodir.is_empty() {
            return Err(Errno::ENOENT); // Not the root, which a slash behind it would make of it.
        }
        let mut attempt = 0;
        loop {
            match Self::create(fifodir) {
                Err(Errno::EEXIST) if attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Makes the fifo under a name that notifiers do not look at, opens it, and only then shows it to them. The umask,
    /// which threads share, stays as it is.
    fn create(fifodir: &CStr) -> Result<Subscription, Errno> {
        let name = fifo_name()?;
        let path = join(fifodir, &name);
        let hidden = join(fifodir, &CString::new([b".", name.as_bytes()].concat()).unwrap_or_default());
        let mode = Mode::from_bits_truncate(0o622);
        mkfifo(hidden.as_c_str(), mode)?;
        let opened = || {
            let reader = open_file(&hidden, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
            fchmod(&reader, mode)?;
            let writer = open_file(&hidden, OFlag::O_WRONLY | OFlag::O_NONBLOCK, 0)?;
            nix::fcntl::renameat(nix::fcntl::AT_FDCWD, hidden.as_c_str(), nix::fcntl::AT_FDCWD, path.as_c_str())?;
            Ok((reader, writer))
        };
        match opened() {
            Ok((reader, writer)) => Ok(Subscription { reader, _writer: writer, path }),
            Err(errno) => {
                let _ = unlink(hidden.as_c_str());
                Err(errno)
            }
        }
    }

    /// Leaves the fifo to another process that has it, too.
    pub fn leave(mut self) {
        self.path = CString::default(); // there is no such file to unlink
    }

    /// Reads letters that came; EAGAIN when there are none.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Errno> {
        fd::read(&self.reader, buffer)
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = unlink(self.path.as_c_str());
    }
}

/// `ftrig1:@` 24 hex digits of the wall clock `:` six random characters.
fn fifo_name() -> Result<CString, Errno> {
    let name = [b"ftrig1:", &Tai64n::now().text()[..], b":", &random::letters()?[..]].concat();
    debug_assert_eq!(name.len(), FIFO_NAME);
    CString::new(name).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_length_that_notifiers_look_for() {
        let name = fifo_name().unwrap();
        assert_eq!(name.as_bytes().len(), FIFO_NAME);
        assert!(name.as_bytes().starts_with(b"ftrig1:@4"));
    }

    #[test]
    fn a_missing_fifodir_is_an_error_and_leaves_nothing() {
        for missing in [c"/nonexistent/event", c""] {
            assert_eq!(Subscription::new(missing).err(), Some(Errno::ENOENT));
        }
    }
}
