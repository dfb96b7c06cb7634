//! Starting run and finish: what they are given, and what of the service directory decides it
//! (spec/supervision.md 3.2, 3.3).

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::servicedir::files::{self, Names};
use crate::sys::cptr::CPtr;
use crate::sys::spawn::{OwnPid, Redirect, Session, Spawn};
use crate::sys::wait::WaitStatus;
use crate::sys::{Errno, Pid, env, fd, lock};
use crate::text;
use crate::warn;

/// How long finish may run if `timeout-finish` does not say.
const FINISH: Duration = Duration::from_millis(5000);

/// Why run was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// It may work later.
    Failed,
    /// The directory forbids it until somebody changes it.
    Refused,
}

/// How the service says that it is ready.
#[derive(Debug)]
pub enum Readiness {
    /// Not at all.
    Never,
    /// By a newline on this pipe.
    Newline(OwnedFd),
    /// By having forked: its main process is ready when it is found.
    MainFound,
}

/// A run that was started.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub pid: Pid,
    /// What to wait for.
    pub readiness: Readiness,
}

/// What run is given, beyond what the files read here say.
#[derive(Clone, Copy)]
pub struct Extras<'a> {
    /// Its environment, with end mark.
    pub env: &'a [CPtr<'a>],
    /// What it fills in there.
    pub own_pid: &'a [OwnPid],
    /// Descriptors.
    pub redirects: &'a [Redirect<'a>],
    /// How many numbers from 3 on are for such descriptors only.
    pub reserved: u32,
    /// Where lost descriptors are to be recovered from, and under which name.
    pub restore: Option<(&'a CStr, &'a CStr)>,
}

impl Extras<'_> {
    /// What most services are given: the supervisor's own environment.
    pub fn none() -> Self {
        Extras { env: env::environ_list(), own_pid: &[], redirects: &[], reserved: 0, restore: None }
    }
}

/// Starts `./run` with the service directory, as given on our command line, for argument. Warns of what is wrong.
/// `forks`: the service has a pid file, and no use for a pipe.
pub fn start_run(
    directory: &CStr,
    descriptors: u64,
    names: Names,
    forks: bool,
    extras: &Extras<'_>,
) -> Result<Started, Failure> {
    let descriptor = |file| descriptor(file, names.number(file)?, descriptors, extras.reserved);
    let (lock_fd, notification_fd) = (descriptor(c"lock-fd"), descriptor(c"notification-fd"));
    if lock_fd.is_some() && lock_fd == notification_fd {
        warn!("not starting the service: notification-fd and lock-fd are the same descriptor");
        return Err(Failure::Refused);
    }
    let pipe = match notification_fd.filter(|_| !forks).map(|number| (number, fd::pipe_to_poll())) {
        None => None,
        Some((number, Ok((reader, writer)))) => Some((number, reader, writer)),
        Some((_, Err(errno))) => {
            warn!(errno => "unable to make the notification pipe");
            return Err(Failure::Failed);
        }
    };
    if lock_fd.is_some() {
        look_at_service_lock()?;
    }

    let number = text::decimal(lock_fd.unwrap_or(0) as u64);
    let lock = [c"s6-setlock", c"-d", number.as_c_str(), c"--", c"supervise/service-lock"];
    let (holder, name) = extras.restore.unwrap_or_default();
    let restore = [c"s6-fdstore-restore", c"--", holder, name];
    let words = lock.into_iter().filter(|_| lock_fd.is_some());
    let words = words.chain(restore.into_iter().filter(|_| extras.restore.is_some()));
    let mut argv = [CPtr::NULL; 12];
    let mut count = 0;
    for word in words.chain([c"./run", directory]) {
        argv[count] = CPtr::new(word);
        count += 1;
    }
    let redirect = pipe.as_ref().map(|(number, _, writer)| Redirect::new(writer.as_fd(), *number));
    let all: Vec<Redirect<'_>>;
    let redirects = match extras.redirects {
        [] => redirect.as_slice(),
        stored => {
            all = stored.iter().copied().chain(redirect).collect();
            &all
        }
    };
    let spawn = Spawn {
        env: extras.env,
        own_pid: extras.own_pid,
        redirects,
        session: Session::New,
        new_pid_namespace: names.exists(c"flag-newpidns"),
        ..Spawn::new(&argv[..=count])
    };
    match spawn.start() {
        Ok(pid) => {
            let readiness = match pipe {
                Some((_, reader, _)) => Readiness::Newline(reader),
                None if notification_fd.is_some() => Readiness::MainFound,
                None => Readiness::Never,
            };
            Ok(Started { pid, readiness })
        }
        Err(errno) => {
            warn!(errno => "unable to start ", spawn.file, files::obstacle(spawn.file, errno), ", trying again in a minute");
            Err(Failure::Failed)
        }
    }
}

/// The descriptor number in one of the small files, if it can be used: not 0, one that a process here may have, and
/// none that is for the `reserved` descriptors from 3 on.
fn descriptor(file: &CStr, number: u32, descriptors: u64, reserved: u32) -> Option<i32> {
    if (3..3 + u64::from(reserved)).contains(&number.into()) {
        warn!("ignoring ", file, ": descriptor ", text::decimal(number), " is among those that fdstore-max reserves");
        return None;
    }
    if number == 0 || u64::from(number) >= descriptors || number > i32::MAX as u32 {
        warn!("ignoring ", file, ": ", text::decimal(number), " is not a usable descriptor");
        return None;
    }
    Some(number as i32)
}

/// Empties `supervise/service-lock` and warns if somebody holds it: the service will then wait for it.
fn look_at_service_lock() -> Result<(), Failure> {
    let path = c"supervise/service-lock";
    let look = || {
        let file = fd::open_file(path, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o666)?;
        if nix::sys::stat::fstat(&file)?.st_size != 0 {
            warn!(path, " was written to, emptying it");
            nix::unistd::ftruncate(&file, 0)?;
        }
        if lock::is_locked(&file)? {
            warn!("another process holds ", path, ": the service will wait for it");
        }
        Ok(())
    };
    look().map_err(|errno: Errno| {
        warn!(errno => "unable to prepare ", path);
        Failure::Failed
    })
}

/// A finish that was started.
#[derive(Debug)]
pub struct Finishing {
    /// Its process.
    pub pid: Pid,
    /// How long it may run.
    pub limit: Option<Duration>,
}

/// Starts `./finish`, with this environment, for a run that was process `run` and ended with `status`; `None` if there
/// is none that can run.
pub fn start_finish(
    directory: &CStr,
    names: Names,
    env: &[CPtr<'_>],
    run: i32,
    status: WaitStatus,
) -> Option<Finishing> {
    if !names.exists(c"finish") {
        return None;
    }
    let code = text::decimal(status.code().map_or(256u64, u64::from));
    let signal = text::decimal(status.signal().unwrap_or(0));
    let run = text::decimal(run as u64);
    let argv = [
        CPtr::new(c"finish"),
        CPtr::new(code.as_c_str()),
        CPtr::new(signal.as_c_str()),
        CPtr::new(directory),
        CPtr::new(run.as_c_str()),
        CPtr::NULL,
    ];
    let spawn = Spawn { file: c"./finish", env, session: Session::New, ..Spawn::new(&argv) };
    match spawn.start() {
        Ok(pid) => Some(Finishing { pid, limit: files::limit(c"timeout-finish", Some(FINISH)) }),
        Err(Errno::ENOENT) if !files::exists(spawn.file) => None,
        Err(errno) => {
            warn!(errno => "unable to start ./finish", files::obstacle(spawn.file, errno), ", going on without it");
            None
        }
    }
}
