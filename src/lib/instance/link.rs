//! Adding a service to a live scan directory: s6-svlink, and what s6-instance-create does with its copy
//! (spec/local-services-and-instances.md 7.1).

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::stat;
use nix::unistd::{symlinkat, unlink};

use crate::cli::Value;
use crate::error::{Die, OrDie, SYSTEM, TIMEOUT, USAGE};
use crate::events::fifodir::{self, Access, join};
use crate::events::subscription::Subscription;
use crate::instance::turn::check_interruption;
use crate::servicedir::control::{self, Failure};
use crate::servicedir::files;
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, dir, fd};
use crate::{die, warn};

/// The control directory of a scanner.
pub const SCANNER: &str = ".s6-svscan";
/// The control directory of a supervisor.
pub const SUPERVISOR: &str = "supervise";
/// The letter of a supervisor that starts.
const STARTED: u8 = b's';
/// How often a wait looks whether what it waits for can still come: a scanner that was killed says nothing.
const CHECK: Duration = Duration::from_secs(1);

/// What becomes of the service once its supervisor runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Start {
    /// Whatever its directory says.
    #[default]
    AsItIs,
    /// It stays down, until it is told to come up.
    DownNow,
    /// It stays down, also when it is supervised again.
    Down,
}

/// The options of s6-svlink and s6-instance-create.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    start: Start,
    force: bool,
    public: bool,
    limit: Option<Duration>,
}

impl Options {
    /// The letters with an argument.
    pub const WITH_VALUE: &'static str = "t";

    /// Takes an option; `false` if it is none of these.
    pub fn take(&mut self, letter: char, value: &Value) -> Result<bool, Die> {
        match letter {
            'd' => self.start = Start::DownNow,
            'D' => self.start = Start::Down,
            'f' => self.force = true,
            'P' => self.public = true,
            't' => self.limit = value.limit()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// When the time is up, if it starts now.
    pub fn deadline(&self) -> Option<Instant> {
        self.limit.map(|limit| Instant::now() + limit)
    }
}

/// Prepares this process for being interrupted, and for readers that vanish.
pub fn trap_signals() -> Result<(), Die> {
    fifodir::ignore_vanishing_readers();
    signal::trap(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).or_die("trap", "signals")
}

/// Refuses a scan directory that no scanner runs on: 111 if it cannot be examined, else 1.
pub fn check_scanner(scandir: &CStr) -> Result<(), Die> {
    match control::is_running(scandir, SCANNER) {
        Ok(true) => Ok(()),
        Ok(false) => Err(die!(1, "s6-svscan is not running on ", scandir)),
        failure => failure.or_die("look at the lock of the scanner on", scandir).map(drop),
    }
}

/// Whether a supervisor runs on a service directory. One that has never been supervised has no lock.
pub fn is_supervised(dir: &CStr) -> Result<bool, Errno> {
    match control::is_running(dir, SUPERVISOR) {
        Err(Errno::ENOENT) => Ok(false),
        other => other,
    }
}

/// A service directory, and its logger's.
#[derive(Debug)]
pub struct Service {
    dirs: Vec<CString>,
}

impl Service {
    /// The directories, if each can be run.
    pub fn examine(dir: &CStr) -> Result<Service, Die> {
        let can_be_run = |dir: &CStr| {
            let run = files::path(dir, "run");
            match stat(run.as_c_str()).or_die("look at", &run)?.st_mode & 0o100 {
                0 => Err(die!(USAGE, run, " is not executable")),
                _ => Ok(()),
            }
        };
        let log = files::path(dir, "log");
        let mut dirs = vec![dir.to_owned()];
        can_be_run(dir)?;
        match stat(log.as_c_str()) {
            Ok(found) if dir::is_directory(&found) => {
                can_be_run(&log)?;
                dirs.push(log);
            }
            Ok(_) => return Err(die!(USAGE, log, " is not a directory")),
            Err(Errno::ENOENT) => {}
            failure => failure.or_die("look at", &log).map(drop)?,
        }
        Ok(Service { dirs })
    }

    /// Whether it is supervised. A service without its logger, or the reverse, is neither (EINVAL).
    pub fn is_supervised(&self) -> Result<bool, Die> {
        let states: Result<Vec<bool>, Errno> = self.dirs.iter().map(|dir| is_supervised(dir)).collect();
        let states = states.or_die("look at the supervisor of", &self.dirs[0])?;
        if states.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(die!(SYSTEM, Errno::EINVAL => "only one of ", self.dirs[0], " and its logger is supervised"));
        }
        Ok(states[0])
    }
}

/// What there is to undo.
#[derive(Debug, Default)]
struct Made {
    downs: Vec<CString>,
    link: Option<CString>,
    commanded: bool,
}

/// A link to be made.
#[derive(Debug)]
pub struct Link<'a> {
    /// Where.
    pub scandir: &'a CStr,
    /// Its name.
    pub name: &'a CStr,
    /// Its text.
    pub target: &'a CStr,
    /// What it leads to.
    pub service: &'a Service,
    /// How.
    pub options: &'a Options,
    /// Until when.
    pub deadline: Option<Instant>,
}

impl Link<'_> {
    /// Makes the link and waits for the supervisors. What was made is removed on failure. To be called in one's
    /// [`Turn`](super::turn::Turn) for the name.
    pub fn make(&self) -> Result<(), Die> {
        let mut made = Made::default();
        let outcome = self.attempt(&mut made);
        if outcome.is_err() {
            made.undo(self);
        }
        outcome
    }

    fn attempt(&self, made: &mut Made) -> Result<(), Die> {
        let supervised = self.service.is_supervised()?;
        let mut subscriptions = Vec::new();
        if supervised {
            warn!(self.service.dirs[0], " is already supervised");
        } else {
            let access = if self.options.public { Access::Public } else { Access::Group(nix::unistd::getegid()) };
            for dir in &self.service.dirs {
                if self.options.start != Start::AsItIs {
                    made.down(dir)?;
                }
                let event = files::path(dir, "event");
                fifodir::make(&event, access, self.options.force).or_die("make", &event)?;
                subscriptions.push(Subscription::new(&event).or_die("subscribe to", &event)?);
            }
        }
        let link = join(self.scandir, self.name);
        match symlinkat(self.target, AT_FDCWD, link.as_c_str()) {
            Ok(()) => made.link = Some(link.clone()),
            Err(Errno::EEXIST) if supervised => {}
            failure => failure.or_die("make the link", &link)?,
        }
        command_scanner(self.scandir, b"a")?;
        made.commanded = true;
        await_letter(&mut subscriptions, STARTED, self.deadline, || check_scanner(self.scandir))?;
        if self.options.start == Start::DownNow {
            let down = files::path(&link, "down");
            match unlink(down.as_c_str()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                failure => failure.or_die("remove", &down)?,
            }
        }
        Ok(())
    }
}

impl Made {
    /// Makes an empty file `down`, unless there is one.
    fn down(&mut self, dir: &CStr) -> Result<(), Die> {
        let down = files::path(dir, "down");
        match fd::open_file(&down, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o666) {
            Ok(_) => self.downs.push(down),
            Err(Errno::EEXIST) => {}
            failure => failure.or_die("make", &down).map(drop)?,
        }
        Ok(())
    }

    /// The scanner is told first: it would start again the supervisors that end of it.
    fn undo(self, wanted: &Link<'_>) {
        if let Some(link) = &self.link {
            let _ = unlink(link.as_c_str());
            if self.commanded {
                let _ = control::send(wanted.scandir, SCANNER, b"a");
                for (dir, commands) in wanted.service.dirs.iter().zip([b"xd", b"xo"]) {
                    let _ = control::send(dir, SUPERVISOR, commands);
                }
            }
        }
        for down in &self.downs {
            let _ = unlink(down.as_c_str());
        }
    }
}

/// Writes commands to a scanner; exit code 1 if it does not run (any more).
pub fn command_scanner(scandir: &CStr, commands: &[u8]) -> Result<(), Die> {
    control::send(scandir, SCANNER, commands).map_err(|failure| match failure {
        Failure::NotListening => die!(1, "s6-svscan is not running on ", scandir),
        Failure::Broken => die!(SYSTEM, "something is wrong with ", scandir, "/", SCANNER),
        Failure::System(errno) => die!(SYSTEM, errno => "unable to control the scanner on ", scandir),
    })
}

/// Waits until `letter` has come from every subscription: 99 when the time is up.
fn await_letter(
    subscriptions: &mut [Subscription],
    letter: u8,
    deadline: Option<Instant>,
    mut check: impl FnMut() -> Result<(), Die>,
) -> Result<(), Die> {
    let mut heard = vec![false; subscriptions.len()];
    while heard.contains(&false) {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Err(die!(TIMEOUT, "timed out"));
        }
        let soon = Instant::now() + CHECK;
        listen(subscriptions, letter, &mut heard, deadline.map_or(soon, |d| d.min(soon)))?;
        check()?;
    }
    Ok(())
}

/// Waits until letters come or `until`; notes from which subscriptions `letter` has come.
pub fn listen(subscriptions: &mut [Subscription], letter: u8, heard: &mut [bool], until: Instant) -> Result<(), Die> {
    use std::os::fd::AsFd;
    let mut fds: Vec<PollFd> = subscriptions.iter().map(|s| PollFd::new(s.as_fd(), poll::IN)).collect();
    poll::wait(&mut fds, Some(until)).or_die("wait for", "events")?;
    check_interruption()?;
    for (subscription, heard) in subscriptions.iter_mut().zip(heard) {
        let mut letters = [0; 64];
        while let Ok(count @ 1..) = subscription.read(&mut letters) {
            *heard |= letters[..count].contains(&letter);
        }
    }
    Ok(())
}
