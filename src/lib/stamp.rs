//! Whether a file or directory is still as it was when it was last looked at, for the price of a stat(2).

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago a file must have changed for its stamp to tell this change from any later one: longer than a tick of
/// the clock that stamps files, which is 10 ms at most.
pub const SETTLED: Duration = Duration::from_millis(50);

/// The same in seconds for a stamp without a fraction of a second: some file systems (ext2, ext3, small ext4) keep whole
/// seconds only.
const SETTLED_WHOLE: i64 = 2;

/// When and how a file was last changed. Any change of content, name or access makes another, and so does any entry
/// that comes into a directory or leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file that `path` leads to; `None` if it leads nowhere.
    pub fn of(path: &CStr) -> Option<Stamp> {
        let found = std::fs::metadata(OsStr::from_bytes(path.to_bytes())).ok()?;
        Some(Stamp { device: found.dev(), inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }

    /// Whether any change after `now` makes another stamp.
    pub fn is_settled(&self, now: Now) -> bool {
        match self.changed {
            (seconds, 0) => seconds + SETTLED_WHOLE <= now.0.0,
            changed => changed < now.0,
        }
    }
}

/// A moment that stamps are compared with. It must be read before the stamp and the look at the file.
#[derive(Clone, Copy, Debug)]
pub struct Now((i64, i64));

impl Now {
    /// This moment.
    pub fn read() -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(SETTLED);
        Now((since.as_secs() as i64, since.subsec_nanos().into()))
    }
}

/// For tests: waits until the stamp of what `path` leads to is settled.
#[cfg(test)]
pub fn settle(path: &CStr) {
    while !Stamp::of(path).unwrap().is_settled(Now::read()) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_in_whole_seconds_takes_longer_to_settle() {
        let settled = |changed, now| Stamp { device: 0, inode: 0, changed }.is_settled(Now(now));
        assert!(settled((100, 1), (100, 2)) && !settled((100, 2), (100, 2)));
        assert!(settled((100, 0), (102, 0)) && !settled((100, 0), (101, 999_999_999)));
    }
}
