//! Making a child that executes another program, with nothing but what is listed.
//!
//! On Linux the child borrows this process's memory until it executes (clone with CLONE_VM and CLONE_VFORK on a
//! stack of its own): half the cost of fork, and a failed exec is known at once, without a pipe. Elsewhere fork
//! and a close-on-exec pipe do the same. The child runs `Child::become_program`, which neither allocates nor
//! takes locks.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::cptr::CPtr;
use super::exec;
use super::signal;
use super::{Errno, Pid};

/// Descriptor `from` of this process becomes descriptor `to` of the child.
#[derive(Clone, Copy)]
pub struct Redirect<'a> {
    from: BorrowedFd<'a>,
    to: RawFd,
}

impl<'a> Redirect<'a> {
    /// `from` here, `to` there.
    pub fn new(from: BorrowedFd<'a>, to: RawFd) -> Self {
        Redirect { from, to }
    }
}

/// `NAME=pid` for the environment of a child, which writes its number in by itself: only it knows in time, and in a new
/// PID namespace its number is not the one that the parent sees.
#[derive(Debug)]
pub struct OwnPid {
    text: UnsafeCell<[u8; OwnPid::SIZE]>,
    /// Bytes of `NAME=`.
    prefix: usize,
}

impl OwnPid {
    const SIZE: usize = 32;
    /// Digits of the highest process number, and a NUL.
    const DIGITS: usize = 11;

    /// For a variable of this name, of at most 20 characters.
    pub fn new(name: &str) -> OwnPid {
        let mut text = [0; OwnPid::SIZE];
        let prefix = name.len() + 1;
        assert!(prefix + OwnPid::DIGITS <= OwnPid::SIZE, "too long a name");
        text[..prefix - 1].copy_from_slice(name.as_bytes());
        text[prefix - 1] = b'=';
        OwnPid { text: UnsafeCell::new(text), prefix }
    }

    /// The entry of the environment. What comes after the `=` is for the child alone to see.
    pub fn entry(&self) -> CPtr<'_> {
        // SAFETY: the array ends with a NUL, and lives as long as self is borrowed.
        unsafe { CPtr::from_raw(self.text.get().cast()) }
    }

    /// In the child: writes its number. Async-signal-safe.
    fn fill(&self) {
        let digits = crate::text::decimal(nix::unistd::getpid().as_raw() as u64);
        let digits = digits.as_c_str().to_bytes_with_nul();
        // SAFETY: nobody borrows the text: it is only ever given out as a raw pointer. The digits of a process number
        // fit, as new() has made sure.
        unsafe {
            let place = self.text.get().cast::<u8>().add(self.prefix);
            place.copy_from_nonoverlapping(digits.as_ptr(), digits.len().min(OwnPid::DIGITS));
        }
    }
}

/// Which session and process group the child is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Session {
    /// Those of this process.
    #[default]
    Inherit,
    /// A new session: session, group and process id are equal.
    New,
}

/// What to run, and what it inherits. Standard descriptors are inherited unless redirected; everything else only
/// if redirected, since every descriptor of ours is close-on-exec. The child has an empty signal mask and default
/// dispositions for every signal that this process trapped.
#[derive(Clone, Copy)]
pub struct Spawn<'a> {
    /// The file to execute: as it is if it contains a slash, else looked up in this process's PATH.
    pub file: &'a CStr,
    /// argv, with its end mark.
    pub argv: &'a [CPtr<'a>],
    /// Environment, with its end mark.
    pub env: &'a [CPtr<'a>],
    /// Entries of `env` that the child fills with its own number.
    pub own_pid: &'a [OwnPid],
    /// Descriptors that are moved, to different numbers.
    pub redirects: &'a [Redirect<'a>],
    /// Session of the child.
    pub session: Session,
    /// Directory to change to first.
    pub directory: Option<&'a CStr>,
    /// Whether the child gets a new PID namespace (Linux; elsewhere ENOSYS).
    pub new_pid_namespace: bool,
    /// The child does not get descriptors from this number on, or above the last that is redirected, whatever their
    /// flags, not even until it executes: a start costs time for each that it gets. Only if [`can_leave_behind`].
    pub leave_behind: Option<RawFd>,
}

impl<'a> Spawn<'a> {
    /// Runs `argv[0]` with this process's environment.
    pub fn new(argv: &'a [CPtr<'a>]) -> Self {
        Spawn {
            file: argv.first().and_then(|p| p.get()).unwrap_or(c""),
            argv,
            env: super::env::environ_list(),
            own_pid: &[],
            redirects: &[],
            session: Session::Inherit,
            directory: None,
            new_pid_namespace: false,
            leave_behind: None,
        }
    }

    /// Starts the child. An error of any step in it, exec included, is this call's error, and no child is left.
    pub fn start(&self) -> Result<Pid, Errno> {
        let (mut few, mut many) = ([0; FEW], Vec::new());
        let sources = match few.get_mut(..self.redirects.len()) {
            Some(few) => few,
            None => {
                many.resize(self.redirects.len(), 0);
                &mut many[..]
            }
        };
        sources.iter_mut().zip(self.redirects).for_each(|(source, redirect)| *source = redirect.from.as_raw_fd());
        // Nothing may be delivered to the child before it has dropped our handlers: it shares our memory.
        let before = signal::SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?;
        let result = make_child(&mut Child {
            spawn: self,
            sources,
            search_path: exec::search_path(),
            #[cfg(target_os = "linux")]
            failure: None,
        });
        before.thread_set_mask()?;
        result
    }
}

/// Whether the kernel can make a child with a part of the descriptors only (Linux 5.9). For a process of one thread.
pub fn can_leave_behind() -> bool {
    own_descriptors_below(RawFd::MAX).is_ok()
}

/// Gives this process descriptors of its own, if it shares them, and of those only the ones below `first`.
#[cfg(target_os = "linux")]
fn own_descriptors_below(first: RawFd) -> Result<(), Errno> {
    const CLOSE_RANGE_UNSHARE: libc::c_uint = 1 << 1;
    // SAFETY: close_range takes three integers. No descriptor has the number that can_leave_behind gives, and what a
    // child leaves behind stays open in the parent.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_UNSHARE) };
    Errno::result(closed).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn own_descriptors_below(_: RawFd) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Redirects that take no memory from the heap.
const FEW: usize = 8;

/// What the child works from.
struct Child<'a> {
    spawn: &'a Spawn<'a>,
    /// Where the redirected descriptors are, as the child moves them.
    sources: &'a mut [RawFd],
    search_path: &'static [u8],
    /// Why the child could not become the program; it writes this into our memory.
    #[cfg(target_os = "linux")]
    failure: Option<Errno>,
}

impl Child<'_> {
    /// Runs in the child; returns only on failure.
    fn become_program(&mut self) -> Errno {
        let spawn = self.spawn;
        // Before all else: until this is done, the descriptors are the parent's.
        if let Some(first) = spawn.leave_behind
            && let Err(errno) =
                own_descriptors_below(self.sources.iter().fold(first, |first, &source| first.max(source + 1)))
        {
            return errno;
        }
        if spawn.session == Session::New {
            let _ = nix::unistd::setsid();
        }
        if let Some(directory) = spawn.directory
            && let Err(errno) = nix::unistd::chdir(directory)
        {
            return errno;
        }
        if let Err(errno) = redirect(spawn.redirects, self.sources) {
            return errno;
        }
        spawn.own_pid.iter().for_each(OwnPid::fill);
        signal::reset_in_child();
        exec::exec_in(self.search_path, spawn.file, spawn.argv, spawn.env)
    }
}

/// Moves the descriptors, one after the other. What is still needed at a place that is overwritten is first copied out
/// of the way, above every number in the list; such copies are close-on-exec.
fn redirect(list: &[Redirect<'_>], sources: &mut [RawFd]) -> Result<(), Errno> {
    let above = list.iter().map(|redirect| redirect.to).max().unwrap_or(0) + 1;
    for (i, &Redirect { to, .. }) in list.iter().enumerate() {
        let (now, later) = sources.split_at_mut(i + 1);
        if now[i] == to {
            super::fd::set_cloexec(to, false)?;
            continue;
        }
        if later.contains(&to) {
            // SAFETY: F_DUPFD_CLOEXEC touches no memory.
            let copy = Errno::result(unsafe { libc::fcntl(to, libc::F_DUPFD_CLOEXEC, above) })?;
            later.iter_mut().filter(|source| **source == to).for_each(|source| *source = copy);
        }
        duplicate_to(now[i], to)?;
    }
    Ok(())
}

fn duplicate_to(from: RawFd, to: RawFd) -> Result<(), Errno> {
    // SAFETY: dup2 touches no memory.
    Errno::result(unsafe { libc::dup2(from, to) }).map(drop)
}

/// Makes a child that goes on in this program where it is: `None` in the child, its pid in the parent. Descriptors are
/// shared, so each side drops what is the other's.
pub fn fork() -> Result<Option<Pid>, Errno> {
    // SAFETY: the process has one thread, so the child may run ordinary code.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
    }
}

/// The child's stack. It is a part of ours, and a page that is touched once stays: a supervisor, which executes
/// `./run`, gets by with less than a page; the search through PATH needs its buffer.
#[cfg(target_os = "linux")]
fn make_child(child: &mut Child<'_>) -> Result<Pid, Errno> {
    const FRAMES: usize = if cfg!(debug_assertions) { 32 * 1024 } else { 3 * 1024 };
    if child.spawn.file.to_bytes().contains(&b'/') {
        make_child_on::<FRAMES>(child)
    } else {
        make_child_on::<{ FRAMES + libc::PATH_MAX as usize }>(child)
    }
}

#[cfg(target_os = "linux")]
#[inline(never)]
fn make_child_on<const STACK: usize>(child: &mut Child<'_>) -> Result<Pid, Errno> {
    use std::mem::MaybeUninit;

    #[repr(align(16))]
    struct Stack<const STACK: usize>(MaybeUninit<[u8; STACK]>);

    extern "C" fn run(child: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent passed its Child and is suspended until this process executes or exits.
        let child = unsafe { &mut *child.cast::<Child<'_>>() };
        child.failure = Some(child.become_program());
        // SAFETY: ends this process only; runs no handlers of the parent's.
        unsafe { libc::_exit(127) }
    }

    /// Lies at the far end of the stack, and must still be there when the child is done with it.
    const MARK: u64 = 0x5afe_57ac_c0de_5afe;

    let mut stack = Stack::<STACK>(MaybeUninit::uninit());
    let bottom = stack.0.as_mut_ptr().cast::<u64>();
    let namespace = if child.spawn.new_pid_namespace { libc::CLONE_NEWPID } else { 0 };
    let descriptors = if child.spawn.leave_behind.is_some() { libc::CLONE_FILES } else { 0 };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespace | descriptors;
    // SAFETY: the stack is ours, aligned, and outlives the child's use of it, because CLONE_VFORK suspends this
    // process until the child has executed or exited; `run` gets the one pointer it expects. Every signal is
    // blocked, so no handler runs on the shared memory before the child has reset them.
    let (pid, mark) = unsafe {
        bottom.write_volatile(MARK);
        let top = bottom.cast::<u8>().add(STACK);
        let pid = libc::clone(run, top.cast(), flags, std::ptr::from_mut(child).cast());
        (pid, bottom.read_volatile())
    };
    assert_eq!(mark, MARK, "the child's stack is too small");
    let pid = Pid::from_raw(Errno::result(pid)?);
    match child.failure {
        None => Ok(pid),
        Some(errno) => {
            let _ = super::wait::wait_for(pid);
            Err(errno)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn make_child(child: &mut Child<'_>) -> Result<Pid, Errno> {
    use nix::unistd::ForkResult;

    if child.spawn.new_pid_namespace {
        return Err(Errno::ENOSYS);
    }
    let (reader, writer) = super::fd::pipe()?;
    // The report must not sit where a redirect lands.
    let highest = child.spawn.redirects.iter().map(|r| r.to).max().unwrap_or(2);
    let writer = super::fd::duplicate(&writer, highest + 1)?;
    // SAFETY: the process has one thread, so the child may run ordinary code; it only executes or exits.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => {
            let errno = child.become_program();
            let _ = super::fd::write_all(&writer, &(errno as i32).to_ne_bytes());
            super::entry::end(127)
        }
        ForkResult::Parent { child: pid } => {
            drop(writer);
            let mut report = [0; 4];
            match super::fd::read(&reader, &mut report) {
                Ok(4) => {
                    let _ = super::wait::wait_for(pid);
                    Err(Errno::from_raw(i32::from_ne_bytes(report)))
                }
                _ => Ok(pid),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{fd, wait};
    use super::*;
    use std::ffi::CString;
    use std::os::fd::{AsFd, OwnedFd};

    /// The child tells which of our files it has at each of these numbers; its answer.
    fn seen(redirects: &[Redirect<'_>], script: &CStr, own_pid: &[OwnPid], namespace: bool) -> Result<String, Errno> {
        let (reader, writer) = fd::pipe().unwrap();
        let mut list = redirects.to_vec();
        list.push(Redirect::new(writer.as_fd(), 1));
        let argv = [CPtr::new(c"sh"), CPtr::new(c"-c"), CPtr::new(script), CPtr::NULL];
        let env: Vec<CPtr<'_>> = own_pid.iter().map(OwnPid::entry).chain([CPtr::NULL]).collect();
        let (redirects, new_pid_namespace) = (&list[..], namespace);
        let spawn = Spawn { env: &env, own_pid, redirects, new_pid_namespace, ..Spawn::new(&argv) };
        let pid = spawn.start()?;
        drop(writer);
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = fd::read(&reader, &mut buffer) {
            answer.extend_from_slice(&buffer[..count]);
        }
        wait::wait_for(pid).unwrap();
        Ok(String::from_utf8(answer).unwrap().replace(&pid.to_string(), "PID"))
    }

    #[test]
    fn descriptors_arrive_at_their_places_whatever_was_there() {
        let base = tempfile::tempdir().unwrap();
        let files: Vec<OwnedFd> =
            (0..40).map(|n| std::fs::File::create(base.path().join(format!("f{n}"))).unwrap().into()).collect();
        // Places that are sources of others: turned around, shifted up, shifted down, and one file at two places.
        let first = files[0].as_raw_fd();
        let orders: [fn(usize) -> usize; 4] = [|i| 39 - i, |i| (i + 1) % 40, |i| (i + 39) % 40, |i| i / 2];
        for order in orders {
            let list: Vec<Redirect<'_>> =
                (0..40).map(|i| Redirect::new(files[order(i)].as_fd(), first + i as RawFd)).collect();
            let last = first + 39;
            let script = format!("n={first}; while [ $n -le {last} ]; do readlink /proc/self/fd/$n; n=$((n+1)); done");
            let answer = seen(&list, &CString::new(script).unwrap(), &[], false).unwrap();
            let names: Vec<&str> = answer.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
            assert_eq!(names, (0..40).map(|i| format!("f{}", order(i))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_left_behind_is_not_in_the_child_and_stays_in_the_parent() {
        const FIRST: RawFd = 500;
        let base = tempfile::NamedTempFile::new().unwrap();
        let high: Vec<OwnedFd> = (0..3).map(|_| fd::duplicate(base.as_file(), FIRST).unwrap()).collect();
        high.iter().for_each(|fd| fd::set_cloexec(fd.as_raw_fd(), false).unwrap());
        let (reader, writer) = fd::pipe().unwrap();
        for file in [c"/bin/sh", c"/nonexistent/program"] {
            let script = format!("for n in {FIRST} {} 1; do test -e /proc/self/fd/$n && echo $n; done", FIRST + 1);
            let script = CString::new(script).unwrap();
            let argv = [CPtr::new(c"sh"), CPtr::new(c"-c"), CPtr::new(&script), CPtr::NULL];
            let redirects = [Redirect::new(writer.as_fd(), 1)];
            let started = Spawn { file, redirects: &redirects, leave_behind: Some(FIRST), ..Spawn::new(&argv) }.start();
            match started {
                Ok(pid) => assert_eq!(wait::wait_for(pid).unwrap().code(), Some(0)),
                Err(Errno::ENOSYS) => return eprintln!("skipped: no close_range"),
                Err(errno) => assert_eq!((file, errno), (c"/nonexistent/program", Errno::ENOENT)),
            }
            assert!(high.iter().all(|fd| fd::is_open(fd.as_raw_fd())));
        }
        drop(writer);
        let mut answer = [0; 64];
        let count = fd::read(&reader, &mut answer).unwrap();
        assert_eq!(&answer[..count], b"1\n");
    }

    #[test]
    fn a_child_knows_its_own_number() {
        let own = [OwnPid::new("LISTEN_PID"), OwnPid::new("WATCHDOG_PID")];
        let script = c"echo $$ $LISTEN_PID $WATCHDOG_PID";
        assert_eq!(seen(&[], script, &own, false), Ok("PID PID PID\n".into()));
        match seen(&[], script, &own, true) {
            Ok(answer) => assert_eq!(answer, "1 1 1\n"),
            Err(errno) => eprintln!("skipped: no new PID namespace ({errno})"),
        }
    }
}
