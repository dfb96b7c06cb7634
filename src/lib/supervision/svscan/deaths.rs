//! Which children died, in a time that does not depend on how many there are.
//!
//! To find a dead child among all, waitpid looks at each: nearly a millisecond for ten thousand. So every child of ours
//! has a pidfd, and an epoll set of them all names the dead, which waitpid then takes by number. All children are looked
//! at when SIGCHLD came and nobody was named, for those that we did not start (orphans, what was there before us), and
//! at all times where there are no pidfds, or no descriptors left for them.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::sys::wait::{self, Which};
use crate::sys::{Pid, process};

/// A stranger that died together with one of ours, by one SIGCHLD, is taken after this time.
const SWEEP: Duration = Duration::from_secs(1);

/// The children of s6-svscan.
#[derive(Debug)]
pub struct Deaths {
    watches: Option<Watches>,
    /// There are children that we did not start, or may be.
    strangers: bool,
    sweep_at: Option<Instant>,
}

impl Deaths {
    /// Nobody yet. The descriptors get numbers from `lowest` on; without that there are none.
    pub fn new(lowest: Option<RawFd>) -> Deaths {
        let watches = lowest.and_then(|lowest| Watches::new(lowest).ok());
        Deaths { watches, strangers: process::adopts_orphans() || wait::has_children(), sweep_at: None }
    }

    /// A child that was just started.
    pub fn watch(&mut self, pid: Pid) {
        if let Some(watches) = &mut self.watches
            && watches.add(pid).is_err()
        {
            self.give_up();
        }
    }

    /// Closes all descriptors, for good. False if there were none.
    pub fn give_up(&mut self) -> bool {
        self.watches.take().is_some()
    }

    /// When [`Deaths::reap`] is due though no SIGCHLD came.
    pub fn deadline(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Takes the dead children, and says who they were.
    pub fn reap(&mut self, now: Instant, mut died: impl FnMut(Pid)) {
        let sweep = self.sweep_at.is_some_and(|at| at <= now);
        if let Some(watches) = &mut self.watches
            && watches.reap(&mut died)
            && !sweep
        {
            if self.strangers {
                self.sweep_at = self.sweep_at.or(Some(now + SWEEP));
            }
            return;
        }
        self.sweep_at = None;
        while let Some((pid, _)) = wait::reap(Which::Any) {
            if let Some(watches) = &mut self.watches {
                watches.forget(pid);
            }
            died(pid);
        }
    }
}

#[cfg(target_os = "linux")]
use linux::Watches;

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use crate::sys::{Errno, fd};
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    use std::collections::HashMap;
    use std::os::fd::OwnedFd;

    /// Deaths that the kernel names at once.
    const BATCH: usize = 32;

    /// A pidfd for each child, and the set of them.
    #[derive(Debug)]
    pub struct Watches {
        set: Epoll,
        pidfds: HashMap<Pid, OwnedFd>,
        lowest: RawFd,
    }

    impl Watches {
        pub fn new(lowest: RawFd) -> Result<Watches, Errno> {
            let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            Ok(Watches { set, pidfds: HashMap::new(), lowest })
        }

        pub fn add(&mut self, pid: Pid) -> Result<(), Errno> {
            self.pidfds.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let pidfd = fd::duplicate(process::pidfd_open(pid)?, self.lowest)?;
            self.set.add(&pidfd, EpollEvent::new(EpollFlags::EPOLLIN, pid.as_raw() as u64))?;
            self.pidfds.insert(pid, pidfd);
            Ok(())
        }

        pub fn forget(&mut self, pid: Pid) {
            self.pidfds.remove(&pid);
        }

        /// Takes those that are named; whether there was any.
        pub fn reap(&mut self, died: &mut dyn FnMut(Pid)) -> bool {
            let mut any = false;
            loop {
                let mut events = [EpollEvent::empty(); BATCH];
                let named = self.set.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
                let mut taken = 0;
                for event in &events[..named] {
                    let pid = Pid::from_raw(event.data() as i32);
                    // One that is traced is dead for its tracer first, and for us with another SIGCHLD.
                    if wait::reap(Which::One(pid)).is_some() {
                        self.forget(pid);
                        died(pid);
                        taken += 1;
                    }
                }
                any |= taken > 0;
                if named < BATCH || taken == 0 {
                    return any;
                }
            }
        }
    }
}

/// There are no pidfds here.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
enum Watches {}

#[cfg(not(target_os = "linux"))]
impl Watches {
    fn new(_: RawFd) -> Result<Watches, crate::sys::Errno> {
        Err(crate::sys::Errno::ENOSYS)
    }

    fn add(&mut self, _: Pid) -> Result<(), crate::sys::Errno> {
        match *self {}
    }

    fn forget(&mut self, _: Pid) {
        match *self {}
    }

    fn reap(&mut self, _: &mut dyn FnMut(Pid)) -> bool {
        match *self {}
    }
}
