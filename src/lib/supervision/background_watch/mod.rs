//! s6-background-watch: follows a daemon that forks itself into the background as if it had not
//! (spec/forking-daemons.md, spec/events-and-fdholding.md 5).
//!
//! Two processes, so that a SIGKILL to either leaves nothing unsupervised. The *outer* one is what the supervisor
//! knows: it hands every signal on and ends with the other's code. The *inner* one is the subreaper that starts the
//! daemon and watches it. If the outer one vanishes, a pipe tells the inner one, which ends the daemon; if the inner
//! one vanishes, the daemon comes to the outer one, which does the same.

pub mod core;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use self::core::{Action, Core, Event};
use crate::cli::{Args, Long, Options};
use crate::error::{Die, Exit, OrDie, Program, SYSTEM, USAGE, exec_code, message};
use crate::supervision::background::{self, Clearance, Limit, Outcome, Search, Step, keep_members};
use crate::sys::poll::{self, PollFd};
use crate::sys::process::{self, KNOWS_SUBREAPERS, Watch};
use crate::sys::signal::{self, Signal};
use crate::sys::spawn::{self, Spawn};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{Errno, Pid, fd};
use crate::text::decimal;
use crate::{die, warn};

/// Runs a daemon that goes into the background, and ends when the daemon does, with its code.
pub const PROGRAM: Program =
    Program { name: "s6-background-watch", usage: "s6-background-watch [ -t timeout ] [ -d fd ] pidfile prog...", run };

const LONG: &[Long] = &[("timeout-ready", 't'), ("notification-fd", 'd')];

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "td", LONG);
    let (mut timeout, mut notification) = (None, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            // Unlike elsewhere 0 is no time at all; what is for ever elsewhere are weeks here.
            't' => timeout = Some(Duration::from_millis(value.u32()?.into())),
            'd' => notification = Some(value.u32()?),
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let pid_file = operands.get(0).ok_or_else(Die::usage)?;
    let prog = operands.from(1);
    if prog.is_empty() {
        return Err(Die::usage());
    }
    let notification = notification.map(notification_fd).transpose()?;

    fd::open_missing_standard().or_die("open", "/dev/null")?;
    subreaper()?;
    signal::trap_all().or_die("trap", "signals")?;
    // A reader that is gone, of the notification or of a message, is no business of the daemon's.
    signal::neutralise(Signal::SIGPIPE).or_die("trap", "signals")?;
    let (outer_lives, alive) = fd::pipe().or_die("make", "a pipe")?;
    match spawn::fork().or_die("fork", "")? {
        Some(inner) => {
            drop((outer_lives, notification));
            outer(inner)
        }
        None => {
            drop(alive);
            // A signal to the outer one's group must not take both at once.
            let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
            subreaper()?;
            Inner::start(pid_file, prog, timeout, notification, outer_lives)?.watch()
        }
    }
}

/// The descriptor that is to get the newline.
fn notification_fd(number: u32) -> Result<OwnedFd, Die> {
    match RawFd::try_from(number) {
        Ok(0..=2) => Err(die!(USAGE, "notification fd must be 3 or more")),
        Ok(number) => fd::inherited(number).or_die("use the notification fd", ""),
        Err(_) => Err(die!(SYSTEM, Errno::EBADF => "unable to use the notification fd")),
    }
}

fn subreaper() -> Result<(), Die> {
    match process::become_subreaper() {
        // There the kqueue tells of main's death, and nothing of the rest.
        Err(Errno::ENOSYS) if !KNOWS_SUBREAPERS => Ok(()),
        other => other.or_die("become", "a subreaper"),
    }
}

/// Hands signals on to the inner process, ends with its code, and ends its members if it could not.
fn outer(inner: Pid) -> Result<Exit, Die> {
    let status = loop {
        poll::wait(&mut [], None).or_die("poll", "")?;
        while let Some(number) = signal::take() {
            if number != libc::SIGCHLD {
                // Only this loop reaps it: its number is still its own.
                let _ = signal::kill(inner, number);
            }
        }
        let mut ended = None;
        while let Some((pid, status)) = wait::reap(Which::Any) {
            ended = ended.or((pid == inner).then_some(status));
        }
        if let Some(status) = ended {
            break status;
        }
    };
    if let Some(signal) = status.signal() {
        clear(Duration::ZERO)?;
        return Err(die!(SYSTEM, "the process that watched the daemon was killed by signal ", decimal(signal)));
    }
    if !keep_members() {
        clear(background::patience())?;
    }
    Ok(Exit::Code(status.code().unwrap_or(SYSTEM)))
}

/// Ends everything that descends from this process.
fn clear(patience: Duration) -> Result<(), Die> {
    let mut clearance = Clearance::new(Instant::now(), patience);
    while let Step::Wait(until) = clearance.step(Instant::now(), &[]) {
        poll::wait(&mut [], Some(until)).or_die("poll", "")?;
        while signal::take().is_some() {}
        while wait::reap(Which::Any).is_some() {}
    }
    Ok(())
}

/// The hands of the inner process.
struct Inner {
    core: Core,
    search: Search,
    limit: Limit,
    prog: &'static CStr,
    /// At end of file when the outer process is gone.
    outer_lives: Option<OwnedFd>,
    notification: Option<OwnedFd>,
    parent: Option<Pid>,
    main: Option<Watch>,
    clearance: Option<(Clearance, Instant)>,
    /// What to say at the end.
    complaint: Option<Vec<u8>>,
    end: Option<u8>,
}

impl Inner {
    fn start(
        pid_file: &'static CStr,
        prog: Args,
        timeout: Option<Duration>,
        notification: Option<OwnedFd>,
        outer_lives: OwnedFd,
    ) -> Result<Self, Die> {
        let name = prog.get(0).unwrap_or_default();
        let search = Search::prepare(pid_file.to_owned());
        let since = Instant::now();
        let parent = Spawn::new(prog.list())
            .start()
            .map_err(|errno| die!(exec_code(errno), errno => "unable to spawn ", name))?;
        Ok(Inner {
            core: Core::default(),
            search,
            limit: Limit { since, length: timeout },
            prog: name,
            outer_lives: Some(outer_lives),
            notification,
            parent: Some(parent),
            main: None,
            clearance: None,
            complaint: None,
            end: None,
        })
    }

    fn watch(mut self) -> Result<Exit, Die> {
        loop {
            if let Some(code) = self.end {
                return match self.complaint {
                    Some(complaint) => Err(Die::new(code, complaint, None)),
                    None => Ok(Exit::Code(code)),
                };
            }
            self.turn()?;
        }
    }

    /// One turn: signals before deaths, so that a daemon that was told to end is not thought to reload.
    fn turn(&mut self) -> Result<(), Die> {
        let seen = self.main.as_ref().and_then(Watch::fd).or(self.search.fd());
        let mut fds = [PollFd::maybe(self.outer_lives.as_ref(), poll::IN), PollFd::maybe(seen, poll::IN)];
        let deadline = [self.start_deadline(), self.search.deadline(), self.clearance.as_ref().map(|c| c.1)];
        poll::wait(&mut fds, deadline.into_iter().flatten().min()).or_die("poll", "")?;
        let [outer, seen] = fds.map(|fd| fd.ready());

        if outer {
            self.outer_lives = None;
            self.handle(Event::OuterGone);
        }
        while let Some(number) = signal::take() {
            if number != libc::SIGCHLD {
                self.handle(Event::Signal(number));
            }
        }
        let reaped = self.reap(seen);
        let now = Instant::now();
        if self.start_deadline().is_some_and(|at| at <= now) {
            self.handle(Event::LimitOver);
        }
        if self.search.deadline().is_some_and(|at| reaped || seen || at <= now) {
            self.look(now);
        }
        if self.clearance.as_ref().is_some_and(|&(_, at)| reaped || at <= now) {
            self.step(now);
        }
        Ok(())
    }

    fn start_deadline(&self) -> Option<Instant> {
        self.limit.length.filter(|_| self.core.is_starting()).and_then(|length| self.limit.since.checked_add(length))
    }

    /// Reaps every dead child, and whether there was one. The parent's end and main's count when all others are known.
    fn reap(&mut self, main_stirred: bool) -> bool {
        let (mut parent, mut main, mut any) = (None, None, false);
        while let Some((pid, status)) = wait::reap(Which::Any) {
            any = true;
            if self.parent == Some(pid) {
                parent = Some(status);
            } else if self.main.as_ref().is_some_and(|watch| watch.pid() == pid) {
                main = Some(status);
            } else {
                self.search.reaped(pid, status);
            }
        }
        if main.is_none() && main_stirred {
            // Somebody else's child: only the kernel may know how it ended.
            main = self.main.as_ref().map(|watch| watch.exit_status().unwrap_or_default());
        }
        if let Some(status) = parent {
            self.parent = None;
            if status != WaitStatus::exited(0) {
                self.complaint = Some(failed_start(self.prog, status));
            }
            self.handle(Event::ParentEnded(status));
        }
        if let Some(status) = main {
            self.main = None;
            self.handle(Event::MainEnded { status, members_left: KNOWS_SUBREAPERS && wait::has_children() });
        }
        any
    }

    fn look(&mut self, now: Instant) {
        match self.search.look(now) {
            Outcome::Waiting => {}
            Outcome::Found(main) | Outcome::FellBack(main) => {
                self.main = Some(main);
                self.handle(Event::Found);
            }
            Outcome::NoMemberLeft(failure) | Outcome::Failed(failure) => {
                if !self.core.has_followed() {
                    self.complaint = Some(failure.message(self.search.pid_file()));
                }
                self.handle(Event::NoMain { code: failure.exit_code(), later: failure.status.estatus() });
            }
        }
    }

    fn step(&mut self, now: Instant) {
        if let Some((clearance, at)) = &mut self.clearance {
            match clearance.step(now, &[]) {
                Step::Wait(again) => *at = again,
                Step::Done => {
                    self.clearance = None;
                    self.handle(Event::Cleared);
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match self.core.handle(event) {
            None => {}
            Some(Action::Send(number)) => match &self.main {
                Some(main) => drop(main.kill(number)),
                None => self.search.signal(self.parent, number),
            },
            Some(Action::KillParent) => {
                warn!(self.prog, " is not in the background in time, killing it");
                if let Some(parent) = self.parent {
                    let _ = signal::kill(parent, libc::SIGKILL);
                }
            }
            Some(Action::Search) => {
                self.search.parent_exited(Instant::now(), self.limit);
            }
            Some(Action::SearchAgain) => self.search.main_exited(Instant::now(), self.limit.length),
            Some(Action::Notify) => {
                if let Some(notification) = self.notification.take() {
                    let _ = fd::write(notification.as_fd(), b"\n");
                }
            }
            Some(Action::Clear { may_keep: true, .. }) if keep_members() => self.handle(Event::Cleared),
            Some(Action::Clear { patience, .. }) => {
                let now = Instant::now();
                self.search.give_up();
                self.clearance = Some((Clearance::new(now, patience.min(background::patience())), now));
            }
            Some(Action::Exit { code, remove_file }) => {
                if remove_file {
                    background::remove(self.search.pid_file());
                }
                self.end = Some(code);
            }
        }
    }
}

/// Why there is no daemon when the parent did not exit with code 0.
fn failed_start(prog: &CStr, status: WaitStatus) -> Vec<u8> {
    match (status.signal(), status.code()) {
        (Some(signal), _) => message(&[&prog, &" was killed by signal ", &decimal(signal)]),
        (None, code) => message(&[&prog, &" exited with code ", &decimal(code.unwrap_or(0))]),
    }
}
