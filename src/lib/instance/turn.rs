//! Taking turns: of the programs that link, unlink, create and delete the same name in a scan directory, one works at
//! a time. Different names do not wait for each other.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, stat};
use nix::unistd::{Gid, fchown};

use crate::die;
use crate::error::{Die, OrDie, SYSTEM};
use crate::servicedir::files;
use crate::sys::{Errno, fd, lock, poll, signal};

/// The file of the locks, one byte for each name. Scanners do not look at names with a dot.
const FILE: &str = ".s6-svlink.lock";
/// How often the lock is tried while another program has it: rarely, and for the moment of a supervisor's start.
const INTERVAL: Duration = Duration::from_millis(5);

/// The right to change what a name in a scan directory stands for, until dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "holds the lock")] OwnedFd);

impl Turn {
    /// Waits for it; `None` if `deadline` passes first.
    pub fn wait(scandir: &CStr, name: &CStr, deadline: Option<Instant>) -> Result<Option<Turn>, Die> {
        let path = files::path(scandir, FILE);
        let file = open(scandir, &path).or_die("open", &path)?;
        while !lock::try_lock_byte(&file, number(name.to_bytes())).or_die("lock", &path)? {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(None);
            }
            poll::wait_for(&mut [], Some(INTERVAL)).or_die("wait for", &path)?;
            check_interruption()?;
        }
        Ok(Some(Turn(file)))
    }
}

/// Ends the program if a trapped signal came.
pub fn check_interruption() -> Result<(), Die> {
    if signal::take().is_some() { Err(die!(SYSTEM, "interrupted by a signal")) } else { Ok(()) }
}

/// Opens the file, or makes it for those who may change the directory.
fn open(scandir: &CStr, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    match fd::open_file(path, flags, 0) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let file = match fd::open_file(path, flags | OFlag::O_CREAT | OFlag::O_EXCL, 0o600) {
        Err(Errno::EEXIST) => return fd::open_file(path, flags, 0),
        other => other?,
    };
    let of = stat(scandir)?;
    if fchown(&file, None, Some(Gid::from_raw(of.st_gid))).is_ok() {
        // Who may write may also read.
        fchmod(&file, Mode::from_bits_truncate(((of.st_mode & 0o222) * 3) | 0o600))?;
    }
    Ok(file)
}

/// A byte for a name (FNV-1a). Two names on one byte only wait for each other.
fn number(name: &[u8]) -> u32 {
    let hash = name.iter().fold(0x811c_9dc5u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash >> 1
}
