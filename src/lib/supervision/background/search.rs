//! The search for main: from the parent's exit until the pid file names a live member, or it is clear that it never
//! will (spec/forking-daemons.md 3).
//!
//! [`Core`] decides; it sees the process table and the pid file through [`World`], in which everything may change
//! between two questions. [`Search`] is its shell.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::pid_file::{self, Content, Fingerprint};
use super::{PATIENCE, asks_to_end};
use crate::error::message;
use crate::sys::process::{self, KNOWS_SUBREAPERS, Watch, knows_descendants};
use crate::sys::wait::{WaitStatus, has_children};
use crate::sys::{Errno, Pid, signal, strerror};
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
    miss: Miss,
    members_left: bool,
}

impl Failure {
    /// The exit code of s6-background-watch: the status if it is not 0, 104 for a missing or invalid file, 111 for
    /// the number of a process that is no more.
    pub fn exit_code(&self) -> u8 {
        match (self.status.estatus(), self.miss) {
            (0, Miss::Dead(_)) if !self.members_left => 111,
            (0, _) => 104,
            (code, _) => code,
        }
    }

    /// What a person should know, without a line's end.
    pub fn message(&self, pid_file: &CStr) -> Vec<u8> {
        let fate = if self.members_left { "the daemon cannot be followed: " } else { "the daemon has ended, and " };
        let number = |pid: Pid| decimal(pid.as_raw().unsigned_abs());
        match self.miss {
            Miss::Missing => message(&[&fate, &"there is no pid file ", &pid_file]),
            Miss::Invalid => message(&[&fate, &pid_file, &" holds no process number"]),
            Miss::Unreadable(errno) => message(&[&fate, &pid_file, &" cannot be read: ", &strerror(errno)]),
            Miss::Dead(pid) => message(&[&fate, &pid_file, &" names process ", &number(pid), &", which is gone"]),
            Miss::Stranger(pid) => {
                message(&[&fate, &pid_file, &" names process ", &number(pid), &", which is not part of it"])
            }
        }
    }
}

/// Why the pid file leads to no main now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Miss {
    Missing,
    Invalid,
    Unreadable(Errno),
    /// It holds the number of no live process.
    Dead(Pid),
    /// It holds the number of a live process that is no member.
    Stranger(Pid),
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
        let miss = match find(world) {
            Ok(main) => return Outcome::Found(main),
            Err(miss) => miss,
        };
        if !world.has_members() {
            return Outcome::NoMemberLeft(Failure { status: last, miss, members_left: false });
        }
        if now < self.end {
            let pause = if now < self.begun + EAGER { EAGER_PAUSE } else { PAUSE };
            self.next = (now + pause).min(self.end);
            return Outcome::Waiting;
        }
        if let ([only], true) = (&world.top()[..], self.may_fall_back)
            && !matches!(miss, Miss::Stranger(_))
            && let Some(watch) = world.pin(*only)
            && world.is_alive(&watch)
        {
            return Outcome::FellBack(watch);
        }
        Outcome::Failed(Failure { status: WaitStatus::default(), miss, members_left: true })
    }
}

/// Rule 7: pin, walk up, still alive, still named. So the process that is returned is the one that the walk was about,
/// and the file is not a half-written one.
fn find<W: World>(world: &mut W) -> Result<W::Watch, Miss> {
    let pid = match world.content() {
        Content::Missing => return Err(Miss::Missing),
        Content::Invalid => return Err(Miss::Invalid),
        Content::Unreadable(errno) => return Err(Miss::Unreadable(errno)),
        Content::Number(pid) => pid,
    };
    let watch = world.pin(pid).ok_or(Miss::Dead(pid))?;
    let member = world.is_member(pid);
    match (world.is_alive(&watch), member) {
        (false, _) => Err(Miss::Dead(pid)),
        (true, false) => Err(Miss::Stranger(pid)),
        (true, true) if world.content() == Content::Number(pid) => Ok(watch),
        (true, true) => Err(Miss::Invalid),
    }
}

/// The search for one daemon.
#[derive(Debug)]
pub struct Search {
    place: Place,
    core: Option<Core>,
    directory: Directory,
    last: WaitStatus,
    /// Signals that came while there was no main, each once, in order.
    sent: Vec<Sent>,
}

/// A signal that main has to get when it is found.
#[derive(Debug)]
struct Sent {
    number: i32,
    /// Whether it was for the members at the top, not for the parent: then those that come there later get it too.
    to_members: bool,
    /// Who has it already.
    told: Vec<Pid>,
}

impl Search {
    /// Before the parent is spawned: removes the old pid file, with a warning if that cannot be done; processes that
    /// descend from us already are no members of what is started now.
    pub fn prepare(pid_file: CString) -> Search {
        let old = pid_file::remove_old(&pid_file);
        Search {
            place: Place { pid_file, old, others: super::living() },
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

    /// What descended from us before the start and is no member.
    pub fn others(&self) -> &[Pid] {
        &self.place.others
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
        let told = self.sent.iter().filter(|sent| sent.to_members && sent.told.contains(&pid));
        for number in told.map(|sent| sent.number).collect::<Vec<_>>() {
            // Main itself, perhaps: what it leaves behind is none.
            self.core.iter_mut().for_each(|core| core.may_fall_back = false);
            self.hurry(number);
        }
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
        self.sent.retain(|sent| sent.number != number);
        self.sent.push(Sent { number, to_members: parent.is_none(), told });
        self.hurry(number);
    }

    /// What is left of a main that has ended, and is told to end too, has no more time to show another main than it would
    /// have to end.
    fn hurry(&mut self, number: i32) {
        if let Some(core) = self.core.as_mut().filter(|core| asks_to_end(number) && !core.may_fall_back) {
            core.end = core.end.min(Instant::now() + PATIENCE);
        }
    }

    /// The members that are at the top now, and were below another one when a signal came, get it too: a main that ended
    /// by it may have left them.
    fn tell_newcomers(&mut self) {
        if !self.sent.iter().any(|sent| sent.to_members) {
            return;
        }
        let top = self.place.top();
        for sent in self.sent.iter_mut().filter(|sent| sent.to_members) {
            for &pid in &top {
                if !sent.told.contains(&pid) {
                    let _ = signal::kill(pid, sent.number);
                    sent.told.push(pid);
                }
            }
        }
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
            Outcome::Waiting => {
                self.tell_newcomers();
                return outcome;
            }
            Outcome::Found(watch) => self.tell(watch),
            Outcome::FellBack(watch) => {
                let pid = decimal(watch.pid().as_raw().unsigned_abs());
                warn!(self.place.pid_file, " names no process: following process ", pid, ", the only one that is left");
                self.tell(watch);
            }
            Outcome::NoMemberLeft(_) | Outcome::Failed(_) => {}
        }
        self.give_up();
        outcome
    }

    /// Ends the search, or what would have become one: main is known without it.
    pub fn found_otherwise(&mut self, main: &Watch) {
        self.tell(main);
        self.give_up();
    }

    /// Ends the search without a result, for instance because there is nothing to be found any more.
    pub fn give_up(&mut self) {
        self.core = None;
        self.directory = Directory::default();
        self.sent.clear();
    }

    /// What main missed while it was not known.
    fn tell(&mut self, main: &Watch) {
        for sent in self.sent.drain(..).filter(|sent| !sent.told.contains(&main.pid())) {
            let _ = main.kill(sent.number);
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
        match KNOWS_SUBREAPERS {
            false => true,
            true if self.others.is_empty() || !knows_descendants() => has_children(),
            true => !self.top().is_empty(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// We, in the model.
    const HERE: i32 = 1000;

    #[derive(Clone, Copy, Debug)]
    struct Process {
        pid: i32,
        parent: i32,
        /// Tells it from others that have had its number.
        birth: usize,
        member: bool,
        zombie: bool,
    }

    /// What happens in the world between two questions.
    #[derive(Clone, Copy, Debug)]
    enum Change {
        /// The n-th process forks; the child gets this number if it is free.
        Fork(usize, i32),
        /// The n-th process ends. Its children come to us, or to process 1.
        End(usize),
        /// The n-th zombie that is not our child is reaped by its parent. Our own are reaped between two looks.
        Reap(usize),
        Write(Content),
    }

    fn change() -> impl Strategy<Value = Change> {
        let pid = || 2..9i32;
        prop_oneof![
            3 => (0..8usize, pid()).prop_map(|(n, pid)| Change::Fork(n, pid)),
            3 => (0..8usize).prop_map(Change::End),
            3 => (0..8usize).prop_map(Change::Reap),
            3 => pid().prop_map(|pid| Change::Write(Content::Number(Pid::from_raw(pid)))),
            1 => prop_oneof![Just(Change::Write(Content::Missing)), Just(Change::Write(Content::Invalid))],
        ]
    }

    #[derive(Debug)]
    struct Model {
        table: Vec<Process>,
        births: usize,
        content: Content,
        /// What happens before each question.
        changes: Vec<Vec<Change>>,
    }

    impl Model {
        fn new(changes: Vec<Vec<Change>>) -> Self {
            let mut model = Model { table: Vec::new(), births: 0, content: Content::Missing, changes };
            model.born(2, HERE, true);
            model.born(3, 1, false);
            model
        }

        fn born(&mut self, pid: i32, parent: i32, member: bool) {
            if self.table.iter().all(|p| p.pid != pid) {
                self.births += 1;
                self.table.push(Process { pid, parent, birth: self.births, member, zombie: false });
            }
        }

        fn tick(&mut self) {
            self.changes.pop().unwrap_or_default().into_iter().for_each(|change| self.happen(change));
        }

        fn reap(&mut self) {
            self.table.retain(|p| !(p.zombie && p.parent == HERE));
        }

        fn happen(&mut self, change: Change) {
            match change {
                Change::Fork(n, pid) => {
                    if let Some(&parent) = self.table.iter().filter(|p| !p.zombie).nth(n) {
                        self.born(pid, parent.pid, parent.member);
                    }
                }
                Change::End(n) => {
                    let Some(ended) = self.table.iter_mut().filter(|p| !p.zombie).nth(n) else { return };
                    ended.zombie = true;
                    let Process { pid, member, .. } = *ended;
                    let reaper = if member { HERE } else { 1 };
                    self.table.iter_mut().filter(|p| p.parent == pid).for_each(|p| p.parent = reaper);
                }
                Change::Reap(n) => {
                    let dead = self.table.iter().filter(|p| p.zombie && p.parent != HERE).nth(n).map(|p| p.birth);
                    self.table.retain(|p| Some(p.birth) != dead);
                }
                Change::Write(content) => self.content = content,
            }
        }

        fn by_birth(&self, birth: usize) -> Option<&Process> {
            self.table.iter().find(|p| p.birth == birth)
        }
    }

    impl World for Model {
        type Watch = Process;

        fn content(&mut self) -> Content {
            self.tick();
            self.content
        }

        fn pin(&mut self, pid: Pid) -> Option<Process> {
            self.tick();
            self.table.iter().find(|p| p.pid == pid.as_raw()).copied()
        }

        fn is_alive(&mut self, watch: &Process) -> bool {
            self.tick();
            self.by_birth(watch.birth).is_some_and(|p| !p.zombie)
        }

        fn is_member(&mut self, pid: Pid) -> bool {
            self.tick();
            self.table.iter().any(|p| p.pid == pid.as_raw() && p.member)
        }

        fn has_members(&mut self) -> bool {
            self.tick();
            self.table.iter().any(|p| p.member)
        }

        fn top(&mut self) -> Vec<Pid> {
            self.tick();
            let top = self.table.iter().filter(|p| p.parent == HERE && !p.zombie);
            top.map(|p| Pid::from_raw(p.pid)).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn whatever_happens_meanwhile_no_stranger_is_followed_and_no_member_given_up_early(
            changes in proptest::collection::vec(proptest::collection::vec(change(), 0..5), 0..80),
            milliseconds in proptest::collection::vec(0..40u64, 1..30),
            length in 0..400u64,
            may_fall_back: bool,
        ) {
            let start = Instant::now();
            let end = start + Duration::from_millis(length);
            let mut core = Core::new(start, end, may_fall_back);
            let mut world = Model::new(changes);
            let mut now = start;
            for late in milliseconds {
                match core.look(now, &mut world, WaitStatus::default()) {
                    Outcome::Waiting => {
                        prop_assert!(now < end && core.next > now && core.next <= now + PAUSE);
                        now = core.next + Duration::from_millis(late);
                        world.reap();
                        continue;
                    }
                    Outcome::Found(main) => {
                        prop_assert!(main.member);
                        prop_assert_eq!(world.content, Content::Number(Pid::from_raw(main.pid)));
                    }
                    Outcome::FellBack(main) => prop_assert!(main.member && now >= end && may_fall_back),
                    Outcome::NoMemberLeft(_) => prop_assert!(!world.table.iter().any(|p| p.member)),
                    Outcome::Failed(_) => prop_assert!(now >= end),
                }
                break;
            }
        }
    }

    /// A world in which nothing changes: these members, this content.
    fn still(members: &[(i32, i32)], content: Content) -> Model {
        let mut model = Model::new(Vec::new());
        model.table.retain(|p| !p.member);
        members.iter().for_each(|&(pid, parent)| model.born(pid, parent, true));
        model.content = content;
        model
    }

    fn number(pid: i32) -> Content {
        Content::Number(Pid::from_raw(pid))
    }

    /// One look, at the limit or long before it, as a word.
    fn outcome(world: &mut Model, at_limit: bool) -> String {
        let now = Instant::now();
        let end = if at_limit { now } else { now + PATIENT };
        match Core::new(now, end, true).look(now, world, WaitStatus::exited(0)) {
            Outcome::Waiting => "waiting".to_owned(),
            Outcome::Found(main) => format!("found {}", main.pid),
            Outcome::FellBack(main) => format!("fell back to {}", main.pid),
            Outcome::NoMemberLeft(failure) => format!("none left, {}", failure.exit_code()),
            Outcome::Failed(failure) => format!("failed, {}", failure.exit_code()),
        }
    }

    #[test]
    fn each_case_of_the_specification_has_its_outcome() {
        const STRANGER: i32 = 3;
        let one: &[(i32, i32)] = &[(5, HERE)];
        let deep: &[(i32, i32)] = &[(5, HERE), (6, 5)];
        let two: &[(i32, i32)] = &[(5, HERE), (6, HERE)];
        for (members, content, before, at_limit) in [
            (one, number(5), "found 5", "found 5"),
            (deep, number(6), "found 6", "found 6"),
            (two, number(6), "found 6", "found 6"),
            (one, Content::Missing, "waiting", "fell back to 5"),
            (one, Content::Invalid, "waiting", "fell back to 5"),
            (one, Content::Unreadable(Errno::EACCES), "waiting", "fell back to 5"),
            (one, number(99), "waiting", "fell back to 5"),
            (deep, Content::Missing, "waiting", "fell back to 5"),
            (one, number(STRANGER), "waiting", "failed, 104"),
            (two, Content::Missing, "waiting", "failed, 104"),
            (two, Content::Unreadable(Errno::EACCES), "waiting", "failed, 104"),
            (two, number(99), "waiting", "failed, 104"),
            (&[], Content::Missing, "none left, 104", "none left, 104"),
            (&[], Content::Invalid, "none left, 104", "none left, 104"),
            (&[], number(99), "none left, 111", "none left, 111"),
            (&[], number(STRANGER), "none left, 104", "none left, 104"),
        ] {
            assert_eq!(outcome(&mut still(members, content), false), before, "{members:?} {content:?}");
            assert_eq!(outcome(&mut still(members, content), true), at_limit, "{members:?} {content:?} at the limit");
        }
    }

    #[test]
    fn a_number_that_changes_hands_at_any_moment_leads_to_no_stranger() {
        let deep: &[(i32, i32)] = &[(5, HERE), (6, 5)];
        for questions in 0..6 {
            let mut world = still(deep, number(6));
            // The table: the stranger 3, 5, 6. So 6 ends, 5 reaps it, and 3 has a child that gets its number.
            world.changes = vec![vec![Change::End(2), Change::Reap(0), Change::Fork(0, 6)]];
            world.changes.extend(vec![Vec::new(); questions]);
            let outcome = outcome(&mut world, false);
            // After four it is pinned and was seen alive: it was main, and its end will be noticed.
            assert_eq!(outcome, if questions < 4 { "waiting" } else { "found 6" }, "after {questions} questions");
        }
    }

    #[test]
    fn after_a_reload_nothing_but_the_file_names_main() {
        let now = Instant::now();
        let outcome =
            Core::new(now, now, false).look(now, &mut still(&[(5, HERE)], Content::Missing), WaitStatus::default());
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
    }

    #[test]
    fn a_daemon_that_dies_before_it_is_found_gives_its_status() {
        let now = Instant::now();
        let mut world = still(&[], number(99));
        let Outcome::NoMemberLeft(failure) = Core::new(now, now, true).look(now, &mut world, WaitStatus::exited(3))
        else {
            panic!("no member is left");
        };
        assert_eq!((failure.exit_code(), failure.status), (3, WaitStatus::exited(3)));
        assert_eq!(
            String::from_utf8_lossy(&failure.message(c"/run/d.pid")),
            "the daemon has ended, and /run/d.pid names process 99, which is gone"
        );
    }

    #[test]
    fn it_looks_often_at_first_and_never_past_the_limit() {
        let start = Instant::now();
        let mut core = Core::new(start, start + Duration::from_millis(130), true);
        let mut world = still(&[(5, HERE)], Content::Missing);
        let mut looks = Vec::new();
        while let Outcome::Waiting = core.look(core.next, &mut world, WaitStatus::default()) {
            looks.push((core.next - start).as_millis());
        }
        let want: Vec<u128> = (1..=20).map(|n| n * 5).chain([120, 130]).collect();
        assert_eq!(looks, want);
    }

    #[test]
    fn a_limit_leaves_at_least_a_tenth_of_a_second() {
        let spawned = Instant::now();
        let exited = spawned + Duration::from_secs(3);
        for (length, end) in [
            (None, exited + Duration::from_secs(5)),
            (Some(10_000), spawned + Duration::from_secs(10)),
            (Some(3050), exited + Duration::from_millis(100)),
            (Some(0), exited + Duration::from_millis(100)),
        ] {
            let limit = Limit { since: spawned, length: length.map(Duration::from_millis) };
            assert_eq!(limit.end(exited), end, "{length:?}");
        }
    }
}
