//! Directory trees: copied whole or not at all, removed.
//!
//! A copy is made through open directories and follows no link, so that nobody who may write in a directory on the way
//! can lead it elsewhere.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat, stat, umask};
use nix::unistd::{Gid, Uid, fchown, fchownat, mkdir, symlinkat};

use crate::die;
use crate::error::{Die, OrDie, SYSTEM};
use crate::events::fifodir::join;
use crate::sys::{Errno, dir, fd};

/// Copies a directory and all that is in it: hidden files, links as links, fifos, modes; owners where permitted.
///
/// `to` must not exist, nor be made inside `from`, where a copy would have to have itself in it. After an error it may
/// exist in part.
pub fn copy(from: &CStr, to: &CStr) -> Result<(), Die> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let source = fd::open_file(from, directory, 0).or_die("open", from)?;
    mkdir(to, Mode::S_IRWXU).or_die("make", to)?;
    let target = fd::open_file(to, directory | OFlag::O_NOFOLLOW, 0).or_die("open", to)?;
    let whole = fstat(&target).or_die("look at", to)?;
    let before = umask(Mode::empty());
    let copied = copy_directory(source.as_fd(), target.as_fd(), from, &whole);
    umask(before);
    copied
}

/// Copies one directory into another; `whole` is where all of the copy is.
fn copy_directory(source: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &CStr, whole: &FileStat) -> Result<(), Die> {
    for name in dir::names_in(source).or_die("read", path)? {
        let path = join(path, &name);
        let stat = fstatat(source, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).or_die("look at", &path)?;
        if dir::is_directory(&stat) {
            if (stat.st_dev, stat.st_ino) == (whole.st_dev, whole.st_ino) {
                return Err(die!(SYSTEM, "unable to copy ", path, ": it is where the copy is made"));
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let open = |parent| openat(parent, name.as_c_str(), flags, Mode::empty());
            let source = open(source).or_die("open", &path)?;
            let target = mkdirat(target, name.as_c_str(), Mode::S_IRWXU)
                .and_then(|()| open(target))
                .or_die("make a copy of", &path)?;
            copy_directory(source.as_fd(), target.as_fd(), &path, whole)?;
        } else {
            copy_entry(source, target, &name, &stat).or_die("copy", &path)?;
        }
    }
    fstat(source).and_then(|stat| set_owner_and_mode(target, &stat)).or_die("set owner and mode of a copy of", path)
}

/// Copies anything but a directory.
fn copy_entry(source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &CStr, stat: &FileStat) -> Result<(), Errno> {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFREG => {
            let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let mut from = File::from(openat(source, name, flags | OFlag::O_RDONLY, Mode::empty())?);
            let create = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mut to = File::from(openat(target, name, create, Mode::S_IRUSR | Mode::S_IWUSR)?);
            std::io::copy(&mut from, &mut to).map_err(errno)?;
            return set_owner_and_mode(to.as_fd(), stat);
        }
        SFlag::S_IFLNK => symlinkat(readlinkat(source, name)?.as_os_str(), target, name)?,
        _ => mknodat(target, name, kind, Mode::from_bits_truncate(stat.st_mode & 0o777), stat.st_rdev)?,
    }
    match fchownat(target, name, owner(stat), group(stat), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::EPERM) | Ok(()) => Ok(()),
        failure => failure,
    }
}

fn owner(stat: &FileStat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn group(stat: &FileStat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

/// The owner first: changing it clears bits of the mode. A program that would now run as somebody else loses them.
fn set_owner_and_mode(fd: BorrowedFd<'_>, stat: &FileStat) -> Result<(), Errno> {
    let bits = match fchown(fd, owner(stat), group(stat)) {
        Ok(()) => 0o7777,
        Err(Errno::EPERM) if dir::is_directory(stat) => 0o7777,
        Err(Errno::EPERM) => 0o1777,
        failure => return failure,
    };
    fchmod(fd, Mode::from_bits_truncate(stat.st_mode & bits))
}

/// Removes a directory and all that is in it, following no link. What is not there is no error.
pub fn remove(path: &CStr) -> Result<(), Errno> {
    /// A supervisor that is just ending may write a file between our look and our removal.
    const ATTEMPTS: usize = 5;
    let path = OsStr::from_bytes(path.to_bytes());
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        outcome = std::fs::remove_dir_all(path).map_err(errno);
        match outcome {
            Err(Errno::ENOTEMPTY) => {}
            Err(Errno::ENOENT) => return Ok(()),
            outcome => return outcome,
        }
    }
    outcome
}

/// Makes a directory, and those above it that are not there, each with this mode. Those that are there are left as
/// they are. Anything else in the place of one is ENOTDIR.
pub fn make_with_parents(path: &CStr, mode: u32) -> Result<(), Errno> {
    let bytes = path.to_bytes();
    let ends = (1..bytes.len()).filter(|&i| bytes[i] == b'/' && bytes[i - 1] != b'/').chain([bytes.len()]);
    for end in ends {
        match dir::make(&CString::new(&bytes[..end]).map_err(|_| Errno::EINVAL)?, mode) {
            Ok(()) | Err(Errno::EEXIST) => {}
            failure => return failure,
        }
    }
    if dir::is_directory(&stat(path)?) { Ok(()) } else { Err(Errno::ENOTDIR) }
}

/// The system's reason for a failure of the standard library.
pub fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The path without links, dots and doubled slashes.
pub fn real_path(path: &CStr) -> Result<CString, Errno> {
    let real = std::fs::canonicalize(OsStr::from_bytes(path.to_bytes())).map_err(errno)?;
    CString::new(real.into_os_string().into_encoded_bytes()).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

    fn c(path: &std::path::Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn a_copy_has_all_that_the_original_has() {
        let base = tempfile::tempdir().unwrap();
        let (from, to) = (base.path().join("from"), base.path().join("to"));
        std::fs::create_dir_all(from.join("data/.hidden")).unwrap();
        std::fs::write(from.join("run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(from.join("run"), PermissionsExt::from_mode(0o751)).unwrap();
        std::fs::write(from.join("data/.hidden/empty"), "").unwrap();
        std::fs::set_permissions(from.join("data"), PermissionsExt::from_mode(0o2710)).unwrap();
        symlink("/nonexistent/target", from.join("link")).unwrap();
        nix::unistd::mkfifo(&from.join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        nix::sys::stat::fchmodat(
            nix::fcntl::AT_FDCWD,
            &from.join("fifo"),
            Mode::from_bits_truncate(0o622),
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .unwrap();
        copy(&c(&from), &c(&to)).unwrap();
        for name in ["", "run", "data", "data/.hidden", "data/.hidden/empty", "link", "fifo"] {
            let (a, b) = (from.join(name).symlink_metadata().unwrap(), to.join(name).symlink_metadata().unwrap());
            assert_eq!((a.mode(), a.uid(), a.gid()), (b.mode(), b.uid(), b.gid()), "{name}");
        }
        assert_eq!(std::fs::read(to.join("run")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), std::path::Path::new("/nonexistent/target"));
        assert!(to.join("fifo").metadata().unwrap().file_type().is_fifo());
        make_with_parents(&c(&to.join("a//b/c/")), 0o2711).unwrap();
        assert_eq!(to.join("a/b/c").metadata().unwrap().mode() & 0o7777, 0o2711);
        remove(&c(&to)).unwrap();
        assert!(!to.exists());
        assert_eq!(remove(&c(&to)), Ok(()));
    }
}
