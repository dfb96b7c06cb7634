//! Whether a file or directory is still as it was when it was last looked at, for the price of a stat(2).

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long ago a file must have changed for its stamp to tell this change from any later one: longer than a tick of
/// the clock that stamps files, which is 10 ms at most.
pub const SETTLED: Duration = Duration::from_millis(50);
/// The same for a stamp without a fraction of a second: some file systems (ext2, ext3, small ext4) keep whole seconds
/// only, or even ones.
const SETTLED_WHOLE: Duration = Duration::from_millis(2050);

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

    /// How long ago the change must be for any later one to make another stamp.
    pub fn settles_in(&self) -> Duration {
        if self.changed.1 == 0 { SETTLED_WHOLE } else { SETTLED }
    }

    /// Whether any change after `now` makes another stamp.
    pub fn is_settled(&self, now: Now) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds as u32);
        changed + self.settles_in() < now.0
    }
}

/// A moment that stamps are compared with, since 1970. It must be read before the stamp and the look at the file.
#[derive(Clone, Copy, Debug)]
pub struct Now(Duration);

impl Now {
    /// This moment.
    pub fn read() -> Now {
        Now(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
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
        let settled = |changed, now| Stamp { device: 0, inode: 0, changed }.is_settled(Now(Duration::from_millis(now)));
        assert!(settled((100, 1), 100_051) && !settled((100, 1), 100_050));
        assert!(settled((100, 0), 102_051) && !settled((100, 0), 102_050));
    }
}
