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

/// Whether orphans are given to this process: process 1, or a subreaper. Where that cannot be told, yes.
pub fn adopts_orphans() -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut subreaper: libc::c_int = 1;
        // SAFETY: PR_GET_CHILD_SUBREAPER writes one int through a valid pointer.
        let _ = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper, 0, 0, 0) };
        nix::unistd::getpid().as_raw() == 1 || subreaper != 0
    }
    #[cfg(not(target_os = "linux"))]
    true
}

/// Changes the real group and user of this process, but not the effective ones. EPERM for who may not.
pub fn set_real_ids(uid: nix::unistd::Uid, gid: nix::unistd::Gid) -> Result<(), Errno> {
    // SAFETY: both take integers; -1 leaves the effective id as it is.
    unsafe {
        super::check(libc::setregid(gid.as_raw(), libc::gid_t::MAX))?;
        super::check(libc::setreuid(uid.as_raw(), libc::uid_t::MAX)).map(drop)
    }
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
        match pidfd_open(pid) {
            Ok(fd) => Ok(Watch { pid, fd: Some(fd) }),
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

        if let Some(Stat { state: b'Z', exit, .. }) = read_stat(self.pid).filter(|_| has_own_table()) {
            return Some(exit);
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

/// A new pidfd. ESRCH when there is no such process (any more); ENOSYS, or EPERM in old containers, before Linux 5.3.
#[cfg(target_os = "linux")]
pub fn pidfd_open(pid: Pid) -> Result<std::os::fd::OwnedFd, Errno> {
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: pidfd_open takes two integers and returns a new descriptor, close-on-exec by definition.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel just made this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
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

/// What /proc/PID/stat says.
#[cfg(target_os = "linux")]
struct Stat {
    state: u8,
    parent: Pid,
    threads: u32,
    /// Of a zombie, for those who may trace it; 0 for all others.
    exit: WaitStatus,
}

#[cfg(target_os = "linux")]
fn read_stat(pid: Pid) -> Option<Stat> {
    /// Numbers after the name in parentheses: the state is the first, the exit code the last of 50.
    const THREADS: usize = 17;
    const EXIT: usize = 49;
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let mut path = [0; 32];
    let digits = crate::text::decimal(pid.as_raw().unsigned_abs());
    let mut length = 0;
    for piece in [b"/proc/", digits.as_bytes(), b"/stat"] {
        path[length..length + piece.len()].copy_from_slice(piece);
        length += piece.len();
    }
    let path = std::ffi::CStr::from_bytes_until_nul(&path).ok()?;
    let mut buffer = [0; 1024];
    let text = super::fd::read_file(path, &mut buffer).ok()?;
    // The name may hold anything, also a parenthesis.
    let after_name = text.iter().rposition(|&b| b == b')')? + 2;
    let mut fields = text.get(after_name..)?.split(u8::is_ascii_whitespace);
    let state = *fields.next()?.first()?;
    let parent = Pid::from_raw(number(fields.next()?)?);
    let threads = fields.nth(THREADS - 2).and_then(number).unwrap_or(0).unsigned_abs();
    let exit = fields.nth(EXIT - THREADS - 1).and_then(number).unwrap_or(0);
    Some(Stat { state, parent, threads, exit: WaitStatus::from_raw(exit) })
}

#[cfg(target_os = "linux")]
fn read_entry(pid: Pid) -> Option<Entry> {
    let Stat { state, parent, threads, .. } = read_stat(pid)?;
    // The first thread may have ended without the others.
    let alive = !matches!(state, b'Z' | b'X') || threads > 1;
    Some(Entry { pid, parent, alive })
}

/// Whether /proc is there and tells of the processes by the numbers that we know them by. In a PID namespace it is that
/// of another one until somebody mounts one.
#[cfg(target_os = "linux")]
fn has_own_table() -> bool {
    use std::os::unix::ffi::OsStrExt;
    nix::fcntl::readlink(c"/proc/self")
        .is_ok_and(|number| crate::text::parse_u32(number.as_bytes()) == Some(std::process::id()))
}

/// Looks one process up; `None` when it is gone.
pub fn look_up(pid: Pid) -> Option<Entry> {
    #[cfg(target_os = "linux")]
    {
        read_entry(pid).filter(|_| has_own_table())
    }
    #[cfg(not(target_os = "linux"))]
    {
        super::signal::kill(pid, 0).ok()?;
        Some(Entry { pid, parent: Pid::from_raw(0), alive: true })
    }
}

/// All processes, where the system tells (Linux); none elsewhere.
pub fn all() -> Vec<Entry> {
    #[cfg(target_os = "linux")]
    {
        let mut list = Vec::new();
        if has_own_table() {
            let _ = super::dir::for_each(c"/proc", |name| {
                let number = crate::text::parse_u32(name.to_bytes()).and_then(|n| i32::try_from(n).ok());
                list.extend(number.and_then(|n| read_entry(Pid::from_raw(n))));
                Ok(())
            });
        }
        list
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// Whether orphans come to a subreaper. Elsewhere only a pid file leads to a daemon, and only its own death is known.
pub const KNOWS_SUBREAPERS: bool = cfg!(any(target_os = "linux", target_os = "freebsd"));

/// Whether all that descends from this process can be listed. If not, a subreaper still knows whether there is anything,
/// and which processes are its children.
pub fn knows_descendants() -> bool {
    #[cfg(target_os = "linux")]
    return has_own_table();
    #[cfg(not(target_os = "linux"))]
    KNOWS_SUBREAPERS
}

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
    // Our own children we know without a process table.
    !others.contains(&pid) && (super::wait::is_child(pid) || leads_to(pid, nix::unistd::getpid(), others))
}

/// Whether the chain of parents leads from `pid` to `ancestor`.
#[cfg(target_os = "linux")]
pub fn descends_from(pid: Pid, ancestor: Pid) -> bool {
    leads_to(pid, ancestor, &[])
}

/// Nobody's parents but our own can be looked up: whether `ancestor` is this process, and `pid` descends from it.
#[cfg(not(target_os = "linux"))]
pub fn descends_from(pid: Pid, ancestor: Pid) -> bool {
    ancestor == nix::unistd::getpid() && is_descendant(pid)
}

#[cfg(target_os = "linux")]
fn leads_to(pid: Pid, ancestor: Pid, others: &[Pid]) -> bool {
    let mut at = pid;
    for _ in 0..DEEPEST {
        match look_up(at) {
            _ if others.contains(&at) => return false,
            Some(entry) if entry.parent == ancestor => return true,
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::cli::argv;
    use crate::sys::fd;
    use crate::sys::poll::{self, PollFd};
    use crate::sys::spawn::{Redirect, Spawn};
    use crate::sys::wait;
    use std::os::fd::AsFd;

    /// A child that ends with code 7 when the descriptor is closed.
    fn child() -> (Pid, std::os::fd::OwnedFd) {
        let (reader, writer) = fd::pipe().unwrap();
        let words = argv([c"sh", c"-c", c"read line; exit 7"]);
        let redirects = [Redirect::new(reader.as_fd(), 0)];
        (Spawn { redirects: &redirects, ..Spawn::new(&words) }.start().unwrap(), writer)
    }

    #[test]
    fn a_child_is_seen_to_live_to_end_and_to_be_gone() {
        let (pid, lives) = child();
        let here = nix::unistd::getpid();
        let watch = Watch::open(pid).unwrap();
        assert_eq!(look_up(pid), Some(Entry { pid, parent: here, alive: true }));
        assert!(all().contains(&Entry { pid, parent: here, alive: true }));
        assert!(watch.is_alive() && is_descendant(pid) && !descends_past(pid, &[pid]));
        assert!(descendants(&[]).iter().any(|e| e.pid == pid) && !descendants(&[pid]).iter().any(|e| e.pid == pid));

        drop(lives);
        poll::wait(&mut [PollFd::maybe(watch.fd(), poll::IN)], None).unwrap();
        assert!(!watch.is_alive());
        assert_eq!(look_up(pid), Some(Entry { pid, parent: here, alive: false }));
        assert_eq!(watch.exit_status(), Some(WaitStatus::exited(7)));
        assert!(!descendants(&[]).iter().any(|e| e.pid == pid));

        assert_eq!(wait::wait_for(pid), Ok(WaitStatus::exited(7)));
        assert_eq!(look_up(pid), None);
        // Older kernels have forgotten it now; no kernel tells anything else.
        assert_eq!(watch.exit_status().unwrap_or(WaitStatus::exited(7)), WaitStatus::exited(7));
        assert_eq!(watch.kill(0), Err(Errno::ESRCH));
        assert_eq!(Watch::open(pid).err(), Some(Errno::ESRCH));
    }

    #[test]
    fn process_one_is_nobody_s_descendant() {
        assert!(look_up(Pid::from_raw(1)).is_some_and(|entry| entry.alive));
        assert!(!is_descendant(Pid::from_raw(1)) && !is_descendant(nix::unistd::getpid()));
    }
}
