//! Descriptors: the standard three, inherited ones by number, and the flags that matter.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::fcntl::{AT_FDCWD, FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Errno, check, poll};

/// Standard input. Reading it says EBADF if the program was started without.
pub const STDIN: BorrowedFd<'static> = standard(0);
/// Standard output.
pub const STDOUT: BorrowedFd<'static> = standard(1);
/// Standard error.
pub const STDERR: BorrowedFd<'static> = standard(2);

const fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: 0, 1 and 2 are never closed through an OwnedFd: inherited() refuses them, close_standard() is the
    // one explicit way and leaves only EBADF behind.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Opens a file close-on-exec. `mode` counts when O_CREAT is among the flags, less the umask.
pub fn open_file(path: &CStr, flags: OFlag, mode: u32) -> Result<OwnedFd, Errno> {
    open_file_at(AT_FDCWD, path, flags, mode)
}

/// As [`open_file`], with `path` relative to a directory.
pub fn open_file_at(directory: BorrowedFd<'_>, path: &CStr, flags: OFlag, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = (flags | OFlag::O_CLOEXEC).bits();
    loop {
        // musl's own open sets close-on-exec once more, by a second system call, for kernels before 2.6.23.
        // SAFETY: path is a C string; the other arguments are integers.
        #[cfg(target_os = "linux")]
        let opened = unsafe {
            libc::syscall(libc::SYS_openat, directory.as_raw_fd(), path.as_ptr(), flags | libc::O_LARGEFILE, mode)
        } as RawFd;
        // SAFETY: as above.
        #[cfg(not(target_os = "linux"))]
        let opened = unsafe { libc::openat(directory.as_raw_fd(), path.as_ptr(), flags, mode as libc::c_uint) };
        match check(opened) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            // SAFETY: the kernel just made this descriptor; nobody else knows it.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }
}

/// Opens /dev/null on each of 0, 1, 2 that is closed, so that nothing of ours ever lands there.
pub fn open_missing_standard() -> Result<(), Errno> {
    for number in 0..=2 {
        if !is_open(number) {
            // Opening takes the lowest free number, which is this one: there is no other thread to take it.
            leak_to_exec(open_file(c"/dev/null", OFlag::O_RDWR, 0)?)?;
        }
    }
    Ok(())
}

/// Whether descriptor `number` is open in this process.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Takes ownership of a descriptor that the parent left open, by number, and makes it close-on-exec.
/// EBADF if it is not open or is one of the standard three. To be called once for a number.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    if number <= 2 {
        return Err(Errno::EBADF);
    }
    set_cloexec(number, true)?;
    // SAFETY: the number is open (F_SETFD succeeded), and by contract nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes a descriptor that the parent left open, by number, so that what is executed next does not get it: one of
/// the standard three is /dev/null then. EBADF if it is not open. To be called once for a number.
pub fn take(number: RawFd) -> Result<OwnedFd, Errno> {
    if number > 2 {
        return inherited(number);
    }
    let taken = duplicate(borrow(number)?, 3)?;
    to_dev_null(number)?;
    Ok(taken)
}

/// Borrows an inherited descriptor by number for a moment. EBADF if it is not open.
pub fn borrow(number: RawFd) -> Result<BorrowedFd<'static>, Errno> {
    if !is_open(number) {
        return Err(Errno::EBADF);
    }
    // SAFETY: it is open now; callers use it at once, for descriptors they were told to use by their user.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes a descriptor by number, also a standard one. Errors are of no interest.
pub fn close(number: RawFd) {
    // SAFETY: close touches no memory; the callers give numbers that no OwnedFd holds.
    unsafe { libc::close(number) };
}

/// Makes `number` refer to the same open file as `fd` (dup2), without close-on-exec. The same number: only the flag.
pub fn install(fd: BorrowedFd<'_>, number: RawFd) -> Result<(), Errno> {
    if fd.as_raw_fd() == number {
        return set_cloexec(number, false);
    }
    // SAFETY: dup2 touches no memory.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Moves an owned descriptor to `number`, without close-on-exec, closing the original: for what the next program
/// finds at an agreed place.
pub fn hand_over(fd: OwnedFd, number: RawFd) -> Result<(), Errno> {
    install(fd.as_fd(), number)?;
    if fd.as_raw_fd() == number {
        std::mem::forget(fd);
    }
    Ok(())
}

/// Keeps a descriptor open for the program that is executed next, where it is.
pub fn leak_to_exec(fd: OwnedFd) -> Result<RawFd, Errno> {
    set_cloexec(fd.as_raw_fd(), false)?;
    Ok(std::os::fd::IntoRawFd::into_raw_fd(fd))
}

/// A close-on-exec duplicate, at `lowest` or above.
pub fn duplicate(fd: impl AsFd, lowest: RawFd) -> Result<OwnedFd, Errno> {
    let number = fcntl(fd.as_fd(), FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Puts /dev/null in the place of a standard descriptor.
pub fn to_dev_null(number: RawFd) -> Result<(), Errno> {
    let null = open_file(c"/dev/null", OFlag::O_RDWR, 0)?;
    install(null.as_fd(), number)
}

/// Sets or clears close-on-exec by number.
pub fn set_cloexec(number: RawFd, on: bool) -> Result<(), Errno> {
    let flags = if on { FdFlag::FD_CLOEXEC.bits() } else { 0 };
    // SAFETY: F_SETFD touches no memory.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, flags) }).map(drop)
}

/// Sets or clears O_NONBLOCK, on the open file that all duplicates share.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> Result<(), Errno> {
    let old = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    let new = if on { old | OFlag::O_NONBLOCK } else { old - OFlag::O_NONBLOCK };
    if new != old {
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(new))?;
    }
    Ok(())
}

/// A standard descriptor that does not block, as long as this lives: whoever shares it finds it as it was.
#[derive(Debug)]
pub struct Nonblocking(Option<BorrowedFd<'static>>);

impl Nonblocking {
    /// Makes it so, if it is not already.
    pub fn new(fd: BorrowedFd<'static>) -> Result<Self, Errno> {
        let blocks = fcntl(fd, FcntlArg::F_GETFL)? & OFlag::O_NONBLOCK.bits() == 0;
        if blocks {
            set_nonblocking(fd, true)?;
        }
        Ok(Nonblocking(blocks.then_some(fd)))
    }
}

impl Drop for Nonblocking {
    fn drop(&mut self) {
        if let Some(fd) = self.0 {
            let _ = set_nonblocking(fd, false);
        }
    }
}

/// A pipe, both ends close-on-exec and blocking: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

/// A pipe whose read end does not block, both ends close-on-exec: (read end, write end).
pub fn pipe_to_poll() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (reader, writer) = pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

/// How many descriptors this process may have: numbers are below this.
pub fn limit() -> Result<usize, Errno> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(soft.try_into().unwrap_or(usize::MAX))
}

/// Asks for a higher limit, as far as the hard limit lets it: a limit that is high enough is not touched. What this
/// process executes inherits it.
pub fn raise_limit(wanted: usize) {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Ok(wanted) = wanted.try_into()
        && wanted > soft
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(wanted), hard);
    }
}

/// Reads once; EINTR is retried.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry(|| nix::unistd::read(fd.as_fd(), buffer))
}

/// Reads once, behind what `buffer` holds, as much as it has capacity for; EINTR is retried. Memory that nothing is
/// read into is never touched.
pub fn read_into(fd: impl AsFd, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
    let number = fd.as_fd().as_raw_fd();
    let room = buffer.spare_capacity_mut();
    // SAFETY: pointer and length are those of the vector's unused capacity.
    let got = retry(|| Errno::result(unsafe { libc::read(number, room.as_mut_ptr().cast(), room.len()) }))?;
    let got = usize::try_from(got).unwrap_or(0);
    // SAFETY: the kernel just wrote `got` bytes, at most the capacity, behind the old length.
    unsafe { buffer.set_len(buffer.len() + got) };
    Ok(got)
}

/// Reads to the end of the file.
pub fn read_to_end(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(4096);
        if read_into(fd.as_fd(), &mut bytes)? == 0 {
            return Ok(bytes);
        }
    }
}

/// Writes once, which may be less than all; EINTR is retried.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    retry(|| nix::unistd::write(fd.as_fd(), bytes))
}

/// Writes everything to a blocking descriptor.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        bytes = &bytes[write(fd.as_fd(), bytes)?..];
    }
    Ok(())
}

/// Fills `buffer` from a nonblocking descriptor, waiting until `deadline` (ETIMEDOUT); how much came before the end.
pub fn read_before(fd: impl AsFd, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, Errno> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read(&fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EAGAIN) => poll::until_ready(&fd, poll::IN, deadline)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Writes everything to a nonblocking descriptor, waiting until `deadline` (ETIMEDOUT).
pub fn write_before(fd: impl AsFd, mut bytes: &[u8], deadline: Option<Instant>) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(&fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EAGAIN) => poll::until_ready(&fd, poll::OUT, deadline)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Repeats a call until no signal interrupts it.
pub fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Whether both refer to one open file: duplicates do, two open() of one path do not. Where the kernel does not tell
/// (kcmp is Linux's, and may be forbidden): the same inode opened in the same way, and never for devices.
pub fn is_same_file(one: impl AsFd, other: impl AsFd) -> bool {
    let (one, other) = (one.as_fd(), other.as_fd());
    #[cfg(target_os = "linux")]
    {
        const KCMP_FILE: libc::c_int = 0;
        let here = nix::unistd::getpid().as_raw();
        // SAFETY: kcmp takes five integers.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, here, here, KCMP_FILE, one.as_raw_fd(), other.as_raw_fd()) };
        if order >= 0 {
            return order == 0;
        }
    }
    looks_the_same(one, other).unwrap_or(false)
}

fn looks_the_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (a, b) = (nix::sys::stat::fstat(one)?, nix::sys::stat::fstat(other)?);
    let device = matches!(a.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
    let flags = || Ok::<_, Errno>(fcntl(one, FcntlArg::F_GETFL)? == fcntl(other, FcntlArg::F_GETFL)?);
    Ok(!device && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) && flags()?)
}

/// The start of a file, up to `buffer`'s length, for the small files of service directories.
pub fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
    // A regular file is read in one piece, and for anything else one piece must do.
    let filled = read(&file, buffer)?;
    Ok(&buffer[..filled])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_the_same_file_and_another_open_is_not() {
        let base = tempfile::NamedTempFile::new().unwrap();
        let copy = duplicate(base.as_file(), 3).unwrap();
        let other = base.reopen().unwrap();
        let (reader, writer) = pipe().unwrap();
        assert!(is_same_file(base.as_file(), &copy));
        assert!(!is_same_file(&reader, &writer));
        assert!(!is_same_file(&other, &copy) || cfg!(not(target_os = "linux")));
        assert_eq!(looks_the_same(reader.as_fd(), writer.as_fd()), Ok(false));
        assert_eq!(looks_the_same(base.as_fd(), copy.as_fd()), Ok(true));
        let null = open_file(c"/dev/null", OFlag::O_RDWR, 0).unwrap();
        assert_eq!(looks_the_same(null.as_fd(), null.as_fd()), Ok(false));
    }
}
