//! `supervise/death_tally`: the last deaths of a service, 14 bytes each, oldest first (spec/supervision.md 2.2).

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::fstat;
use nix::sys::uio::pread;
use nix::unistd::unlink;

use crate::sys::wait::WaitStatus;
use crate::sys::{Errno, fd};
use crate::tai::{PACKED, Tai64n};

/// Bytes of one entry.
pub const ENTRY: usize = PACKED + 2;
/// Entries that are ever kept.
pub const MOST: usize = 4096;

/// One death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// When; the same stamp as in the status of that moment.
    pub stamp: Tai64n,
    /// The exit code, or 128 + signal.
    pub code: u8,
    /// The signal, 0 after an exit.
    pub signal: u8,
}

impl Death {
    /// A death with this wait status.
    pub fn new(stamp: Tai64n, status: WaitStatus) -> Self {
        match status.signal() {
            Some(signal) => Death { stamp, code: 128u8.wrapping_add(signal), signal },
            None => Death { stamp, code: status.code().unwrap_or(0), signal: 0 },
        }
    }

    /// The bytes of the entry.
    pub fn pack(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        out[..PACKED].copy_from_slice(&self.stamp.pack());
        out[PACKED] = self.code;
        out[PACKED + 1] = self.signal;
        out
    }

    /// From the bytes of an entry.
    pub fn unpack(bytes: &[u8; ENTRY]) -> Self {
        let mut stamp = [0; PACKED];
        stamp.copy_from_slice(&bytes[..PACKED]);
        Death { stamp: Tai64n::unpack(&stamp), code: bytes[PACKED], signal: bytes[PACKED + 1] }
    }
}

/// The entries of a file, oldest first; `None` if its size is no multiple of an entry's.
pub fn unpack(bytes: &[u8]) -> Option<impl DoubleEndedIterator<Item = Death> + ExactSizeIterator> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    rest.is_empty().then(|| entries.iter().map(Death::unpack))
}

/// The newest deaths of an open file, at most `most`, oldest first; `None` if its size is no multiple of an entry's.
pub fn read_newest(file: impl AsFd, most: usize) -> Result<Option<Vec<Death>>, Errno> {
    let size = fstat(file.as_fd())?.st_size.max(0) as usize;
    if !size.is_multiple_of(ENTRY) {
        return Ok(None);
    }
    let mut bytes = vec![0; (size / ENTRY).min(most).min(MOST) * ENTRY];
    let start = size - bytes.len();
    let mut filled = 0;
    while filled < bytes.len() {
        match fd::retry(|| pread(file.as_fd(), &mut bytes[filled..], (start + filled) as libc::off_t))? {
            0 => break, // cut short meanwhile
            n => filled += n,
        }
    }
    bytes.truncate(filled - filled % ENTRY);
    Ok(unpack(&bytes).map(Iterator::collect))
}

/// Forgets all deaths, making the file `path` if it is missing.
pub fn clear(path: &CStr) -> Result<(), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
    fd::open_file(path, flags, 0o666).map(drop)
}

/// Adds a death to the file `path`, which keeps the newest `most` (at least 1). A file of odd size counts as empty.
///
/// While there is room the entry is appended, in one write; then the file is replaced: `new`, then rename. Copies
/// piecewise, so that a long tally costs a supervisor no memory.
pub fn append(path: &CStr, new: &CStr, death: &Death, most: usize) -> Result<(), Errno> {
    let old = match fd::open_file(path, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NONBLOCK, 0) {
        Ok(file) => Some(file),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    let size = match &old {
        Some(file) => nix::sys::stat::fstat(file)?.st_size.max(0) as usize,
        None => 0,
    };
    match &old {
        Some(file) if size % ENTRY == 0 && size / ENTRY < most => {
            let written = fd::write(file, &death.pack());
            if matches!(written, Ok(1..ENTRY)) {
                // Half an entry would spoil the file.
                nix::unistd::ftruncate(file, size as libc::off_t)?;
                return Err(Errno::ENOSPC);
            }
            return written.map(drop);
        }
        _ => {}
    }
    let kept = if size % ENTRY == 0 { (size / ENTRY).min(most - 1) * ENTRY } else { 0 };
    let file = fd::open_file(new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK, 0o666)?;
    let cwd = nix::fcntl::AT_FDCWD;
    let done = copy_tail(old.as_ref(), size - kept..size, &file)
        .and_then(|()| fd::write_all(&file, &death.pack()))
        .and_then(|()| renameat(cwd, new, cwd, path));
    if done.is_err() {
        let _ = unlink(new);
    }
    done
}

/// Copies the bytes at these offsets, or as far as there are any.
fn copy_tail(from: Option<&OwnedFd>, range: std::ops::Range<usize>, to: &OwnedFd) -> Result<(), Errno> {
    let Some(from) = from else { return Ok(()) };
    let mut buffer = [0; 128 * ENTRY];
    let mut offset = range.start;
    while offset < range.end {
        let length = buffer.len().min(range.end - offset);
        match fd::retry(|| pread(from, &mut buffer[..length], offset as libc::off_t))? {
            0 => return Ok(()),
            count => {
                fd::write_all(to, &buffer[..count])?;
                offset += count;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_stamp_code_signal() {
        let stamp = Tai64n { seconds: 1, nanoseconds: 2 };
        assert_eq!(Death::new(stamp, WaitStatus::exited(7)).pack(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 7, 0]);
        assert_eq!(Death::new(stamp, WaitStatus::from_raw(9)).pack()[PACKED..], [137, 9]);
    }

    #[test]
    fn the_newest_deaths_are_kept() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| std::ffi::CString::new(format!("{}/{name}", base.path().display())).unwrap();
        for (most, deaths) in [(1, 3), (3, 2), (300, 299), (300, 700), (4096, 4200)] {
            let _ = std::fs::remove_file(base.path().join("tally"));
            for n in 0..deaths {
                let stamp = Tai64n { seconds: n, nanoseconds: 0 };
                append(&path("tally"), &path("tally.new"), &Death::new(stamp, WaitStatus::exited(1)), most).unwrap();
            }
            let bytes = std::fs::read(base.path().join("tally")).unwrap();
            let kept: Vec<u64> = unpack(&bytes).unwrap().map(|d| d.stamp.seconds).collect();
            assert_eq!(kept, (deaths.saturating_sub(most as u64)..deaths).collect::<Vec<_>>());
        }
        std::fs::write(base.path().join("tally"), b"odd").unwrap();
        append(&path("tally"), &path("tally.new"), &Death::new(Tai64n::default(), WaitStatus::exited(1)), 9).unwrap();
        assert_eq!(std::fs::metadata(base.path().join("tally")).unwrap().len(), ENTRY as u64);
    }

    #[test]
    fn the_newest_deaths_are_read() {
        let deaths: Vec<Death> =
            (0..5).map(|n| Death::new(Tai64n { seconds: n, nanoseconds: 0 }, WaitStatus::exited(1))).collect();
        let mut file = tempfile::tempfile().unwrap();
        for death in &deaths {
            std::io::Write::write_all(&mut file, &death.pack()).unwrap();
        }
        for most in [0, 1, 4, 5, 6, usize::MAX] {
            let newest = read_newest(&file, most).unwrap().unwrap();
            assert_eq!(newest, deaths[5usize.saturating_sub(most)..]);
        }
        std::io::Write::write_all(&mut file, b"odd").unwrap();
        assert_eq!(read_newest(&file, 1), Ok(None));
    }

    #[test]
    fn a_file_of_odd_size_is_none() {
        assert!(unpack(&[0; ENTRY + 1]).is_none());
        assert_eq!(unpack(&[0; 3 * ENTRY]).unwrap().len(), 3);
    }
}
