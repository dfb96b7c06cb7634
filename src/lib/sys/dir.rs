//! Directory listings without allocation: one small buffer, one call per entry.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat};
use nix::unistd::mkdir;

use super::Errno;
use super::fd::open_file;

/// Whether what was looked at is a directory.
pub fn is_directory(found: &FileStat) -> bool {
    found.st_mode & libc::S_IFMT == libc::S_IFDIR
}

/// Makes a directory with exactly this mode, whatever the umask.
pub fn make(path: &CStr, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_bits_truncate(mode as libc::mode_t);
    mkdir(path, Mode::S_IRWXU)?;
    fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)
}

/// Calls `each` with the name of every entry of `path` but `.` and `..`, in directory order. Entries may be
/// removed meanwhile. An error of opening or reading ends the walk; so does an error of `each`.
pub fn for_each(path: &CStr, mut each: impl FnMut(&CStr) -> Result<(), Errno>) -> Result<(), Errno> {
    for_each_in(path, |_, name| each(name))
}

/// As [`for_each`], with the open directory, so that an entry is reached without its path.
pub fn for_each_in(path: &CStr, mut each: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<(), Errno>) -> Result<(), Errno> {
    let dir = open_file(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0)?;
    walk(dir.as_fd(), |name| each(dir.as_fd(), name))
}

/// The names of all entries of a directory that was just opened, but `.` and `..`, in its order.
pub fn names_in(dir: impl AsFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    walk(dir.as_fd(), |name| {
        names.push(name.to_owned());
        Ok(())
    })?;
    Ok(names)
}

#[cfg(target_os = "linux")]
fn walk(dir: BorrowedFd<'_>, mut each: impl FnMut(&CStr) -> Result<(), Errno>) -> Result<(), Errno> {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    /// Big enough for dozens of names, small enough for the stack of a supervisor, which is memory it keeps.
    #[repr(C, align(8))]
    struct Buffer(MaybeUninit<[u8; 1024]>);

    /// Offset of d_name in the kernel's linux_dirent64: inode, offset, record length, type.
    const NAME: usize = 19;

    let mut buffer = Buffer(MaybeUninit::uninit());
    loop {
        // SAFETY: pointer and length are those of a live, writable, aligned buffer.
        let filled = Errno::result(unsafe {
            libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.0.as_mut_ptr(), size_of::<Buffer>())
        })?;
        if filled == 0 {
            return Ok(());
        }
        // SAFETY: the kernel has written that many bytes.
        let mut rest = unsafe { std::slice::from_raw_parts(buffer.0.as_ptr().cast::<u8>(), filled as usize) };
        while rest.len() > NAME {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]])).clamp(NAME + 1, rest.len());
            let (record, others) = rest.split_at(length);
            rest = others;
            let name = CStr::from_bytes_until_nul(&record[NAME..]).unwrap_or(c".");
            if name != c"." && name != c".." {
                each(name)?;
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn walk(dir: BorrowedFd<'_>, mut each: impl FnMut(&CStr) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut dir = nix::dir::Dir::from_fd(super::fd::duplicate(dir, 3)?)?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name)?;
        }
    }
    Ok(())
}
