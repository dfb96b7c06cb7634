//! Waiting for descriptors, signals and deadlines with ppoll(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{Errno, check, signal};

/// Readable, or at end of file.
pub const IN: i16 = libc::POLLIN;
/// Writable.
pub const OUT: i16 = libc::POLLOUT;

/// One descriptor to wait for, and what was found.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for `events` ([`IN`], [`OUT`], both, or 0 for hang-up and errors only) on `fd`.
    pub fn new(fd: BorrowedFd<'_>, events: i16) -> Self {
        PollFd(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// An entry that never becomes ready, for a place whose descriptor is not open.
    pub const fn none() -> Self {
        PollFd(libc::pollfd { fd: -1, events: 0, revents: 0 })
    }

    /// [`PollFd::new`] for an optional descriptor.
    pub fn maybe(fd: Option<impl AsFd>, events: i16) -> Self {
        fd.map_or(PollFd::none(), |fd| PollFd::new(fd.as_fd(), events))
    }

    /// Something to read, end of file, hang-up or error: reading will not block.
    pub fn readable(&self) -> bool {
        self.0.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Room to write, or an error that writing will report.
    pub fn writable(&self) -> bool {
        self.0.revents & (libc::POLLOUT | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Nobody at the other end, or an error.
    pub fn hung_up(&self) -> bool {
        self.0.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
    }

    /// Anything at all.
    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until a descriptor is ready, a trapped signal comes, or `deadline` passes (`None`: no limit).
///
/// Trapped signals (see [`signal::trap`]) are delivered only in here, so none is ever missed between a look at
/// [`signal::take`] and the wait. Returns without error in all three cases; with `revents` cleared if the cause
/// was a signal.
pub fn wait(fds: &mut [PollFd], deadline: Option<Instant>) -> Result<(), Errno> {
    let timeout = deadline.map(|d| d.saturating_duration_since(Instant::now()));
    wait_for(fds, timeout)
}

/// Looks at the descriptors without waiting and without taking signals: those stay for [`wait`].
pub fn look(fds: &mut [PollFd]) -> Result<(), Errno> {
    // SAFETY: the slice is a live array of transparent pollfds.
    super::fd::retry(|| check(unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, 0) })).map(drop)
}

/// As [`wait`], with the time given as a length.
pub fn wait_for(fds: &mut [PollFd], timeout: Option<Duration>) -> Result<(), Errno> {
    let timeout = timeout.map(|t| {
        // SAFETY: timespec is a plain C struct (with padding on some targets); zero is a valid value.
        let mut spec: libc::timespec = unsafe { std::mem::zeroed() };
        spec.tv_sec = t.as_secs().try_into().unwrap_or(i32::MAX.into());
        spec.tv_nsec = t.subsec_nanos() as _;
        spec
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mask = signal::wait_mask().map_or(std::ptr::null(), |m| std::ptr::from_ref(m.as_ref()));
    // SAFETY: the slice is a live array of transparent pollfds; the other pointers are null or to live values.
    let result = check(unsafe { libc::ppoll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, timeout, mask) });
    match result {
        Ok(1..) if !mask.is_null() => let_signals_in(mask),
        Ok(_) => {}
        Err(Errno::EINTR) => fds.iter_mut().for_each(|fd| fd.0.revents = 0),
        Err(errno) => return Err(errno),
    }
    Ok(())
}

/// With a descriptor ready, ppoll returns without letting signals in: a flood on one descriptor would keep them out
/// for ever. Waiting for nothing lets them in.
fn let_signals_in(mask: *const libc::sigset_t) {
    // SAFETY: timespec is a plain C struct; zero is a valid value. The mask is live, the array empty.
    unsafe {
        let none: libc::timespec = std::mem::zeroed();
        libc::ppoll(std::ptr::null_mut(), 0, &none, mask);
    }
}

/// Waits until one descriptor is ready for `events`; ETIMEDOUT if `deadline` passes first. Trapped signals stay
/// pending.
pub fn until_ready(fd: impl AsFd, events: i16, deadline: Option<Instant>) -> Result<(), Errno> {
    loop {
        let mut fds = [PollFd::new(fd.as_fd(), events)];
        wait(&mut fds, deadline)?;
        if fds[0].ready() {
            return Ok(());
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(Errno::ETIMEDOUT);
        }
    }
}
