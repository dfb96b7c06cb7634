//! Other processes: who descends from whom, who is alive, and learning of a death that waitpid will not tell.
//!
//! Linux knows child subreapers, pidfds and /proc; FreeBSD and DragonFly have procctl reapers; kqueue reports the
//! exit of any process on every BSD.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Errno, Pid};

/// Makes this process the one to which its orphaned descendants are given. ENOSYS where there is no such thing.
pub fn become_subreaper() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    return super::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop);
    #[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
    // SAFETY: PROC_REAP_ACQUIRE takes no data.
    return super::check(unsafe { libc::procctl(libc::P_PID, 0, libc::PROC_REAP_ACQUIRE, std::ptr::null_mut()) })
        .map(drop);
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "dragonfly")))]
    Err(Errno::ENOSYS)
}

/// A process that cannot be confused with a later one of the same number: a pidfd on Linux, a kqueue with
/// EVFILT_PROC elsewhere. The descriptor becomes readable when the process has ended.
#[derive(Debug)]
pub struct Watch {
    pid: Pid,
    fd: OwnedFd,
}

impl Watch {
    /// Starts to watch `pid`. ESRCH when there is no such process (any more); ENOSYS on a Linux before 5.3.
    #[cfg(target_os = "linux")]
    pub fn open(pid: Pid) -> Result<Watch, Errno> {
        use std::os::fd::FromRawFd;
        // SAFETY: pidfd_open takes two integers and returns a new descriptor, close-on-exec by definition.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        // SAFETY: the kernel just made this descriptor; nobody else knows it.
        Ok(Watch { pid, fd: unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) } })
    }

    /// Starts to watch `pid`. ESRCH when there is no such process (any more).
    #[cfg(not(target_os = "linux"))]
    pub fn open(pid: Pid) -> Result<Watch, Errno> {
        use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
        let queue = Kqueue::new()?;
        let exit =
            KEvent::new(pid.as_raw() as _, EventFilter::EVFILT_PROC, EvFlags::EV_ADD, FilterFlag::NOTE_EXIT, 0, 0 as _);
        queue.kevent(&[exit], &mut [], None)?;
        Ok(Watch { pid, fd: queue.into() })
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        let mut fds = [super::poll::PollFd::new(self.fd.as_fd(), super::poll::IN)];
        super::poll::wait_for(&mut fds, Some(std::time::Duration::ZERO)).is_ok() && !fds[0].ready()
    }

    /// Sends signal `number` to exactly this process. ESRCH when it is gone.
    pub fn kill(&self, number: i32) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            // SAFETY: pidfd_send_signal takes integers and an optional siginfo, which is null.
            let sent = unsafe {
                libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), number, std::ptr::null::<()>(), 0)
            };
            Errno::result(sent).map(drop)
        }
        #[cfg(not(target_os = "linux"))]
        super::signal::kill(self.pid, number)
    }

    /// The wait status of a process that ended and whose parent, not being us, has taken it; `None` where the
    /// kernel does not tell (PIDFD_GET_INFO came with Linux 6.13, its exit code with 6.15).
    pub fn exit_status(&self) -> Option<super::wait::WaitStatus> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            /// struct pidfd_info of linux/pidfd.h, first version with the exit code.
            #[repr(C)]
            #[derive(Default)]
            struct Info {
                mask: u64,
                cgroup: u64,
                ids: [u32; 11],
                exit_code: i32,
            }
            const EXIT: u64 = 1 << 3;
            const PIDFD_GET_INFO: u64 = 0xc000_ff0b | ((size_of::<Info>() as u64) << 16);
            let mut info = Info { mask: EXIT, ..Info::default() };
            // SAFETY: the request encodes the size of the struct that the pointer leads to.
            let got = unsafe { libc::ioctl(self.fd.as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
            (got == 0 && info.mask & EXIT != 0).then(|| super::wait::WaitStatus::from_raw(info.exit_code))
        }
        #[cfg(not(target_os = "linux"))]
        None
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What the process table says of one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number.
    pub pid: Pid,
    /// Its parent.
    pub parent: Pid,
    /// Whether it runs: a zombie does not.
    pub alive: bool,
}

/// Looks one process up; `None` when it is gone.
pub fn look_up(pid: Pid) -> Option<Entry> {
    #[cfg(target_os = "linux")]
    {
        let stat = procfs::process::Process::new(pid.as_raw()).ok()?.stat().ok()?;
        Some(Entry { pid, parent: Pid::from_raw(stat.ppid), alive: !matches!(stat.state, 'Z' | 'X') })
    }
    #[cfg(not(target_os = "linux"))]
    {
        super::signal::kill(pid, 0).ok()?;
        Some(Entry { pid, parent: Pid::from_raw(0), alive: true })
    }
}

/// The numbers of all processes, where the system tells (Linux); empty elsewhere.
pub fn all() -> Vec<Entry> {
    #[cfg(target_os = "linux")]
    {
        let Ok(list) = procfs::process::all_processes() else { return Vec::new() };
        list.filter_map(|p| look_up(Pid::from_raw(p.ok()?.pid))).collect()
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// How deep a process may be below us: far more than any daemon, and an end to a walk through a changing table.
const DEEPEST: usize = 1024;

/// Whether the chain of parents leads from `pid` to this process. Where parents cannot be looked up, whether `pid`
/// is alive: the pid file's word is all there is.
pub fn is_descendant(pid: Pid) -> bool {
    let here = nix::unistd::getpid();
    if cfg!(not(target_os = "linux")) {
        return pid != here && look_up(pid).is_some();
    }
    let mut at = pid;
    for _ in 0..DEEPEST {
        match look_up(at) {
            Some(entry) if entry.parent == here => return true,
            Some(entry) if entry.parent.as_raw() > 1 => at = entry.parent,
            _ => return false,
        }
    }
    false
}

/// All live processes that descend from this one, in no order. Looked at again after killing, it catches those
/// that forked meanwhile.
pub fn descendants() -> Vec<Entry> {
    let table = all();
    let mut family = vec![nix::unistd::getpid()];
    let mut found = Vec::new();
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        next += 1;
        for entry in table.iter().filter(|e| e.parent == parent) {
            family.push(entry.pid);
            if entry.alive {
                found.push(*entry);
            }
        }
    }
    found
}
