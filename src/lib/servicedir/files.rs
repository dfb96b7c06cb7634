//! The one-line files of a service directory (spec/supervision.md 1): at most a few bytes are read, the text up to
//! the first newline counts, and what cannot be understood is a warning and the default.

use std::ffi::{CStr, CString};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::sys::{Errno, dir, fd};
use crate::{text, warn};

/// Bytes that are read for a number.
const NUMBER: usize = 11;
/// Bytes that are read for a signal.
const SIGNAL: usize = 15;

/// `dir/name`.
pub fn path(dir: &CStr, name: &str) -> CString {
    CString::new([dir.to_bytes(), b"/", name.as_bytes()].concat()).unwrap_or_default()
}

/// Whether the file exists, by whatever name rules the kernel has; an error other than absence counts as there.
pub fn exists(path: &CStr) -> bool {
    !matches!(nix::unistd::access(path, nix::unistd::AccessFlags::F_OK), Err(Errno::ENOENT | Errno::ENOTDIR))
}

/// What a message adds to the errno of a file that could not be executed, where that says nothing of the cause.
pub fn obstacle(file: &CStr, errno: Errno) -> &'static str {
    let Ok(found) = nix::sys::stat::stat(file) else { return "" };
    match errno {
        Errno::ENOENT => " (its interpreter does not exist)",
        Errno::ENOEXEC => " (its first line does not name an interpreter)",
        Errno::EACCES if found.st_mode & nix::libc::S_IFMT != nix::libc::S_IFREG => " (it is not a file)",
        Errno::EACCES if found.st_mode & 0o111 == 0 => " (it is not executable)",
        Errno::EACCES if is_noexec(file) => " (it is on a file system that is mounted noexec)",
        _ => "",
    }
}

/// Whether nothing on the file system of this file can be executed.
#[cfg(target_os = "linux")]
fn is_noexec(file: &CStr) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    statvfs(file).is_ok_and(|system| system.flags().contains(FsFlags::ST_NOEXEC))
}

#[cfg(not(target_os = "linux"))]
fn is_noexec(_file: &CStr) -> bool {
    false
}

/// What a listing is asked for; `data` stands for all that is below it.
const ASKED: [&CStr; 11] = [
    c"data",
    c"down",
    c"fdstore-max",
    c"finish",
    c"flag-newpidns",
    c"lock-fd",
    c"max-death-tally",
    c"notification-fd",
    c"notify-socket",
    c"pidfile",
    c"timeout-watchdog",
];
/// Entries of a directory that are looked at before it is taken for one that may have anything.
const MOST_ENTRIES: usize = 500;

/// Which of the files that decide something may be in the service directory, which is the current one, as far as one
/// listing tells: most are in few directories, and to ask for each costs more.
#[derive(Clone, Copy, Debug)]
pub struct Names(u16);

impl Names {
    /// As it is now.
    #[inline(never)] // The listing needs a buffer on the stack.
    pub fn list() -> Names {
        let (mut names, mut entries) = (0, 0);
        let listed = dir::for_each(c".", |name| {
            entries += 1;
            for (bit, asked) in ASKED.iter().enumerate() {
                // There are file systems for which both are one name.
                names |= u16::from(asked.to_bytes().eq_ignore_ascii_case(name.to_bytes())) << bit;
            }
            if entries < MOST_ENTRIES { Ok(()) } else { Err(Errno::E2BIG) }
        });
        Names(if listed.is_ok() { names } else { u16::MAX })
    }

    /// Of a path that was not asked for: true.
    fn may_have(self, path: &CStr) -> bool {
        let first = path.to_bytes().split(|&b| b == b'/').next();
        let bit = ASKED.iter().position(|asked| Some(asked.to_bytes()) == first);
        bit.is_none_or(|bit| self.0 & (1 << bit) != 0)
    }

    /// As [`exists`].
    pub fn exists(self, path: &CStr) -> bool {
        self.may_have(path) && exists(path)
    }

    /// As [`number`].
    pub fn number(self, path: &CStr) -> Option<u32> {
        if self.may_have(path) { number(path) } else { None }
    }

    /// As [`extension`].
    pub fn extension(self, direct: &'static CStr, in_data: &'static CStr) -> Option<&'static CStr> {
        [direct, in_data].into_iter().find(|path| self.exists(path))
    }
}

/// Where an extension file is: `./NAME`, else `./data/s6-rs/NAME`, since s6-rc-compile copies only the names it
/// knows, and `data` (design.md 5). `None` in the service directory of somebody who does not use it.
pub fn extension(direct: &'static CStr, in_data: &'static CStr) -> Option<&'static CStr> {
    [direct, in_data].into_iter().find(|path| exists(path))
}

/// The first line of a small file, parsed. `None` if it is not there, or, with a warning, if it cannot be read or
/// understood.
pub fn read<T, const MOST: usize>(path: &CStr, parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let mut buffer = [0; MOST];
    match fd::read_file(path, &mut buffer) {
        Ok(bytes) => {
            let value = parse(first_line(bytes));
            if value.is_none() {
                warn!("invalid ", path, ": using the default");
            }
            value
        }
        Err(Errno::ENOENT) => None,
        Err(errno) => {
            warn!(errno => "unable to read ", path, ", using the default");
            None
        }
    }
}

/// An unsigned number.
pub fn number(path: &CStr) -> Option<u32> {
    read::<_, NUMBER>(path, text::parse_u32)
}

/// A number of milliseconds; 0 is no limit.
pub fn limit(path: &CStr, default: Option<Duration>) -> Option<Duration> {
    number(path).map_or(default, text::limit)
}

/// A signal by name or number.
pub fn signal(path: &CStr) -> Option<i32> {
    read::<_, SIGNAL>(path, text::parse_signal)
}

/// What comes before the first newline.
pub fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == b'\n').next().unwrap_or(b"")
}

/// Replaces `path` by a file with these bytes, never seen half-written: `path.new`, then rename. Mode 0666 less the
/// umask. Nothing is left behind on failure.
pub fn replace(path: &CStr, new: &CStr, bytes: &[u8]) -> Result<(), Errno> {
    let file = fd::open_file(new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK, 0o666)?;
    let cwd = nix::fcntl::AT_FDCWD;
    let done = fd::write_all(&file, bytes).and_then(|()| nix::fcntl::renameat(cwd, new, cwd, path));
    if done.is_err() {
        let _ = nix::unistd::unlink(new);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_knows_what_it_was_asked_for() {
        assert!(ASKED.len() <= u16::BITS as usize);
        let names = Names(1 << 3);
        assert!(names.may_have(c"finish") && !names.may_have(c"down"));
        assert!(!names.may_have(c"data/s6-rs/pidfile"));
        assert!(names.may_have(c"timeout-kill"), "was not asked for");
    }
}
