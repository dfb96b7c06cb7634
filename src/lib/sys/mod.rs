//! The fence: the only module that may use `unsafe`.
//!
//! Everything here is a thin, owned, safe face of the kernel: descriptors are [`std::os::fd::OwnedFd`] or
//! borrowed, close-on-exec from birth; errors are [`Errno`]; nothing decides anything. What nix offers already is
//! used as it is, from here and from the rest of the library.

pub mod arena;
pub mod calendar;
#[cfg(all(target_os = "linux", target_env = "musl", target_pointer_width = "64"))]
pub mod clock;
pub mod cptr;
pub mod dir;
pub mod entry;
pub mod env;
pub mod exec;
pub mod fd;
pub mod fork;
pub mod lock;
pub mod peer;
pub mod poll;
pub mod process;
pub mod random;
pub mod regex;
pub mod scan;
pub mod scm;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod wait;

pub use nix::errno::Errno;
pub use nix::unistd::Pid;

/// The C library's text for an errno, as messages show it after the last colon.
pub fn strerror(errno: Errno) -> &'static [u8] {
    // SAFETY: strerror takes any int and returns a NUL-terminated string that lives until the next call; the
    // process has one thread, and every caller writes the text out before it asks again.
    unsafe { std::ffi::CStr::from_ptr(libc::strerror(errno as i32)) }.to_bytes()
}

/// Turns libc's -1 into the errno it stands for.
fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    Errno::result(result)
}
