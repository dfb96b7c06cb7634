//! s6-supervise: keeps one service running, and tells everybody who asks (spec/supervision.md 1 to 3).
//!
//! [`core`] decides; this file is the shell around it: one loop that waits for the notification pipe, signals, the
//! control fifo and the next deadline, in this order, and performs what the core says. [`forking`] and
//! [`notification`] are the shells of services with a `pidfile` and with a `notify-socket`; without those files they
//! cost nothing.

mod child;
pub mod core;
mod forking;
mod notification;
pub mod setup;

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;

use self::child::{Extras, Readiness};
use self::core::{Action, Command, Core, Event, Now, State, Target};
use self::forking::{Forking, News, group_of};
use self::notification::Notification;
use self::setup::Held;
use crate::cli::Args;
use crate::error::{self, Die, Exit, OK, OrDie, Program};
use crate::events::fifodir::{self, Notifier};
use crate::servicedir::files::{self, Names};
use crate::servicedir::status::Status;
use crate::servicedir::tally;
use crate::sys::cptr::CPtr;
use crate::sys::poll::{self, PollFd};
use crate::sys::process::Watch;
use crate::sys::signal::{self, Signal};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{env, fd};
use crate::tai::Tai64n;
use crate::{die, warn};

/// Supervises the service directory until told to leave.
pub const PROGRAM: Program = Program { name: "s6-supervise", usage: "s6-supervise servicedir", run };

const TALLY_FILE: &CStr = c"supervise/death_tally";
const TALLY_NEW: &CStr = c"supervise/death_tally.new";
/// Deaths that are remembered if `max-death-tally` does not say.
const TALLY: u32 = 100;
/// Command bytes that are read in one turn of the loop: a flood of them cannot keep signals waiting.
const COMMANDS: usize = 256;
/// Reads from the notification pipe of a dead service: as much as a pipe holds, and an end to what somebody else writes.
const LAST_WORDS: usize = 8192;
/// When a file that could not be written is tried again.
const STALE: Duration = Duration::from_secs(5);

fn run(args: Args) -> Result<Exit, Die> {
    let directory = args.operands().get(0).ok_or_else(Die::usage)?;
    nix::unistd::chdir(directory).or_die("enter the service directory", directory)?;
    error::set_context(directory);
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let held = setup::prepare()?;
    let mut shell = Shell::begin(directory, held)?;
    shell.handle(Event::Begin);
    while !shell.left {
        shell.show();
        shell.turn()?;
    }
    shell.show();
    Ok(OK)
}

/// The supervisor's hands.
struct Shell {
    core: Core,
    held: Held,
    event: Notifier,
    /// What was in the service directory in this turn, if somebody asked.
    names: Option<Names>,
    directory: &'static CStr,
    /// Soft limit on descriptors: what a number in `notification-fd` must be below.
    descriptors: u64,
    /// How the service will say that it is ready.
    readiness: Readiness,
    /// run or finish.
    child: Option<Pid>,
    /// Who run is, if it is one that forks.
    forking: Option<Forking>,
    /// What the service says and keeps here, if it is one that notifies.
    notification: Option<Box<Notification>>,
    /// Orphans come to us, and must be reaped.
    adopts: bool,
    /// The status file does not say what it should; try again then.
    stale: Option<Instant>,
    left: bool,
}

impl Shell {
    /// Traps signals, cleans what an earlier supervisor left, writes the first status.
    #[inline(never)] // As record_death.
    fn begin(directory: &'static CStr, held: Held) -> Result<Shell, Die> {
        fifodir::ignore_vanishing_readers();
        error::wait_for_no_reader();
        signal::trap(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGINT])
            .or_die("trap", "signals")?;
        if held.event_is_old
            && let Err(errno) = fifodir::clean(c"event")
        {
            warn!(errno => "unable to clean event");
        }
        tally::clear(TALLY_FILE).or_die("empty", TALLY_FILE)?;
        let names = Names::list();
        notification::begin(names);
        let core = Core::new(!names.exists(c"down"), Tai64n::now());
        let never_started = Status { paused: true, ..*core.status() };
        let mut shell = Shell {
            core,
            held,
            event: Notifier::new(c"event"),
            names: Some(names),
            directory,
            descriptors: fd::limit().unwrap_or(1024) as u64,
            readiness: Readiness::Never,
            child: None,
            forking: None,
            notification: None,
            adopts: false,
            stale: None,
            left: false,
        };
        shell.note(replace_status(&never_started));
        shell.notify("s");
        Ok(shell)
    }

    /// One turn: wait, then readiness before deaths before commands, so that a service that says it is ready and
    /// dies is seen to have been ready, and commands meet a state that is true.
    fn turn(&mut self) -> Result<(), Die> {
        let pipe = match &self.readiness {
            Readiness::Newline(pipe) => Some(pipe),
            Readiness::Never | Readiness::MainFound => None,
        };
        let mut fds = [
            PollFd::new(self.held.control.as_fd(), poll::IN),
            PollFd::maybe(pipe, poll::IN),
            PollFd::maybe(self.forking.as_ref().and_then(Forking::fd), poll::IN),
        ];
        let search = self.forking.as_ref().and_then(Forking::deadline);
        let deadline = [self.core.deadline(), search, self.stale].into_iter().flatten().min();
        let waited = match &mut self.notification {
            None => poll::wait(&mut fds, deadline).map(|()| (fds, false)),
            Some(notification) => notification.wait(fds, deadline),
        };
        let ([control, notification, _], messages) = waited.or_die("poll", "")?;
        self.names = None;

        if notification.readable() {
            self.read_notification();
        }
        if messages {
            self.read_messages(notification::TURN);
        }
        let mut signalled = false;
        while let Some(number) = signal::take() {
            signalled = true;
            self.signal(number);
        }
        if let Some(forking) = &mut self.forking {
            let news = forking.turn(self.core.status().wanted_up);
            self.news(news);
        }
        self.look_after_main();
        if !signalled && control.readable() {
            self.read_commands()?;
        }
        let now = Instant::now();
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.handle(Event::Timer);
        }
        if self.stale.is_some_and(|at| at <= now) {
            self.write_status();
        }
        Ok(())
    }

    /// Any chunk with a newline in it means ready; end of file without one means never.
    /// False if there is no more to read now.
    fn read_notification(&mut self) -> bool {
        let Readiness::Newline(pipe) = &self.readiness else { return false };
        let mut buffer = [0; 128];
        match fd::read(pipe, &mut buffer) {
            Ok(count) if buffer[..count].contains(&b'\n') => {
                // Closed when those who wait know.
                let _pipe = std::mem::replace(&mut self.readiness, Readiness::Never);
                self.handle(Event::Ready);
            }
            Err(Errno::EAGAIN) => return false,
            Ok(1..) => {}
            Ok(0) | Err(_) => self.readiness = Readiness::Never,
        }
        true
    }

    fn signal(&mut self, number: i32) {
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => self.reap(),
            Ok(Signal::SIGTERM) => self.handle(Event::Terminate),
            Ok(Signal::SIGHUP) => self.handle(Event::HangUp),
            Ok(Signal::SIGQUIT) => self.handle(Event::Quit),
            Ok(Signal::SIGINT) => self.handle(Event::Interrupt),
            _ => {}
        }
    }

    /// Takes the dead children, and says so if the service is among them.
    fn reap(&mut self) {
        while let Some((pid, status)) = self.reap_one() {
            if self.notification.as_mut().is_some_and(|notification| notification.reaped(pid, status)) {
                continue;
            }
            if let Some(forking) = &mut self.forking {
                let news = forking.reaped(pid, status, self.core.status().wanted_up);
                self.news(news);
            } else if self.main_process() == Some(pid) {
                self.died(status);
            } else if self.child == Some(pid) {
                // run, in whose place another process has come.
                self.child = None;
            }
        }
    }

    /// The child while there is one; anybody's zombie when there is none, or orphans come to us.
    fn reap_one(&mut self) -> Option<(Pid, WaitStatus)> {
        let which = if self.adopts { Which::Any } else { self.child.map_or(Which::Any, Which::One) };
        if self.notification.is_none() {
            return wait::reap(which);
        }
        // What it said counts, and as long as it is not reaped nobody else can have its number.
        let dead = wait::dead()?;
        self.read_last_words();
        wait::reap(Which::One(dead))
    }

    /// The service, or finish, has ended.
    fn died(&mut self, status: WaitStatus) {
        // A newline written just before the end was written before the end, whatever stands before it in the pipe.
        for _ in 0..LAST_WORDS {
            if !self.read_notification() {
                break;
            }
        }
        self.child = None;
        self.handle(Event::Died(status));
    }

    /// What became of a service that forks.
    fn news(&mut self, news: Option<News>) {
        match news {
            None => {}
            Some(News::Forked) => self.forked(),
            Some(News::MainIs(pid)) => {
                self.forked();
                self.handle(Event::MainIs(pid.as_raw()));
                if matches!(self.readiness, Readiness::MainFound) {
                    self.readiness = Readiness::Never;
                    self.handle(Event::Ready);
                }
            }
            Some(News::Ended(status)) => {
                self.forking = None;
                self.child = None;
                self.handle(Event::Died(status));
            }
        }
    }

    #[inline(never)] // As record_death.
    /// The time in which the daemon must appear is over; that in which it must say that it is ready may be not.
    fn forked(&mut self) {
        if self.notification.is_none() {
            self.handle(Event::Forked);
        }
    }

    fn read_commands(&mut self) -> Result<(), Die> {
        let mut buffer = [0; COMMANDS];
        match fd::read(&self.held.control, &mut buffer) {
            Ok(count) => {
                for command in buffer[..count].iter().filter_map(|&byte| Command::parse(byte)) {
                    match command {
                        // Behind x in one write: what the next supervisor is to do does not depend on their order.
                        Command::DownForGood | Command::OnceForGood if self.left => {
                            _ = self.perform(Action::CreateDown)
                        }
                        Command::UpForGood if self.left => _ = self.perform(Action::RemoveDown),
                        command => self.handle(Event::Command(command)),
                    }
                }
                Ok(())
            }
            Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(die!(111, errno => "unable to read supervise/control")),
        }
    }

    /// Lets the core decide, and does what it says until nothing is left to do.
    fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        let mut now = Now::read();
        while let Some(event) = next.take() {
            if self.left {
                return;
            }
            if matches!(event, Event::Started { .. } | Event::FinishStarted { .. }) {
                now = Now::read();
            }
            for &action in self.core.handle(now, event).iter() {
                next = self.perform(action).or(next);
            }
        }
        self.settle();
    }

    /// A service that is down and is to stay so may need its store no more.
    fn settle(&mut self) {
        if let Some(notification) = &mut self.notification
            && self.core.state() == State::Down
            && !self.core.status().wanted_up
        {
            notification.settled();
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start { again } => return Some(self.start(again)),
            Action::StartFinish { pid, status } => return Some(self.start_finish(pid, status)),
            Action::Send(Target::Process, number) => self.send(number),
            Action::Send(Target::Group, number) => self.send_group(number),
            Action::SendDown => self.send_down(files::signal(c"down-signal").unwrap_or(libc::SIGTERM)),
            Action::SendReload => {
                self.notification.iter_mut().for_each(|n| n.reloads());
                self.send(files::signal(c"reload-signal").unwrap_or(libc::SIGHUP));
            }
            Action::ArmKill => return Some(Event::KillAfter(files::limit(c"timeout-kill", None))),
            Action::KillService => {
                let group = files::exists(c"flag-timeout-killpg");
                for number in [libc::SIGKILL, libc::SIGCONT] {
                    if group { self.send_group(number) } else { self.send(number) }
                }
            }
            Action::KillFinish => {
                warn!("finish takes too long, killing it");
                self.send(libc::SIGCONT);
                self.send(libc::SIGKILL);
            }
            Action::NotReadyInTime => warn!("the service did not become ready in time, bringing it down"),
            Action::SendWatchdog => {
                warn!("the service does not work: it did not say so in time, or said that it does not");
                let file = files::extension(c"watchdog-signal", c"data/s6-rs/watchdog-signal");
                self.send(file.and_then(files::signal).unwrap_or(libc::SIGABRT));
                self.send(libc::SIGCONT);
            }
            Action::RecordDeath(stamp, status, outcome) => {
                record_death(stamp, status, self.names());
                self.notification.iter_mut().for_each(|n| n.died(outcome));
            }
            Action::EmptyStore => self.notification.iter_mut().for_each(|n| n.empty_store()),
            Action::RefuseToEmptyStore => {
                if self.notification.is_some() {
                    warn!("the service is up and relies on its stored descriptors: not emptying the store");
                }
            }
            Action::CloseNotification => self.readiness = Readiness::Never,
            Action::WriteStatus => {
                // Who sees that the service is down finds the store as it will be.
                self.settle();
                self.show();
                self.write_status();
            }
            Action::Notify(letters) => {
                self.show();
                self.notify(letters);
            }
            Action::CreateDown => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
                if let Err(errno) = fd::open_file(c"down", flags, 0o666) {
                    warn!(errno => "unable to make the file down");
                }
            }
            Action::RemoveDown => match nix::unistd::unlink(c"down") {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => warn!(errno => "unable to remove the file down"),
            },
            Action::CloseStdio => {
                for number in [0, 1] {
                    if let Err(errno) = fd::to_dev_null(number) {
                        warn!(errno => "unable to close a standard descriptor");
                    }
                }
            }
            Action::Leave => {
                let down = self.core.state() == State::Down;
                self.notification.iter_mut().for_each(|n| n.leave(down));
                self.notify("x");
                self.left = true;
            }
        }
        None
    }

    #[inline(never)] // As record_death.
    fn start(&mut self, again: bool) -> Event {
        if let Some(pause) = self.notification.as_mut().and_then(|notification| notification.end_leftovers(again)) {
            return Event::StartLater(pause);
        }
        let (names, directory, descriptors) = (self.names(), self.directory, self.descriptors);
        if notification::prepare(&mut self.notification, directory, descriptors, names).is_err() {
            return Event::StartFailed;
        }
        let search = forking::pid_file(names).map(forking::prepare);
        self.adopts |= search.is_some() || self.notification.is_some();
        let forks = search.is_some();
        let start = |extras: &Extras<'_>| child::start_run(directory, descriptors, names, forks, extras);
        let started = match &self.notification {
            None => start(&Extras::none()),
            Some(notification) => notification.give(start),
        };
        match started {
            Ok(started) => {
                self.child = Some(started.pid);
                self.readiness = started.readiness;
                let mut ready_within = None;
                if forks || self.notification.is_some() {
                    let file = files::extension(c"timeout-ready", c"data/s6-rs/timeout-ready");
                    ready_within = file.and_then(|file| files::limit(file, None));
                }
                self.forking = search.map(|search| Forking::begin(search, started.pid, ready_within));
                let ping_within = self.notification.as_mut().and_then(|notification| notification.started());
                Event::Started { pid: started.pid.as_raw(), ready_within, ping_within }
            }
            Err(child::Failure::Failed) => Event::StartFailed,
            Err(child::Failure::Refused) => Event::StartRefused,
        }
    }

    fn start_finish(&mut self, run: i32, status: WaitStatus) -> Event {
        let (names, directory) = (self.names(), self.directory);
        let start = |env: &[CPtr<'_>]| child::start_finish(directory, names, env, run, status);
        let finish = match &self.notification {
            None => start(env::environ_list()),
            Some(notification) => start(&notification.finish_environment().list()),
        };
        match finish {
            Some(finish) => {
                self.child = Some(finish.pid);
                Event::FinishStarted { pid: finish.pid.as_raw(), limit: finish.limit }
            }
            None => Event::NoFinish,
        }
    }

    fn names(&mut self) -> Names {
        *self.names.get_or_insert_with(Names::list)
    }

    /// The main process, if it is neither the one that was started nor one that was found.
    fn successor(&self) -> Option<&Watch> {
        self.notification.as_ref().and_then(|notification| notification.main())
    }

    /// A signal to the main process. Before it is reaped it is there, so an error is of no interest.
    fn send(&mut self, number: i32) {
        if let Some(forking) = &mut self.forking {
            forking.signal(number);
        } else if let Some(main) = self.successor() {
            let _ = main.kill(number);
        } else if let Some(pid) = self.child {
            let _ = signal::kill(pid, number);
        }
    }

    /// A signal to the main process that asks it to end.
    fn send_down(&mut self, number: i32) {
        match &mut self.forking {
            Some(forking) => forking.signal_down(number),
            None => self.send(number),
        }
    }

    fn send_group(&mut self, number: i32) {
        if let Some(forking) = &mut self.forking {
            forking.signal_group(number);
        } else if let Some(main) = self.successor() {
            match group_of(main.pid()) {
                Some(group) => drop(signal::kill_group(group, number)),
                None => drop(main.kill(number)),
            }
        } else if let Some(pid) = self.child {
            let _ = signal::kill_group(pid, number);
        }
    }

    fn notify(&mut self, letters: &str) {
        if let Err(errno) = self.event.notify(letters.as_bytes()) {
            warn!(errno => "unable to notify the listeners in event");
        }
    }

    /// Replaces the status file; if that cannot be, warns once and tries again every few seconds until it is true.
    fn write_status(&mut self) {
        self.note(replace_status(self.core.status()));
    }

    /// Notes what came of replacing the status file.
    fn note(&mut self, replaced: Result<(), Errno>) {
        match replaced {
            Ok(()) => self.stale = None,
            Err(errno) => {
                if self.stale.is_none() {
                    warn!(errno => "unable to write supervise/status, trying again every 5 seconds");
                }
                self.stale = Some(Instant::now() + STALE);
            }
        }
    }
}

fn replace_status(status: &Status) -> Result<(), Errno> {
    files::replace(c"supervise/status", c"supervise/status.new", &status.pack())
}

/// Adds a death to the tally, which keeps the newest ones (spec/supervision.md 2.2).
#[inline(never)] // Its buffer would be on the stack of every turn.
fn record_death(stamp: Tai64n, status: WaitStatus, names: Names) {
    let most = names.number(c"max-death-tally").unwrap_or(TALLY).min(tally::MOST as u32) as usize;
    if most == 0 {
        return;
    }
    if let Err(errno) = tally::append(TALLY_FILE, TALLY_NEW, &tally::Death::new(stamp, status), most) {
        warn!(errno => "unable to record the death in supervise/death_tally");
    }
}
