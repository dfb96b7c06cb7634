//! A service directory with `notify-socket`: systemd's notification protocol and its fd store
//! (spec/sd-notify-and-fdstore.md 4).
//!
//! The core decides about states and times; here is whose messages count, what they are to the core, what is kept for
//! the service, and what run and finish are given.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use nix::unistd::{getpid, unlink};

use super::child::Extras;
use super::core::{Event, Outcome, Phase, State};
use super::{Shell, TALLY_FILE, TALLY_NEW};
use crate::error::{Text, report};
use crate::notify::client::monotonic_usec;
use crate::notify::grammar::{self, Access, Datagram, Message, Watchdog};
use crate::notify::mirror::Mirror;
use crate::notify::receiver::{Buffer, Incoming, Receiver};
use crate::notify::report::{Circumstances, Report};
use crate::notify::store::{Entry, Preserve, Store};
use crate::servicedir::files::{self, Names};
use crate::supervision::background::{self, Clearance, Step};
use crate::sys::cptr::CPtr;
use crate::sys::env::Env;
use crate::sys::poll::{self, PollFd};
use crate::sys::process::{self, Watch};
use crate::sys::spawn::{OwnPid, Redirect};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{Errno, Pid, fd};
use crate::text::decimal;
use crate::warn;

const REPORT: &CStr = c"supervise/notify";
const REPORT_NEW: &CStr = c"supervise/notify.new";
const INVENTORY: &CStr = c"supervise/fdstore";
const INVENTORY_NEW: &CStr = c"supervise/fdstore.new";

/// Bytes of the longest path of a socket.
const PATH: usize = 107;
/// Bytes that are read for a word.
const WORD: usize = 15;
/// Datagrams that are read in one turn of the loop.
pub const TURN: usize = 64;
/// Datagrams that are read before a dead process is reaped: more than any queue holds, so that its last words are
/// among them.
const LAST_WORDS: usize = 4096;
/// A message that everybody may send: it only asks whether we are there.
const BARRIER: &[u8] = b"BARRIER=1";
/// Time between two warnings about messages that do not count.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a start waits for what the last run left: what does not die in this time does not die soon.
const LEFTOVERS: Duration = Duration::from_secs(1);
/// Descriptors that the supervisor keeps for itself, whatever `fdstore-max` says.
const RESERVED: u64 = 64;
/// The first descriptor that the service gets from the store.
const FIRST: i32 = 3;
/// Bytes of the longest name of a service that fits what is held, with a number and some of the descriptor's name.
const LONGEST_NAME: usize = 200;

/// What must not come from above: it was meant for the supervisor, not for the service.
const SCRUBBED: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "FDSTORE",
    "MAINPID",
    "MAINPIDFDID",
];

/// What the service directory says, read at every start. `fdstore-max` and `fdstore-holder` go to the store and to its
/// mirror.
#[derive(Debug, Default)]
struct Settings {
    access: Access,
    watchdog: Option<Duration>,
    preserve: Preserve,
}

/// What a supervisor has for a service that notifies.
#[derive(Debug)]
pub struct Notification {
    settings: Settings,
    receiver: Receiver,
    /// Where the socket is; `None`: at an address of the kernel's choice.
    place: Option<CString>,
    /// The main process, if it is not the one that was started.
    main: Option<Watch>,
    /// run is in a PID namespace: the numbers in its messages are not ours.
    elsewhere: bool,
    report: Report,
    outcome: Outcome,
    store: Store,
    /// Where the store is held too.
    mirror: Option<Mirror>,
    /// What descended from us before the first run.
    others: Vec<Pid>,
    /// No run was started yet: what a killed supervisor left in the holder is to come back.
    first: bool,
    /// Ends what the last run left, so that the next can be started; not after this time.
    clearance: Option<(Clearance, Instant)>,
    /// When the last reload signal was sent, in microseconds of CLOCK_MONOTONIC.
    reload_usec: u64,
    /// What the files in `supervise` do not show yet.
    stale: Stale,
    /// The phase that they show.
    shown: Option<Phase>,
    /// The last warning about messages that do not count.
    warned: Option<Instant>,
    /// The descriptors of the message at hand.
    fds: Vec<OwnedFd>,
    /// What is waited for.
    polled: Vec<PollFd>,
    text: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stale {
    Nothing,
    Report,
    Everything,
}

/// Removes what an earlier supervisor left, and warns of files that mean nothing without `notify-socket`.
pub fn begin(names: Names) {
    if unlink(REPORT) == Ok(()) {
        let _ = unlink(INVENTORY);
    }
    if socket_file(names).is_none() {
        warn_of_useless_files(names);
    }
}

fn warn_of_useless_files(names: Names) {
    let useless = [
        names.extension(c"fdstore-max", c"data/s6-rs/fdstore-max"),
        names.extension(c"timeout-watchdog", c"data/s6-rs/timeout-watchdog"),
    ];
    for file in useless.into_iter().flatten() {
        warn!("ignoring ", file, ": there is no notify-socket");
    }
}

fn socket_file(names: Names) -> Option<&'static CStr> {
    names.extension(c"notify-socket", c"data/s6-rs/notify-socket")
}

/// Reads the service directory before a start, and has the socket ready. None for a directory that has no
/// `notify-socket`, or a system that cannot. What is stored stays; so does everything if there is an error, of which
/// it warns. `directory`: how the service is called.
pub fn prepare(
    notification: &mut Option<Box<Notification>>,
    directory: &CStr,
    descriptors: u64,
    names: Names,
) -> Result<(), Errno> {
    let Some(file) = socket_file(names) else {
        if let Some(mut notification) = notification.take() {
            notification.empty_store();
            notification.leave(true);
            let _ = (unlink(REPORT), unlink(INVENTORY));
            warn_of_useless_files(names);
        }
        return Ok(());
    };
    let place = read_path(file);
    if notification.as_ref().is_none_or(|n| n.place != place) {
        let receiver = match place.as_deref().map(Receiver::at) {
            Some(Err(Errno::ENAMETOOLONG)) => {
                warn!("ignoring the content of ", file, ": as clients see it, the path is longer than 107 bytes");
                Receiver::anywhere()
            }
            Some(other) => other,
            None => Receiver::anywhere(),
        };
        match (receiver, notification.as_mut()) {
            (Ok(receiver), Some(notification)) => (notification.receiver, notification.place) = (receiver, place),
            (Ok(receiver), None) => *notification = Some(Box::new(Notification::new(receiver, place))),
            (Err(Errno::ENOSYS), _) => {
                warn!("ignoring ", file, ": this system does not tell who sends a datagram");
                return Ok(());
            }
            (Err(errno), _) => {
                warn!(errno => "unable to make the socket that ", file, " asks for, trying again in a minute");
                return Err(errno);
            }
        }
    }
    match process::become_subreaper() {
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => warn!(errno => "unable to become a child subreaper"),
    }
    if let Some(notification) = notification {
        notification.read_settings(directory, descriptors);
    }
    Ok(())
}

/// The path of a socket that a file names; `None` if it is empty, or, with a warning, if it cannot be used.
#[inline(never)] // Its buffer is for those who have one.
fn read_path(file: &CStr) -> Option<CString> {
    let mut buffer = [0; PATH + 1];
    match fd::read_file(file, &mut buffer).map(files::first_line) {
        Ok(b"") => None,
        Ok(path) if path.len() <= PATH && !path.contains(&0) => CString::new(path).ok(),
        Ok(_) => {
            warn!("ignoring the content of ", file, ": it must be one path of at most 107 bytes");
            None
        }
        Err(errno) => {
            warn!(errno => "unable to read ", file, ", taking it for empty");
            None
        }
    }
}

/// How a service is called in a holder: as its directory on our command line, or in truth if that is `.`.
fn holder_name(directory: &CStr) -> CString {
    let mut name = directory.to_bytes();
    while let [rest @ .., b'/'] = name {
        name = rest;
    }
    let here = nix::unistd::getcwd().unwrap_or_default();
    let name = if matches!(name, b"" | b".") { here.as_os_str().as_bytes() } else { name };
    CString::new(name).unwrap_or_default()
}

impl Notification {
    fn new(receiver: Receiver, place: Option<CString>) -> Self {
        Notification {
            settings: Settings::default(),
            receiver,
            place,
            main: None,
            elsewhere: false,
            report: Report::default(),
            outcome: Outcome::default(),
            store: Store::default(),
            mirror: None,
            others: background::living(),
            first: true,
            clearance: None,
            reload_usec: 0,
            stale: Stale::Everything,
            shown: None,
            warned: None,
            fds: Vec::new(),
            polled: Vec::new(),
            text: Vec::new(),
        }
    }

    fn read_settings(&mut self, directory: &CStr, descriptors: u64) {
        let access = files::extension(c"notify-access", c"data/s6-rs/notify-access");
        let preserve = files::extension(c"fdstore-preserve", c"data/s6-rs/fdstore-preserve");
        let watchdog = files::extension(c"timeout-watchdog", c"data/s6-rs/timeout-watchdog");
        self.settings = Settings {
            access: access.and_then(|file| files::read::<_, WORD>(file, Access::parse)).unwrap_or_default(),
            preserve: preserve.and_then(|file| files::read::<_, WORD>(file, Preserve::parse)).unwrap_or_default(),
            watchdog: watchdog.and_then(|file| files::limit(file, None)),
        };
        let max = files::extension(c"fdstore-max", c"data/s6-rs/fdstore-max");
        let (max, most) = (max.and_then(files::number).unwrap_or(0), descriptors.saturating_sub(RESERVED));
        if u64::from(max) > most {
            warn!("fdstore-max ", decimal(max), " is more than the limit of descriptors allows: ", decimal(most));
        }
        self.store.set_max(u64::from(max).min(most) as usize);
        self.elsewhere = files::exists(c"flag-newpidns");
        let holder = files::extension(c"fdstore-holder", c"data/s6-rs/fdstore-holder").and_then(read_path);
        if self.mirror.as_ref().map(Mirror::holder) != holder.as_deref() {
            if let Some(old) = &mut self.mirror {
                self.store.entries().iter().for_each(|entry| old.dropped(entry));
                old.finish(&self.store);
            }
            let name = holder_name(directory);
            if holder.is_some() && name.count_bytes() > LONGEST_NAME {
                warn!("ignoring fdstore-holder: the name of the service is too long to be held");
            }
            self.mirror = holder
                .filter(|_| name.count_bytes() <= LONGEST_NAME)
                .map(|holder| Mirror::new(holder, name, &self.store));
        }
    }

    /// The environment, without what was meant for the supervisor, and with the address and the size of the store if
    /// they are of use.
    fn environment(&self, address: bool, store: bool) -> Env {
        let mut env = Env::inherited();
        for name in SCRUBBED {
            env.unset(name.as_bytes());
        }
        if address {
            env.set(b"NOTIFY_SOCKET", self.receiver.address().to_bytes());
        }
        if store && self.store.max() > 0 {
            env.set(b"FDSTORE", decimal(self.store.max() as u64).as_bytes());
        }
        env
    }

    /// The environment of finish.
    pub fn finish_environment(&self) -> Env {
        let listened_to = matches!(self.settings.access, Access::Exec | Access::All);
        self.environment(listened_to, listened_to)
    }

    /// Starts run by `start`, with all that it gets.
    pub fn give<T>(&self, start: impl FnOnce(&Extras<'_>) -> T) -> T {
        let mut env = self.environment(self.settings.access != Access::None, true);
        let mut own_pid = Vec::new();
        if let Some(interval) = self.settings.watchdog {
            env.set(b"WATCHDOG_USEC", decimal(interval.as_micros() as u64).as_bytes());
            own_pid.push(OwnPid::new("WATCHDOG_PID"));
        }
        let entries = self.store.entries();
        if !entries.is_empty() {
            env.set(b"LISTEN_FDS", decimal(entries.len() as u64).as_bytes());
            env.set(b"LISTEN_FDNAMES", &self.store.names());
            own_pid.push(OwnPid::new("LISTEN_PID"));
        }
        let redirects: Vec<_> =
            entries.iter().zip(FIRST..).map(|(entry, number)| Redirect::new(entry.file.as_fd(), number)).collect();
        let strings = env.list();
        let env: Vec<CPtr<'_>> = own_pid.iter().map(OwnPid::entry).chain(strings).collect();
        start(&Extras {
            env: &env,
            own_pid: &own_pid,
            redirects: &redirects,
            reserved: self.store.max().max(entries.len()) as u32,
            restore: self
                .mirror
                .as_ref()
                .filter(|_| self.first && self.store.max() > 0)
                .map(|mirror| (mirror.holder(), mirror.service())),
        })
    }

    /// Before a start: kills what the last run left, unless it is to be kept (spec/forking-daemons.md 5). With a pid file
    /// that was done before finish. What is to be waited for then, before this is asked `again`; not for ever.
    pub fn end_leftovers(&mut self, again: bool) -> Option<Duration> {
        if self.first || !wait::has_children() || background::keep_members() {
            return None;
        }
        let now = Instant::now();
        let (clearance, end) = match &mut self.clearance {
            Some(begun) if again => begun,
            none => none.insert((Clearance::new(now, Duration::ZERO), now + LEFTOVERS)),
        };
        let teller = self.mirror.as_ref().and_then(Mirror::running);
        let spared: Vec<Pid> = self.others.iter().copied().chain(teller).collect();
        match clearance.step(now, &spared) {
            Step::Done => None,
            Step::Wait(until) if now < *end => Some(until - now),
            Step::Wait(_) => {
                warn!("unable to end all that the last run left behind");
                None
            }
        }
    }

    /// run was started; says how often it must say that it works.
    pub fn started(&mut self) -> Option<Duration> {
        self.main = None;
        self.first = false;
        self.report.clear(self.settings.access, self.settings.watchdog);
        self.outcome = Outcome::default();
        self.reload_usec = 0;
        self.stale = Stale::Everything;
        self.settings.watchdog
    }

    /// The service is dead.
    pub fn died(&mut self, outcome: Outcome) {
        self.main = None;
        self.report.access = self.settings.access;
        self.outcome = outcome;
        self.stale = self.stale.max(Stale::Report);
        if self.settings.preserve == Preserve::No {
            self.empty_store();
        }
    }

    /// The service is down, and is to stay so.
    pub fn settled(&mut self) {
        if self.settings.preserve != Preserve::Yes {
            self.empty_store();
        }
    }

    /// The supervisor leaves. Unless the service is `down`, it goes on without one.
    pub fn leave(&mut self, down: bool) {
        if down {
            self.settled();
        }
        if let Some(mirror) = &mut self.mirror {
            mirror.finish(&self.store);
        }
    }

    /// A child was reaped; whether it was one that talked to the holder.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) -> bool {
        self.mirror.as_mut().is_some_and(|mirror| mirror.reaped(pid, status))
    }

    /// Closes all that is stored.
    pub fn empty_store(&mut self) {
        self.drop_from_store(|_| true);
    }

    fn drop_from_store(&mut self, mut condemned: impl FnMut(&Entry<OwnedFd>) -> bool) {
        let dropped = self.store.remove(|entry| {
            let goes = condemned(entry);
            self.mirror.iter_mut().filter(|_| goes).for_each(|mirror| mirror.dropped(entry));
            goes
        });
        if dropped > 0 {
            self.stale = Stale::Everything;
        }
    }

    /// Stores what came with a message.
    fn add_to_store(&mut self, name: &[u8], poll: bool, serial: Option<u32>) {
        let held = serial.filter(|_| self.mirror.is_some());
        held.iter().for_each(|&serial| self.store.resume_at(serial.into()));
        let added = self.store.add(self.fds.drain(..), name, poll);
        if added == 0 {
            if let (Some(mirror), Some(serial)) = (&mut self.mirror, held.map(u64::from))
                && self.store.entries().iter().all(|entry| entry.serial != serial)
            {
                mirror.refused(serial, poll, name);
            }
            return;
        }
        self.stale = Stale::Everything;
        if let (Some(mirror), None) = (&mut self.mirror, held) {
            let entries = self.store.entries();
            entries[entries.len() - added..].iter().for_each(|entry| mirror.stored(entry));
        }
    }

    /// A reload signal is sent: what was said before that is no answer to it.
    pub fn reloads(&mut self) {
        self.reload_usec = monotonic_usec();
    }

    /// The main process, if it is not the one that was started.
    pub fn main(&self) -> Option<&Watch> {
        self.main.as_ref()
    }

    /// Waits for the shell's descriptors and for those that are of interest here; says what it found of the former and
    /// whether there are messages. Drops what was stored and is hung up.
    pub fn wait<const N: usize>(
        &mut self,
        others: [PollFd; N],
        deadline: Option<Instant>,
    ) -> Result<([PollFd; N], bool), Errno> {
        self.polled.clear();
        self.polled.extend(others);
        self.polled.push(PollFd::new(self.receiver.as_fd(), poll::IN));
        self.polled.push(PollFd::maybe(self.main.as_ref().and_then(Watch::fd), poll::IN));
        let watched = self.store.entries().iter().map(|entry| match entry.poll {
            true => PollFd::new(entry.file.as_fd(), 0),
            false => PollFd::none(),
        });
        self.polled.extend(watched);
        // What could not be written is tried again.
        let again = (self.stale != Stale::Nothing).then(|| Instant::now() + super::STALE);
        let deadline = deadline.into_iter().chain(again).min();
        poll::wait(&mut self.polled, deadline)?;
        let found: [PollFd; N] = std::array::from_fn(|i| self.polled[i]);
        let messages = self.polled[N].readable();
        let polled = std::mem::take(&mut self.polled);
        let mut stored = polled[N + 2..].iter();
        self.drop_from_store(|_| stored.next().is_some_and(PollFd::hung_up));
        self.polled = polled;
        Ok((found, messages))
    }

    /// The new main process that a message names: a live member of the service.
    fn new_main(&self, message: &Message<'_>) -> Option<Watch> {
        let (pid, inode) = match (message.main_pidfd, &self.fds[..], message.main_pid) {
            (true, [pidfd], _) => (process::of_pidfd(pidfd.as_fd())?, None),
            (_, _, Some(main)) => (Pid::from_raw(main.pid), main.inode),
            (_, _, None) => return None,
        };
        if self.elsewhere {
            return None;
        }
        // With a hand on the process, the number cannot become another's while it is examined.
        let watch = Watch::open(pid).ok()?;
        let same = match (&self.fds[..], inode) {
            ([pidfd], None) if message.main_pidfd => process::of_pidfd(pidfd.as_fd()) == Some(pid),
            (_, Some(inode)) => process::pidfd_inode(pid) == Some(inode),
            (_, None) => true,
        };
        (same && process::is_descendant(pid) && watch.is_alive()).then_some(watch)
    }

    /// Warns of messages that do not count, but not of each.
    fn complain(&mut self, errno: Option<Errno>, about: &[&dyn Text]) {
        let now = Instant::now();
        if self.warned.is_none_or(|last| now.duration_since(last) >= PATIENCE) {
            self.warned = Some(now);
            report("warning: ", about, errno);
        }
    }

    /// Brings the files up to date, and the holder, but for that nobody waits.
    fn show(&mut self, phase: Option<Phase>) {
        if let Some(mirror) = &mut self.mirror {
            mirror.advance(&self.store);
        }
        if self.shown != phase {
            self.stale = self.stale.max(Stale::Report);
        }
        if self.stale == Stale::Nothing {
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        self.report.render(self.circumstances(phase), &mut text);
        let mut done = files::replace(REPORT, REPORT_NEW, &text);
        if self.stale == Stale::Everything && done.is_ok() {
            text.clear();
            for entry in self.store.entries() {
                text.extend_from_slice(decimal(entry.file.as_raw_fd() as u64).as_bytes());
                text.push(b':');
                text.extend_from_slice(&entry.name);
                text.push(b'\n');
            }
            done = files::replace(INVENTORY, INVENTORY_NEW, &text);
        }
        self.text = text;
        match done {
            Ok(()) => (self.stale, self.shown) = (Stale::Nothing, phase),
            Err(errno) => self.complain(Some(errno), &[&"unable to write supervise/notify or supervise/fdstore"]),
        }
    }

    fn circumstances(&self, phase: Option<Phase>) -> Circumstances {
        let state = match phase {
            None => "dead",
            Some(Phase::Starting) => "starting",
            Some(Phase::Ready) => "ready",
            Some(Phase::Reloading) => "reloading",
            Some(Phase::Stopping) => "stopping",
        };
        let result = match self.outcome {
            Outcome::Success => "success",
            Outcome::Exit => "exit",
            Outcome::Signal => "signal",
            Outcome::Watchdog => "watchdog",
            Outcome::TimeoutReady => "timeout-ready",
            Outcome::Protocol => "protocol",
        };
        Circumstances { state, result, stored: self.store.entries().len(), max: self.store.max() }
    }
}

/// Reading messages takes the whole supervisor: they are for the core, and about its child.
impl Shell {
    /// Reads messages, at most so many. Without them it does nothing.
    #[inline(never)] // Its buffer is for those who notify.
    pub(super) fn read_messages(&mut self, most: usize) {
        let mut buffer: Buffer = [0; _];
        for _ in 0..most {
            let Some(notification) = &mut self.notification else { return };
            match notification.receiver.receive(&mut buffer, &mut notification.fds) {
                Ok(Some(incoming)) => self.message(incoming),
                Ok(None) => {}
                Err(Errno::ENOBUFS) => {
                    notification.complain(None, &[&"dropping a message with more descriptors than there is room for"]);
                }
                Err(Errno::EAGAIN) => return,
                Err(errno) => return notification.complain(Some(errno), &[&"unable to read from the notify socket"]),
            }
            self.let_go();
        }
    }

    /// Reads all that a process said before it died.
    pub(super) fn read_last_words(&mut self) {
        self.read_messages(LAST_WORDS);
    }

    /// Closes what came with a message and was not stored. Who waits for that must find all that it said shown.
    fn let_go(&mut self) {
        if self.notification.as_ref().is_some_and(|n| !n.fds.is_empty()) {
            self.show();
            self.notification.iter_mut().for_each(|n| n.fds.clear());
        }
    }

    /// Brings the files that show what the service said up to date.
    pub(super) fn show(&mut self) {
        if let Some(notification) = &mut self.notification {
            notification.show(self.core.phase());
        }
    }

    fn message(&mut self, mut incoming: Incoming<'_>) {
        if self.admits(&mut incoming) {
            if let Some(Datagram::Message(message)) = grammar::parse(incoming.payload) {
                self.obey(&message);
            }
        } else if let Some(notification) = &mut self.notification
            && incoming.payload.trim_ascii_end() != BARRIER
        {
            let sender = decimal(incoming.sender.pid.as_raw() as u64);
            let (why, access) = match (self.core.state(), notification.report.access) {
                (State::Down, _) => (": the service is down", ""),
                (_, Access::All) => (": it has ended already, or does not descend from this one", ""),
                (_, access) => (": notify-access is ", access.name()),
            };
            let about: [&dyn Text; 4] = [&"ignoring a message from process ", &sender, &why, &access];
            notification.complain(None, &about);
        }
    }

    /// Whether a message from this sender counts. While nothing runs, none does.
    fn admits(&mut self, incoming: &mut Incoming<'_>) -> bool {
        if let Some(forking) = self.forking.as_mut().filter(|forking| forking.main().is_none()) {
            // Perhaps it is the daemon that is looked for.
            let news = forking.turn(self.core.status().wanted_up);
            self.news(news);
        }
        let Some(notification) = &self.notification else { return false };
        let access = notification.report.access;
        let (up, sender) = (self.core.status().is_up(), incoming.sender.pid);
        // In our own name speaks only who has the privilege to: systemd-notify, executed by run itself.
        let is_main = up && (self.main_process() == Some(sender) || sender == getpid());
        let is_finish = self.core.status().finishing && self.child == Some(sender);
        match access {
            Access::None => false,
            Access::Main => is_main,
            Access::Exec => is_main || is_finish,
            Access::All => is_main || is_finish || (self.core.state() != State::Down && incoming.is_from_descendant()),
        }
    }

    /// The process that the service is.
    pub(super) fn main_process(&self) -> Option<Pid> {
        match (&self.forking, &self.notification) {
            (Some(forking), _) => forking.main(),
            (None, Some(notification)) => notification.main.as_ref().map(Watch::pid).or(self.child),
            (None, None) => self.child,
        }
    }

    /// Does what a message says, in the order that the protocol has (spec/sd-notify-and-fdstore.md 1.2).
    fn obey(&mut self, message: &Message<'_>) {
        // Nobody sees when, but who is told of the new state finds it shown with the new text.
        if let Some(notification) = &mut self.notification {
            notification.report.take(message);
            notification.stale = notification.stale.max(Stale::Report);
        }
        if self.core.status().is_up()
            && let Some(main) = self.notification.as_ref().and_then(|n| n.new_main(message))
        {
            self.follow(main);
        }
        match message.state {
            None => {}
            Some(grammar::State::Stopping) => self.handle(Event::Stopping),
            Some(grammar::State::Ready) => self.handle(Event::Ready),
            Some(grammar::State::Reloaded(since)) => {
                self.handle(if self.is_late_enough(since) { Event::Reloaded } else { Event::Ready });
            }
            Some(grammar::State::Reloading(since)) if self.is_late_enough(since) => self.handle(Event::Reloading),
            Some(grammar::State::Reloading(_)) => {}
        }
        if let Some(time) = message.extend {
            self.handle(Event::Extend(time));
        }
        match message.watchdog {
            None => {}
            Some(Watchdog::Ping) => self.handle(Event::Ping),
            Some(Watchdog::Trigger) => self.handle(Event::Trigger),
        }
        if let Some(interval) = message.watchdog_interval {
            self.handle(Event::PingWithin(interval));
        }
        if message.restart_reset
            && let Err(errno) = files::replace(TALLY_FILE, TALLY_NEW, b"")
        {
            warn!(errno => "unable to forget the deaths in supervise/death_tally");
        }
        let Some(notification) = &mut self.notification else { return };
        match message.store {
            None => {}
            Some(grammar::Store::Remove(name)) => notification.drop_from_store(|entry| *entry.name == *name),
            Some(grammar::Store::Add { name, poll }) => notification.add_to_store(name, poll, message.serial),
        }
    }

    /// Whether a reload that began then can be the answer to the last reload signal.
    fn is_late_enough(&self, since: Option<u64>) -> bool {
        let sent = self.notification.as_ref().map_or(0, |n| n.reload_usec);
        since.is_none_or(|since| since >= sent)
    }

    /// The service is this process from now on.
    fn follow(&mut self, main: Watch) {
        let pid = main.pid();
        if self.main_process() == Some(pid) {
            return;
        }
        if let Some(forking) = &mut self.forking {
            let news = forking.follow(main);
            self.news(news);
        } else if let Some(notification) = &mut self.notification {
            notification.main = (self.child != Some(pid)).then_some(main);
            self.handle(Event::MainIs(pid.as_raw()));
        }
    }

    /// A main process that is not our child is not reaped here.
    pub(super) fn look_after_main(&mut self) {
        if self.notification.as_ref().and_then(|n| n.main()).is_none_or(Watch::is_alive) {
            return;
        }
        self.read_last_words();
        if let Some(main) = self.notification.as_mut().and_then(|n| n.main.take_if(|main| !main.is_alive())) {
            let ours = wait::reap(Which::One(main.pid())).map(|(_, status)| status);
            self.died(ours.or_else(|| main.exit_status()).unwrap_or_default());
        }
    }
}
