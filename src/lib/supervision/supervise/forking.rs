//! A service with a `pidfile`: run, the *parent*, goes away, and another process is the service
//! (spec/forking-daemons.md 3 to 5).
//!
//! The core keeps seeing one child that lives from the start of run to the end of the last process of the service;
//! this is where the kernel's view is folded into that one.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::unistd::{getpgid, getpgrp};

use crate::error::report;
use crate::servicedir::files::{self, Names};
use crate::supervision::background::{
    Clearance, Failure, Limit, Outcome, Search, Step, asks_to_end, keep_members, patience, remove,
};
use crate::sys::process::{Watch, become_subreaper};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{Errno, Pid, fd, signal};
use crate::warn;

/// Bytes of the longest path in a `pidfile`.
const PATH: usize = 511;

/// What became of the service.
#[derive(Debug)]
pub enum News {
    /// The parent has exited as it should; nothing to report yet.
    Forked,
    /// This process is the service now.
    MainIs(Pid),
    /// Nothing of it is left.
    Ended(WaitStatus),
}

#[derive(Debug)]
enum Phase {
    /// run itself.
    Parent(Pid),
    /// Nobody yet: the file must say.
    Searching,
    /// Main.
    Main(Watch),
    /// Main, or the start, ended so; what is left is being ended too.
    Clearing(Clearing),
}

#[derive(Debug)]
struct Clearing {
    clearance: Clearance,
    /// When its next step is due.
    next: Instant,
    /// How the service ended.
    status: WaitStatus,
    /// Whether the pid file goes too, when nobody is left to write it.
    remove_file: bool,
}

/// The processes of one run.
#[derive(Debug)]
pub struct Forking {
    search: Search,
    phase: Phase,
    limit: Limit,
    /// Whether main was known once: then it ends as a service that ran, not as one that could not be started.
    followed: bool,
    /// Whether it was asked to end: what ends then has not forked again to reload.
    asked_to_end: bool,
}

/// The path in the service directory's `pidfile`, if it has one that can be used.
pub fn pid_file(names: Names) -> Option<CString> {
    read_pid_file(names.extension(c"pidfile", c"data/s6-rs/pidfile")?)
}

#[inline(never)] // Its buffer is for those who have one.
fn read_pid_file(file: &CStr) -> Option<CString> {
    if files::exists(c"flag-newpidns") {
        warn!("ignoring ", file, ": with flag-newpidns a daemon ends with the process that started it");
        return None;
    }
    let mut buffer = [0; PATH + 1];
    let read = fd::read_file(file, &mut buffer).map(files::first_line);
    match read {
        Ok(path) if (1..=PATH).contains(&path.len()) && !path.contains(&0) => CString::new(path).ok(),
        Ok(_) => {
            warn!("ignoring ", file, ": it must hold one path of at most 511 bytes");
            None
        }
        Err(errno) => {
            warn!(errno => "unable to read ", file, ", ignoring it");
            None
        }
    }
}

/// A run that forks, before its start: makes this process the one that gets the orphans, removes an old pid file.
pub fn prepare(pid_file: CString) -> Search {
    match become_subreaper() {
        // Where there is no such thing, the pid file is believed and a kqueue watches the process it names.
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => warn!(errno => "unable to become a child subreaper"),
    }
    Search::prepare(pid_file)
}

impl Forking {
    /// The parent was started; `length` is how long it and the file may take.
    pub fn begin(search: Search, parent: Pid, length: Option<Duration>) -> Self {
        let limit = Limit { since: Instant::now(), length };
        Forking { search, phase: Phase::Parent(parent), limit, followed: false, asked_to_end: false }
    }

    /// A child was reaped. `wanted_up`: whether a main that ends of its own accord may have forked again to reload.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus, wanted_up: bool) -> Option<News> {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Parent(parent) if *parent == pid => self.parent_ended(now, status),
            Phase::Main(main) if main.pid() == pid => self.main_ended(now, status, wanted_up),
            // There may be many: what is left is looked at once, when all of them are reaped.
            Phase::Clearing(clearing) => {
                clearing.next = now;
                None
            }
            Phase::Parent(_) | Phase::Searching | Phase::Main(_) => {
                self.search.reaped(pid, status);
                self.look(now)
            }
        }
    }

    /// After the children were reaped: a main that is somebody else's child, a look at the file, the next kill.
    pub fn turn(&mut self, wanted_up: bool) -> Option<News> {
        let now = Instant::now();
        match &self.phase {
            Phase::Main(main) if !main.is_alive() => {
                let ours = wait::reap(Which::One(main.pid())).map(|(_, status)| status);
                let status = ours.or_else(|| main.exit_status()).unwrap_or_default();
                self.main_ended(now, status, wanted_up)
            }
            Phase::Searching => self.look(now),
            Phase::Clearing(clearing) if clearing.next <= now => self.clear(now),
            Phase::Clearing(..) | Phase::Parent(_) | Phase::Main(_) => None,
        }
    }

    fn parent_ended(&mut self, now: Instant, status: WaitStatus) -> Option<News> {
        if status.code() != Some(0) {
            return self.clear_away(now, status, true);
        }
        self.search.parent_exited(now, self.limit);
        self.phase = Phase::Searching;
        self.look(now).or(Some(News::Forked))
    }

    fn main_ended(&mut self, now: Instant, status: WaitStatus, wanted_up: bool) -> Option<News> {
        if status.code() == Some(0) && wanted_up && !self.asked_to_end {
            self.search.main_exited(now, self.limit.length);
            self.phase = Phase::Searching;
            return self.look(now);
        }
        self.end(now, status)
    }

    fn look(&mut self, now: Instant) -> Option<News> {
        match self.search.look(now) {
            Outcome::Waiting => None,
            Outcome::Found(main) | Outcome::FellBack(main) => {
                let pid = main.pid();
                self.phase = Phase::Main(main);
                self.followed = true;
                Some(News::MainIs(pid))
            }
            Outcome::NoMemberLeft(failure) if self.followed => Some(News::Ended(failure.status)),
            Outcome::NoMemberLeft(failure) => {
                self.complain(&failure);
                remove(self.search.pid_file());
                Some(News::Ended(failure.status))
            }
            Outcome::Failed(failure) if self.followed => {
                self.complain(&failure);
                self.end(now, failure.status)
            }
            Outcome::Failed(failure) => {
                self.complain(&failure);
                self.clear_away(now, failure.status, true)
            }
        }
    }

    fn complain(&self, failure: &Failure) {
        report("warning: ", &[&failure.message(self.search.pid_file())], None);
    }

    /// Main has ended: begins to end what it left, unless that is to be kept.
    fn end(&mut self, now: Instant, status: WaitStatus) -> Option<News> {
        let killed = status.signal().is_some();
        if !keep_members() {
            return self.clear_away(now, status, killed);
        }
        if killed {
            remove(self.search.pid_file());
        }
        Some(News::Ended(status))
    }

    /// Begins to end what is left.
    fn clear_away(&mut self, now: Instant, status: WaitStatus, remove_file: bool) -> Option<News> {
        let patience = match status.signal().map(i32::from) {
            Some(libc::SIGKILL) => Duration::ZERO,
            _ => patience(),
        };
        let clearance = Clearance::new(now, patience);
        self.phase = Phase::Clearing(Clearing { clearance, next: now, status, remove_file });
        self.clear(now)
    }

    fn clear(&mut self, now: Instant) -> Option<News> {
        let Phase::Clearing(clearing) = &mut self.phase else { return None };
        match clearing.clearance.step(now, self.search.others()) {
            Step::Wait(until) => {
                clearing.next = until;
                None
            }
            Step::Done => {
                if clearing.remove_file {
                    remove(self.search.pid_file());
                }
                Some(News::Ended(clearing.status))
            }
        }
    }

    /// The process that the service is, if it is known now.
    pub fn main(&self) -> Option<Pid> {
        match &self.phase {
            Phase::Parent(parent) => Some(*parent),
            Phase::Main(main) => Some(main.pid()),
            Phase::Searching | Phase::Clearing(..) => None,
        }
    }

    /// The service said itself that this process is main.
    pub fn follow(&mut self, main: Watch) -> Option<News> {
        let pid = main.pid();
        match &self.phase {
            Phase::Clearing(..) => None,
            Phase::Parent(_) | Phase::Searching | Phase::Main(_) => {
                self.search.found_otherwise(&main);
                self.followed = true;
                self.phase = Phase::Main(main);
                Some(News::MainIs(pid))
            }
        }
    }

    /// What to wait for besides SIGCHLD.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Main(main) => main.fd(),
            Phase::Searching => self.search.fd(),
            Phase::Parent(_) | Phase::Clearing(..) => None,
        }
    }

    /// When [`Forking::turn`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Searching => self.search.deadline(),
            Phase::Clearing(clearing) => Some(clearing.next),
            Phase::Parent(_) | Phase::Main(_) => None,
        }
    }

    /// Sends the signal by which the service is asked to end.
    pub fn signal_down(&mut self, number: i32) {
        self.asked_to_end = true;
        self.signal(number);
    }

    /// Sends a signal to the service, whoever it is now; one that comes in between reaches main when it is found.
    pub fn signal(&mut self, number: i32) {
        self.asked_to_end |= asks_to_end(number);
        match &self.phase {
            Phase::Parent(parent) => self.search.signal(Some(*parent), number),
            Phase::Searching => self.search.signal(None, number),
            Phase::Main(main) => drop(main.kill(number)),
            Phase::Clearing(..) => {}
        }
    }

    /// Sends a signal to the process group of the service; to its main process alone if that is in our own group.
    pub fn signal_group(&mut self, number: i32) {
        match self.main().and_then(group_of) {
            Some(group) => drop(signal::kill_group(group, number)),
            None => self.signal(number),
        }
    }
}

/// The process group of a process, unless it is our own.
pub fn group_of(pid: Pid) -> Option<Pid> {
    getpgid(Some(pid)).ok().filter(|&group| group != getpgrp())
}
