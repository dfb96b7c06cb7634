//! Other processes: who descends from whom, who is alive, and learning of a death that waitpid will not tell.
//!
//! Linux knows child subreapers, pidfds and /proc; FreeBSD and DragonFly have procctl reapers; kqueue reports the
//! exit of any process on every BSD.

use std::os::fd::{AsFd, BorrowedFd};

use super::wait::WaitStatus;
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
///
/// A Linux without pidfds can still watch its own children: none of them vanishes before this process reaps it, and
/// SIGCHLD tells of its end. Such a watch has no descriptor.
#[derive(Debug)]
pub struct Watch {
    pid: Pid,
    fd: Option<Descriptor>,
}

#[cfg(target_os = "linux")]
type Descriptor = std::os::fd::OwnedFd;
#[cfg(not(target_os = "linux"))]
type Descriptor = nix::sys::event::Kqueue;

impl Watch {
    /// Starts to watch `pid`. ESRCH when there is no such process (any more); ENOSYS for what is no child of ours on
    /// a Linux before 5.3.
    #[cfg(target_os = "linux")]
    pub fn open(pid: Pid) -> Result<Watch, Errno> {
        use std::os::fd::FromRawFd;
        // SAFETY: pidfd_open takes two integers and returns a new descriptor, close-on-exec by definition.
        match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }) {
            // SAFETY: the kernel just made this descriptor; nobody else knows it.
            Ok(fd) => Ok(Watch { pid, fd: Some(unsafe { Descriptor::from_raw_fd(fd as libc::c_int) }) }),
            // EPERM is how the system call filters of old containers say ENOSYS.
            Err(Errno::ENOSYS | Errno::EPERM) => match look_up(pid) {
                Some(entry) if entry.parent == nix::unistd::getpid() => Ok(Watch { pid, fd: None }),
                Some(_) => Err(Errno::ENOSYS),
                None => Err(Errno::ESRCH),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Watches `pid` by a pidfd of it.
    #[cfg(target_os = "linux")]
    pub fn of(pid: Pid, pidfd: std::os::fd::OwnedFd) -> Result<Watch, Errno> {
        Ok(Watch { pid, fd: Some(pidfd) })
    }

    /// Watches `pid`. There are no pidfds here.
    #[cfg(not(target_os = "linux"))]
    pub fn of(pid: Pid, _: std::os::fd::OwnedFd) -> Result<Watch, Errno> {
        Watch::open(pid)
    }

    /// Starts to watch `pid`. ESRCH when there is no such process (any more).
    #[cfg(not(target_os = "linux"))]
    pub fn open(pid: Pid) -> Result<Watch, Errno> {
        use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
        let queue = Kqueue::new()?;
        let exit =
            KEvent::new(pid.as_raw() as _, EventFilter::EVFILT_PROC, EvFlags::EV_ADD, FilterFlag::NOTE_EXIT, 0, 0 as _);
        queue.kevent(&[exit], &mut [], None)?;
        Ok(Watch { pid, fd: Some(queue) })
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The descriptor to poll for the end of the process. Without one, only waitpid tells.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Whether the process still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        let Some(fd) = self.fd() else { return look_up(self.pid).is_some_and(|entry| entry.alive) };
        let mut fds = [super::poll::PollFd::new(fd, super::poll::IN)];
        super::poll::look(&mut fds).is_ok() && !fds[0].ready()
    }

    /// Sends signal `number` to exactly this process. ESRCH when it is gone.
    pub fn kill(&self, number: i32) -> Result<(), Errno> {
        #[cfg(target_os = "linux")]
        if let Some(fd) = self.fd() {
            use std::os::fd::AsRawFd;
            // SAFETY: pidfd_send_signal takes integers and an optional siginfo, which is null.
            let sent = unsafe {
                libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), number, std::ptr::null::<()>(), 0)
            };
            return Errno::result(sent).map(drop);
        }
        super::signal::kill(self.pid, number)
    }

    /// The wait status of a process that ended and is not ours to wait for; `None` where the kernel does not tell. To
    /// be asked once.
    ///
    /// Linux tells it of a zombie to whoever may trace it, and after that from 6.15 on.
    #[cfg(target_os = "linux")]
    pub fn exit_status(&self) -> Option<WaitStatus> {
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

        let zombie = procfs::process::Process::new(self.pid.as_raw()).and_then(|p| p.stat());
        if let Ok(stat) = zombie
            && stat.state == 'Z'
        {
            return stat.exit_code.map(WaitStatus::from_raw);
        }
        let mut info = Info { mask: EXIT, ..Info::default() };
        // SAFETY: the request encodes the size of the struct that the pointer leads to.
        let got = unsafe { libc::ioctl(self.fd()?.as_raw_fd(), PIDFD_GET_INFO as _, &mut info) };
        (got == 0 && info.mask & EXIT != 0).then(|| WaitStatus::from_raw(info.exit_code))
    }

    /// The wait status of a process that ended and is not ours to wait for; `None` where the kernel does not tell. To
    /// be asked once.
    #[cfg(not(target_os = "linux"))]
    pub fn exit_status(&self) -> Option<WaitStatus> {
        use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent};
        let mut list = [KEvent::new(0, EventFilter::EVFILT_PROC, EvFlags::empty(), FilterFlag::empty(), 0, 0 as _)];
        // SAFETY: timespec is a plain C struct for which all zeros is a valid value: no wait.
        let now = unsafe { std::mem::zeroed() };
        let got = self.fd.as_ref()?.kevent(&[], &mut list, Some(now)).ok()?;
        (got == 1).then(|| WaitStatus::from_raw(list[0].data() as i32))
    }
}

/// The process of a pidfd; `None` if it is none, or its process is gone or out of sight.
pub fn of_pidfd(pidfd: BorrowedFd<'_>) -> Option<Pid> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}\0", pidfd.as_raw_fd());
    let mut buffer = [0; 512];
    let info = super::fd::read_file(std::ffi::CStr::from_bytes_with_nul(path.as_bytes()).ok()?, &mut buffer).ok()?;
    let number = info.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?.trim_ascii();
    crate::text::parse_u32(number).filter(|&pid| pid > 0).map(|pid| Pid::from_raw(pid as i32))
}

/// The inode of a process's pidfd, which no other process ever has; `None` where there are no such (Linux before 6.9
/// gives all of them one number, which says nothing).
pub fn pidfd_inode(pid: Pid) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let watch = Watch::open(pid).ok()?;
        Some(nix::sys::stat::fstat(watch.fd()?).ok()?.st_ino)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = pid;
        None
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

/// Whether orphans come to a subreaper and it can list all that descends from it. Elsewhere only a pid file leads to
/// a daemon, and only its own death is known.
pub const KNOWS_DESCENDANTS: bool = cfg!(any(target_os = "linux", target_os = "freebsd"));

/// Whether `pid` descends from this process.
pub fn is_descendant(pid: Pid) -> bool {
    descends_past(pid, &[])
}

/// How deep a process may be below us: far more than any daemon, and an end to a walk through a changing table.
#[cfg(target_os = "linux")]
const DEEPEST: usize = 1024;

/// Whether the chain of parents leads from `pid` to this process without touching one of `others`.
#[cfg(target_os = "linux")]
pub fn descends_past(pid: Pid, others: &[Pid]) -> bool {
    let here = nix::unistd::getpid();
    let mut at = pid;
    for _ in 0..DEEPEST {
        match look_up(at) {
            _ if others.contains(&at) => return false,
            Some(entry) if entry.parent == here => return true,
            Some(entry) if entry.parent.as_raw() > 1 => at = entry.parent,
            _ => return false,
        }
    }
    false
}

/// Whether `pid` descends from this process, and not by way of a child among `others`, nor as one of them.
#[cfg(target_os = "freebsd")]
pub fn descends_past(pid: Pid, others: &[Pid]) -> bool {
    descendants(others).iter().any(|entry| entry.pid == pid)
}

/// Whether `pid` is alive and none of `others`: parents cannot be looked up, the pid file's word is all there is.
#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
pub fn descends_past(pid: Pid, others: &[Pid]) -> bool {
    pid != nix::unistd::getpid() && !others.contains(&pid) && look_up(pid).is_some()
}

/// All live processes that descend from this one, in no order, but for `others` and what descends from them. Looked at
/// again after killing, it catches those that forked meanwhile.
#[cfg(not(target_os = "freebsd"))]
pub fn descendants(others: &[Pid]) -> Vec<Entry> {
    let table = all();
    let mut family = vec![nix::unistd::getpid()];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        next += 1;
        for entry in table.iter().filter(|e| e.parent == parent && !others.contains(&e.pid)) {
            family.push(entry.pid);
            if entry.alive {
                found.push(*entry);
            }
        }
    }
    found
}

/// All live processes that descend from this reaper, in no order, but for `others` and what descends from children
/// among them. The parent of a deeper one is given as the child by way of which it descends.
#[cfg(target_os = "freebsd")]
pub fn descendants(others: &[Pid]) -> Vec<Entry> {
    /// struct procctl_reaper_pidinfo of sys/procctl.h.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Info {
        pid: libc::pid_t,
        subtree: libc::pid_t,
        flags: libc::c_uint,
        padding: [libc::c_uint; 15],
    }
    /// struct procctl_reaper_pids.
    #[repr(C)]
    struct Request {
        count: libc::c_uint,
        padding: [libc::c_uint; 15],
        list: *mut Info,
    }
    const VALID: libc::c_uint = 1;
    const CHILD: libc::c_uint = 2;
    const ZOMBIE: libc::c_uint = 8;

    let here = nix::unistd::getpid();
    // More than any daemon has; those beyond are seen when these are gone.
    let mut list = vec![Info::default(); 4096];
    let mut request = Request { count: 4096, padding: [0; 15], list: list.as_mut_ptr() };
    // SAFETY: the request leads to a live array of as many elements as it says.
    let got =
        unsafe { libc::procctl(libc::P_PID, here.as_raw().into(), libc::PROC_REAP_GETPIDS, (&raw mut request).cast()) };
    if got != 0 {
        return Vec::new();
    }
    list.iter()
        .take_while(|info| info.flags & VALID != 0)
        .filter(|info| info.flags & ZOMBIE == 0)
        .filter(|info| others.iter().all(|o| o.as_raw() != info.pid && o.as_raw() != info.subtree))
        .map(|info| Entry {
            pid: Pid::from_raw(info.pid),
            parent: if info.flags & CHILD != 0 { here } else { Pid::from_raw(info.subtree) },
            alive: true,
        })
        .collect()
}
