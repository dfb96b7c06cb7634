//! The clocks without the vDSO, in static programs on 64-bit Linux.
//!
//! musl asks the vDSO, a piece of code that the kernel lends to each process, for the time: a tenth of a microsecond
//! saved, for three page faults at the first question and two pages of page tables as long as the process lives. The
//! programs of this suite ask once in a while, and live for years or for a moment. std asks the C library, so this
//! takes the place of its function, which is a weak symbol there.

/// clock_gettime(2) as the system call that it is.
///
/// # Safety
/// As in C: `time` points to a timespec that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the caller's promise is handed on.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}
