//! What a supervisor finds or makes in its service directory before it begins (spec/supervision.md 2).

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, readlink};
use nix::sys::stat::{Mode, lstat, stat, umask};
use nix::unistd::{Gid, mkdir, mkfifo};

use crate::die;
use crate::error::{Die, OrDie};
use crate::events::fifodir::{self, Access};
use crate::sys::{Errno, dir, fd, lock};

/// Longest link text that is followed to make the directory it points to.
const LINK: usize = 511;

/// The descriptors that a supervisor holds for its life.
#[derive(Debug)]
pub struct Held {
    /// `supervise/lock`, locked.
    _lock: OwnedFd,
    /// `supervise/control`, to read commands from.
    pub control: OwnedFd,
    /// The same fifo for writing, so that the reader never sees end of file.
    _writer: OwnedFd,
    /// `event` was there before, and what it held with it.
    pub event_is_old: bool,
}

/// Makes `event` and `supervise`, takes the lock, opens the control fifo. Modes do not depend on the umask, and
/// nothing that exists is changed: third parties adjust the rights of these directories and of the fifo.
#[inline(never)] // What it needs of the stack is not needed afterwards.
pub fn prepare() -> Result<Held, Die> {
    let before = umask(Mode::empty());
    let held = prepare_directories();
    umask(before);
    held
}

fn prepare_directories() -> Result<Held, Die> {
    let made = make_directory(c"event")?;
    if let Some(event) = &made {
        fifodir::set_access(event, Access::Group(Gid::effective())).or_die("set the access of", event)?;
    }
    make_directory(c"supervise")?;
    let held = lock_file(c"supervise/lock", 0o644)?;
    let (control, writer) = control_fifo(c"supervise/control")?;
    Ok(Held { _lock: held, control, _writer: writer, event_is_old: made.is_none() })
}

/// Opens and locks a lock file; somebody else's lock is exit code 100.
pub fn lock_file(path: &CStr, mode: u32) -> Result<OwnedFd, Die> {
    let file = fd::open_file(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, mode).or_die("open", path)?;
    match lock::try_lock(&file, lock::Kind::Exclusive).or_die("lock", path)? {
        true => Ok(file),
        false => Err(die!(100, "unable to lock ", path, ": another process supervises this directory")),
    }
}

/// Makes the control fifo if it is missing, and opens it for reading and for writing.
pub fn control_fifo(path: &CStr) -> Result<(OwnedFd, OwnedFd), Die> {
    match mkfifo(path, Mode::from_bits_truncate(0o600)) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = stat(path).or_die("examine", path)?;
            if found.st_mode & libc::S_IFMT != libc::S_IFIFO {
                return Err(die!(100, path, " exists and is not a fifo"));
            }
        }
        Err(errno) => return Err(die!(111, errno => "unable to make the fifo ", path)),
    }
    let reader = fd::open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0).or_die("open for reading", path)?;
    let writer = fd::open_file(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK, 0).or_die("open for writing", path)?;
    Ok((reader, writer))
}

/// Makes a directory, or the one that a dangling link points to; says which one it made, if any. What is there and
/// is a directory, also through a link, is fine as it is.
pub fn make_directory(path: &CStr) -> Result<Option<CString>, Die> {
    match mkdir(path, Mode::S_IRWXU) {
        Ok(()) => return Ok(Some(path.to_owned())),
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(die!(111, errno => "unable to make the directory ", path)),
    }
    match stat(path) {
        Ok(found) if dir::is_directory(&found) => Ok(None),
        Ok(_) => Err(die!(100, path, " exists and is not a directory")),
        Err(Errno::ENOENT) => make_link_target(path).map(Some),
        Err(errno) => Err(die!(111, errno => "unable to examine ", path)),
    }
}

fn make_link_target(link: &CStr) -> Result<CString, Die> {
    use std::os::unix::ffi::OsStringExt;
    lstat(link).or_die("examine", link)?;
    let target = readlink(link).or_die("read the link", link)?.into_vec();
    if target.len() > LINK {
        return Err(die!(111, Errno::ENAMETOOLONG => "unable to follow the link ", link));
    }
    let target = CString::new(target).unwrap_or_default();
    mkdir(target.as_c_str(), Mode::S_IRWXU).or_die("make the directory", &target)?;
    Ok(target)
}
