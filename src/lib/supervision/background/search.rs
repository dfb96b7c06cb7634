//! The search for main: from the parent's exit until the pid file names a live member, or it is clear that it never
//! will (spec/forking-daemons.md 3).
//!
//! [`Core`] decides; it sees the process table and the pid file through [`World`], in which everything may change
//! between two questions. [`Search`] is its shell.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::pid_file::{self, Content, Fingerprint};
use crate::error::message;
use crate::sys::process::{self, KNOWS_DESCENDANTS, Watch};
use crate::sys::wait::{WaitStatus, has_children};
use crate::sys::{Pid, signal};
use crate::text::decimal;
use crate::warn;

/// How long to look often: nearly every daemon has written its file by then.
const EAGER: Duration = Duration::from_millis(100);
/// Time between two looks at first.
const EAGER_PAUSE: Duration = Duration::from_millis(5);
/// Time between two looks later.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to look when no limit is configured.
const PATIENT: Duration = Duration::from_secs(5);

/// How long a start may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// When the parent was spawned.
    pub since: Instant,
    /// The configured limit, counted from there.
    pub length: Option<Duration>,
}

impl Limit {
    /// The end of a search that begins now: the configured limit, but at least 100 ms; 5 s if there is none.
    fn end(self, now: Instant) -> Instant {
        match self.length {
            None => now + PATIENT,
            Some(length) => self.since.checked_add(length).map_or(now + PATIENT, |end| end.max(now + EAGER)),
        }
    }
}

/// What a look came to.
#[derive(Debug)]
pub enum Outcome<W = Watch> {
    /// Nothing yet: look again when [`Search::fd`] is readable, a child died, or at [`Search::deadline`].
    Waiting,
    /// Main.
    Found(W),
    /// The file names no process within the limit, but only one process is left, so it must be main.
    FellBack(W),
    /// No member is left: the daemon died before it wrote its file.
    NoMemberLeft(Failure),
    /// The limit is over, and which process is main cannot be told.
    Failed(Failure),
}

/// Why there is no main.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The status of the last member that was reaped; exit 0 if none was. 0 after the limit.
    pub status: WaitStatus,
    found: Finding<()>,
    left: usize,
}

impl Failure {
    /// The exit code of s6-background-watch: the status if it is not 0, 104 for a missing or invalid file, 111 for
    /// the number of a process that is no more.
    pub fn exit_code(&self) -> u8 {
        match (self.status.estatus(), self.found) {
            (0, Finding::Dead(_)) if self.left == 0 => 111,
            (0, _) => 104,
            (code, _) => code,
        }
    }

    /// What a person should know, without a line's end.
    pub fn message(&self, pid_file: &CStr) -> Vec<u8> {
        let fate = if self.left == 0 { "the daemon has ended, and " } else { "the daemon cannot be followed: " };
        let number = |pid: Pid| decimal(pid.as_raw().unsigned_abs());
        match self.found {
            Finding::Missing => message(&[&fate, &"there is no pid file ", &pid_file]),
            Finding::Invalid | Finding::Main(()) => message(&[&fate, &pid_file, &" holds no process number"]),
            Finding::Dead(pid) => message(&[&fate, &pid_file, &" names process ", &number(pid), &", which is gone"]),
            Finding::Stranger(pid) => {
                message(&[&fate, &pid_file, &" names process ", &number(pid), &", which is not part of it"])
            }
        }
    }
}

/// To what process the pid file leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Finding<W> {
    Missing,
    Invalid,
    /// The number of no live process.
    Dead(Pid),
    /// A live process that is no member.
    Stranger(Pid),
    Main(W),
}

/// What the search asks. Each answer may be out of date as soon as it is given.
trait World {
    /// A process that cannot be confused with a later one of the same number.
    type Watch;
    /// What the pid file says.
    fn content(&mut self) -> Content;
    /// Holds on to the process that has this number now.
    fn pin(&mut self, pid: Pid) -> Option<Self::Watch>;
    /// Whether the process that is pinned still runs.
    fn is_alive(&mut self, watch: &Self::Watch) -> bool;
    /// Whether the chain of parents leads from the process of this number to us.
    fn is_member(&mut self, pid: Pid) -> bool;
    /// Whether any member is left.
    fn has_members(&mut self) -> bool;
    /// The live members that are our children.
    fn top(&mut self) -> Vec<Pid>;
}

/// Decides when to look and what a look means.
#[derive(Debug)]
struct Core {
    begun: Instant,
    end: Instant,
    next: Instant,
    /// Whether a single process that the file does not name may be taken for main. Not after a reload: what an old
    /// main leaves behind is more likely a worker than its successor.
    may_fall_back: bool,
}

impl Core {
    fn new(now: Instant, end: Instant, may_fall_back: bool) -> Self {
        Core { begun: now, end, next: now, may_fall_back }
    }

    fn look<W: World>(&mut self, now: Instant, world: &mut W, last: WaitStatus) -> Outcome<W::Watch> {
        let found = match find(world) {
            Finding::Main(watch) => return Outcome::Found(watch),
            Finding::Missing => Finding::Missing,
            Finding::Invalid => Finding::Invalid,
            Finding::Dead(pid) => Finding::Dead(pid),
            Finding::Stranger(pid) => Finding::Stranger(pid),
        };
        if !world.has_members() {
            return Outcome::NoMemberLeft(Failure { status: last, found, left: 0 });
        }
        if now < self.end {
            let pause = if now < self.begun + EAGER { EAGER_PAUSE } else { PAUSE };
            self.next = (now + pause).min(self.end);
            return Outcome::Waiting;
        }
        let top = world.top();
        if let ([only], true) = (&top[..], self.may_fall_back)
            && !matches!(found, Finding::Stranger(_))
            && let Some(watch) = world.pin(*only)
            && world.is_alive(&watch)
        {
            return Outcome::FellBack(watch);
        }
        Outcome::Failed(Failure { status: WaitStatus::default(), found, left: top.len().max(1) })
    }
}

/// Rule 7: pin, walk up, still alive, still named. So the process that is returned is the one that the walk was about,
/// and the file is not a half-written one.
fn find<W: World>(world: &mut W) -> Finding<W::Watch> {
    let pid = match world.content() {
        Content::Missing => return Finding::Missing,
        Content::Invalid => return Finding::Invalid,
        Content::Number(pid) => pid,
    };
    let Some(watch) = world.pin(pid) else { return Finding::Dead(pid) };
    let member = world.is_member(pid);
    match (world.is_alive(&watch), member) {
        (false, _) => Finding::Dead(pid),
        (true, false) => Finding::Stranger(pid),
        (true, true) if world.content() == Content::Number(pid) => Finding::Main(watch),
        (true, true) => Finding::Invalid,
    }
}

/// The search for one daemon.
#[derive(Debug)]
pub struct Search {
    place: Place,
    core: Option<Core>,
    directory: Directory,
    last: WaitStatus,
    /// Signals that came while there was no main, each once, in order, with those who got it.
    sent: Vec<(i32, Vec<Pid>)>,
}

impl Search {
    /// Before the parent is spawned: removes the old pid file, with a warning if that cannot be done; processes that
    /// descend from us already are no members of what is started now.
    pub fn prepare(pid_file: CString) -> Search {
        let old = pid_file::remove_old(&pid_file);
        let others =
            if has_children() { process::descendants(&[]).iter().map(|e| e.pid).collect() } else { Vec::new() };
        Search {
            place: Place { pid_file, old, others },
            core: None,
            directory: Directory::default(),
            last: WaitStatus::default(),
            sent: Vec::new(),
        }
    }

    /// The path of the pid file.
    pub fn pid_file(&self) -> &CStr {
        &self.place.pid_file
    }

    /// The parent exited with code 0: look at once, and then until the limit is over.
    pub fn parent_exited(&mut self, now: Instant, limit: Limit) {
        self.begin(now, limit.end(now), true);
    }

    /// Main exited with code 0 and left members behind: perhaps one of them is the new main. The length of the limit
    /// counts from now.
    pub fn main_exited(&mut self, now: Instant, length: Option<Duration>) {
        self.last = WaitStatus::default();
        self.begin(now, Limit { since: now, length }.end(now), false);
    }

    fn begin(&mut self, now: Instant, end: Instant, may_fall_back: bool) {
        self.core = Some(Core::new(now, end, may_fall_back));
        self.directory = Directory::watch(&self.place.pid_file);
    }

    /// Any other child than the parent and main was reaped.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        match self.place.others.iter().position(|&other| other == pid) {
            Some(index) => drop(self.place.others.swap_remove(index)),
            None => self.last = status,
        }
    }

    /// Sends a signal to the daemon while it has no main: to the parent while that lives, after that to every member
    /// that is our child. Main gets it when it is found, unless it has it already, so that none is lost.
    pub fn signal(&mut self, parent: Option<Pid>, number: i32) {
        let told = parent.map_or_else(|| self.place.top(), |pid| vec![pid]);
        for &pid in &told {
            // Children that nobody reaped meanwhile: their numbers are still theirs.
            let _ = signal::kill(pid, number);
        }
        self.sent.retain(|&(earlier, _)| earlier != number);
        self.sent.push((number, told));
    }

    /// A descriptor that becomes readable when something happens in the directory of the pid file.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.directory.fd()
    }

    /// When to look again at the latest; `None` if there is nothing to look for.
    pub fn deadline(&self) -> Option<Instant> {
        self.core.as_ref().map(|core| core.next)
    }

    /// Looks for main. With any other outcome than waiting the search is over, and costs nothing any more.
    pub fn look(&mut self, now: Instant) -> Outcome {
        let Some(core) = &mut self.core else { return Outcome::Waiting };
        self.directory.drain();
        let outcome = core.look(now, &mut self.place, self.last);
        match &outcome {
            Outcome::Waiting => return outcome,
            Outcome::Found(watch) => self.tell(watch),
            Outcome::FellBack(watch) => {
                let pid = decimal(watch.pid().as_raw().unsigned_abs());
                warn!(self.place.pid_file, " names no process: following process ", pid, ", the only one that is left");
                self.tell(watch);
            }
            Outcome::NoMemberLeft(_) | Outcome::Failed(_) => {}
        }
        self.core = None;
        self.directory = Directory::default();
        outcome
    }

    /// What main missed while it was not known.
    fn tell(&mut self, main: &Watch) {
        for (number, told) in self.sent.drain(..) {
            if !told.contains(&main.pid()) {
                let _ = main.kill(number);
            }
        }
    }
}

/// Where the real search looks.
#[derive(Debug)]
struct Place {
    pid_file: CString,
    /// The pid file as it was before the start, if it could not be removed.
    old: Option<Fingerprint>,
    /// What descended from us before the start.
    others: Vec<Pid>,
}

impl World for Place {
    type Watch = Watch;

    fn content(&mut self) -> Content {
        pid_file::content(&self.pid_file, self.old.as_ref())
    }

    fn pin(&mut self, pid: Pid) -> Option<Watch> {
        Watch::open(pid).ok()
    }

    fn is_alive(&mut self, watch: &Watch) -> bool {
        watch.is_alive()
    }

    fn is_member(&mut self, pid: Pid) -> bool {
        process::descends_past(pid, &self.others)
    }

    fn has_members(&mut self) -> bool {
        match (KNOWS_DESCENDANTS, self.others.is_empty()) {
            (false, _) => true,
            (true, true) => has_children(),
            (true, false) => !self.top().is_empty(),
        }
    }

    fn top(&mut self) -> Vec<Pid> {
        let here = nix::unistd::getpid();
        let members = process::descendants(&self.others);
        members.iter().filter(|entry| entry.parent == here).map(|entry| entry.pid).collect()
    }
}

/// Notices changes in a directory, where the system can; looking from time to time does the rest.
#[derive(Debug, Default)]
struct Directory {
    #[cfg(target_os = "linux")]
    inotify: Option<nix::sys::inotify::Inotify>,
}

#[cfg(target_os = "linux")]
impl Directory {
    fn watch(pid_file: &CStr) -> Self {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
        let directory = match pid_file.to_bytes().iter().rposition(|&b| b == b'/') {
            None => b".",
            Some(0) => b"/",
            Some(length) => &pid_file.to_bytes()[..length],
        };
        let written = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVED_TO;
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .and_then(|inotify| inotify.add_watch(directory, written).map(|_| inotify));
        Directory { inotify: inotify.ok() }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// What happened does not matter: the file is looked at anyway.
    fn drain(&self) {
        let _ = self.inotify.as_ref().map(nix::sys::inotify::Inotify::read_events);
    }
}

#[cfg(not(target_os = "linux"))]
impl Directory {
    fn watch(_: &CStr) -> Self {
        Directory {}
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn drain(&self) {}
}
