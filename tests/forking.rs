//! Daemons that fork themselves, under s6-background-watch and in service directories with a `pidfile`.
//!
//! The cases are those of spec/forking-daemons.md 6, each a function of who follows the daemon. Everything runs under
//! an s6-supervise of ours, beneath a reaper that sees whatever escapes.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::daemons::{self, Effect, Home};
use common::service::{Service, Supervised};
use common::{Background, Scratch, bin_dir, eventually, finish, is_alive, kill, program, text, until, with_path};
use s6::servicedir::status::Status;
use s6::sys::process::{Entry, all};

/// Who follows the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// run is s6-background-watch.
    Watcher,
    /// s6-supervise, told by the file `pidfile`.
    Pidfile,
}

/// A service with a daemon that forks itself, under supervision, and all that ever descended from it.
struct Daemon {
    how: How,
    service: Supervised,
}

impl Daemon {
    /// A service directory for a command line; its finish writes a line of its first two arguments to `deaths`.
    fn directory(how: How, options: &str, pid_file: &str, command: &str) -> Service {
        Self::fill(Service::new(""), how, options, pid_file, command)
    }

    fn fill(service: Service, how: How, options: &str, pid_file: &str, command: &str) -> Service {
        let service = match how {
            How::Watcher => {
                service.run(&format!("exec s6-background-watch -d 3 {options} {pid_file} {command}"));
                service
            }
            How::Pidfile => {
                service.run(&format!("exec {command}"));
                service.file("pidfile", &format!("{pid_file}\n"))
            }
        };
        service.file("notification-fd", "3\n").finish("echo $1 $2 >>deaths")
    }

    /// A service directory for tests/common/imitation.py.
    fn imitation(how: How, words: &str) -> Service {
        Self::with_options(how, "", words)
    }

    fn with_options(how: How, options: &str, words: &str) -> Service {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/imitation.py");
        Self::directory(how, options, "daemon.pid", &format!("python3 -SE {} {words}", script.display()))
    }

    /// Starts the supervisor. `None`, said on stderr, where python3 is missing.
    fn start(how: How, service: Service) -> Option<Daemon> {
        if Command::new("python3").arg("-c").output().is_err() {
            eprintln!("skipped: python3 is not installed");
            return None;
        }
        let mut collector = with_path(Command::new("python3"));
        collector.arg("-SE").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/collector.py"));
        collector.arg(bin_dir().join("s6-supervise"));
        Some(Daemon { how, service: service.supervise_with(&mut collector) })
    }

    /// Starts an imitation.
    fn run(how: How, words: &str) -> Option<Daemon> {
        Self::start(how, Self::imitation(how, words))
    }

    fn status(&self) -> Status {
        self.service.status()
    }

    fn file(&self, name: &str) -> String {
        text(self.service.service.path(name))
    }

    /// The number in the pid file.
    fn main(&self) -> i32 {
        eventually("the pid file has a number", || self.file("daemon.pid").trim().parse().ok())
    }

    /// The codes and signals of the deaths so far, as finish sees them.
    fn deaths(&self) -> Vec<String> {
        self.file("deaths").lines().map(str::to_owned).collect()
    }

    /// Waits for the first death.
    fn first_death(&self) -> String {
        eventually("a death", || self.deaths().first().cloned())
    }

    /// What finish is told of a daemon that was killed by a signal.
    fn killed_by(&self, signal: i32) -> String {
        match self.how {
            How::Watcher => format!("{} 0", 128 + signal),
            How::Pidfile => format!("256 {signal}"),
        }
    }

    /// What finish is told when there never was a main.
    fn no_main(&self) -> &'static str {
        match self.how {
            How::Watcher => "104 0",
            How::Pidfile => "0 0",
        }
    }

    /// Waits until the imitation has logged a line that begins so.
    fn wait_for_line(&self, start: &str) -> String {
        eventually(&format!("the log has {start}"), || {
            self.file("log").lines().rfind(|line| line.starts_with(start)).map(str::to_owned)
        })
    }

    /// The number in the last such line.
    fn logged(&self, word: &str) -> i32 {
        self.wait_for_line(word).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The s6-supervise, which is the collector's oldest child.
    fn supervisor(&self) -> i32 {
        eventually("the supervisor", || {
            let here = self.service.supervisor.pid();
            all().iter().filter(|e| e.parent.as_raw() == here).map(|e| e.pid.as_raw()).min()
        })
    }

    /// The inner process of the watcher.
    fn inner(&self) -> i32 {
        children(self.status().pid as i32)[0]
    }

    /// All live processes of the service, those that follow the daemon included.
    fn family(&self) -> Vec<i32> {
        let supervisor = self.supervisor();
        descendants(self.service.supervisor.pid())
            .iter()
            .filter(|e| e.alive && e.pid.as_raw() != supervisor)
            .map(|e| e.pid.as_raw())
            .collect()
    }

    /// Takes the service down, and with it everything that ever belonged to it.
    fn down(&self) {
        self.service.command("d");
        self.service.wait("the service is down", |s| s.pid == 0 && !s.wanted_up);
        assert_eq!(self.family(), Vec::<i32>::new(), "something is left: {}", self.service.errors());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let collector = self.service.supervisor.pid();
        until("nothing is left of the test", || {
            let left = descendants(collector);
            left.iter().for_each(|entry| kill(entry.pid.as_raw(), 9));
            left.is_empty()
        });
    }
}

/// The live children of a process.
fn children(parent: i32) -> Vec<i32> {
    all().iter().filter(|e| e.parent.as_raw() == parent && e.alive).map(|e| e.pid.as_raw()).collect()
}

/// What descends from a process.
fn descendants(root: i32) -> Vec<Entry> {
    let table = all();
    let mut family = vec![root];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        for entry in table.iter().filter(|e| e.parent.as_raw() == parent) {
            family.push(entry.pid.as_raw());
            found.push(*entry);
        }
    }
    found
}

/// Declares tests of cases for both followers.
macro_rules! cases {
    ($($name:ident)*) => {
        mod watcher {
            $(#[test] fn $name() { super::$name(super::How::Watcher); })*
        }
        mod pidfile {
            $(#[test] fn $name() { super::$name(super::How::Pidfile); })*
        }
    };
}

cases! {
    a_late_pid_file_is_waited_for
    an_empty_or_wrong_file_is_not_the_last_word
    an_old_file_misleads_nobody
    a_daemon_that_dies_before_it_writes_is_a_death_with_its_code
    without_a_file_the_only_process_left_is_followed
    without_a_file_several_processes_are_a_failure
    a_stranger_is_neither_followed_nor_signalled
    a_parent_that_fails_takes_everything_with_it
    a_program_that_does_not_fork_has_ended
    a_killed_main_takes_its_workers_with_it
    workers_that_do_not_listen_are_killed_after_main
    workers_have_no_more_time_than_the_service
    hundreds_of_workers_are_killed_at_once
    a_worker_without_its_first_thread_is_no_zombie
    the_exit_code_is_main_s
    the_exit_code_of_somebody_else_s_child_is_known_too
    members_that_outlive_a_main_that_exits_well_are_no_daemon
    a_signal_reaches_main
    what_a_signal_leaves_before_main_is_known_is_not_followed
    a_signal_before_main_is_known_is_not_lost
    a_reload_that_forks_again_is_no_death
    what_a_main_leaves_that_reloads_badly_can_be_taken_down
    a_main_that_hands_over_to_a_child_is_no_death
    a_main_that_exits_well_with_nobody_left_is_a_death
    orphans_leave_no_zombies
    nothing_happens_while_nothing_happens
    sigterm_to_the_supervisor_ends_the_daemon
    a_pid_file_that_is_no_file_stays
    members_are_kept_where_a_flag_says_so
    an_ssh_session_survives_the_restart_of_its_listener
}

/// Starts the imitation or leaves the test, where that is not possible.
macro_rules! started {
    ($daemon:expr) => {
        match $daemon {
            Some(daemon) => daemon,
            None => return,
        }
    };
}

fn a_late_pid_file_is_waited_for(how: How) {
    for words in
        ["late=0", "late=20", "late=300", "late=1500", "write=rename late=20", "forks=2 late=20", "writer=parent"]
    {
        let mut daemon = started!(Daemon::run(how, words));
        daemon.service.listener.expect("suU");
        let written: f64 = daemon.file("log").lines().find_map(|l| l.strip_prefix("writes ")).unwrap().parse().unwrap();
        let ready = daemon.status().readystamp;
        let ready = ready.to_unix().unwrap().seconds as f64 + f64::from(ready.nanoseconds) / 1e9;
        assert!(ready >= written, "{words}: ready {ready}, written {written}");
        assert!(daemon.family().contains(&daemon.main()));
        daemon.down();
        daemon.service.listener.expect("suUdD");
    }
}

fn an_empty_or_wrong_file_is_not_the_last_word(how: How) {
    for words in ["write=empty", "write=junk", "text=%d", "'text=  %d since today'"] {
        let mut daemon = started!(Daemon::run(how, words));
        daemon.service.listener.expect("suU");
        daemon.down();
    }
}

fn an_old_file_misleads_nobody(how: How) {
    let mut stranger = Background::start(Command::new("sleep").arg("1000"));
    for old in [format!("{}\n", stranger.pid()), "garbage\n".to_owned(), String::new(), "999999999\n".to_owned()] {
        let service = Daemon::imitation(how, "late=20").file("daemon.pid", &old);
        let mut daemon = started!(Daemon::start(how, service));
        daemon.service.listener.expect("suU");
        assert!(daemon.family().contains(&daemon.main()), "{old}");
        daemon.down();
    }
    assert!(stranger.is_running());
}

fn a_daemon_that_dies_before_it_writes_is_a_death_with_its_code(how: How) {
    for words in ["dies=3", "dies=3 late=30", "dies=3 forks=2"] {
        let mut daemon = started!(Daemon::run(how, words));
        assert_eq!(daemon.first_death(), "3 0");
        assert!(!daemon.service.listener.letters().contains('U'));
    }
}

/// Milliseconds in which a daemon starts even on a busy machine, and which can be waited for.
const SOON: u32 = 1500;

/// A time limit for the start.
fn with_limit(how: How, milliseconds: u32, words: &str) -> Service {
    let service = Daemon::with_options(how, &format!("-t {milliseconds}"), words);
    match how {
        How::Watcher => service,
        How::Pidfile => service.file("timeout-ready", &format!("{milliseconds}\n")),
    }
}

fn without_a_file_the_only_process_left_is_followed(how: How) {
    for words in ["write=never workers=2", "text=junk", "text=999999999"] {
        let mut daemon = started!(Daemon::start(how, with_limit(how, SOON, words)));
        daemon.service.listener.expect("suU");
        assert!(daemon.service.errors().contains("daemon.pid names no process: following process "));
        kill(daemon.logged("main"), 9);
        assert_eq!(daemon.first_death(), daemon.killed_by(9));
    }
}

fn without_a_file_several_processes_are_a_failure(how: How) {
    let mut daemon = started!(Daemon::start(how, with_limit(how, SOON, "write=never second=1")));
    assert_eq!(daemon.first_death(), daemon.no_main());
    daemon.down();
    assert!(!daemon.service.listener.letters().contains('U'));
}

fn a_stranger_is_neither_followed_nor_signalled(how: How) {
    let mut stranger = Background::start(Command::new("sleep").arg("1000"));
    let words = format!("text={}", stranger.pid());
    let mut daemon = started!(Daemon::start(how, with_limit(how, SOON, &words)));
    assert_eq!(daemon.first_death(), daemon.no_main());
    daemon.down();
    assert!(!daemon.service.listener.letters().contains('U'));
    assert!(stranger.is_running());
}

fn a_parent_that_fails_takes_everything_with_it(how: How) {
    for words in ["refuses=1", "fails=1", "fails=1 workers=2 stubborn=1"] {
        let daemon = started!(Daemon::start(how, Daemon::imitation(how, words).file("daemon.pid", "1234\n")));
        assert_eq!(daemon.first_death(), "1 0", "{words}");
        daemon.service.command("O");
        until("nothing is left", || daemon.status().pid == 0 && daemon.family().is_empty());
        assert!(!daemon.service.service.path("daemon.pid").exists());
    }
}

fn a_program_that_does_not_fork_has_ended(how: How) {
    let daemon = started!(Daemon::start(how, Daemon::directory(how, "", "daemon.pid", "true")));
    assert_eq!(daemon.first_death(), daemon.no_main());
}

fn a_killed_main_takes_its_workers_with_it(how: How) {
    let mut daemon = started!(Daemon::run(how, "workers=3 stubborn=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let before = daemon.family();
    let main = daemon.main();
    kill(main, 9);
    daemon.service.listener.expect("suUdDuU");
    assert_eq!(daemon.first_death(), daemon.killed_by(9));
    assert!(before.iter().all(|&pid| !is_alive(pid)), "an old process is left");
    assert_ne!(daemon.main(), main);
    daemon.down();
}

fn workers_that_do_not_listen_are_killed_after_main(how: How) {
    let mut daemon = started!(Daemon::run(how, "workers=3 stubborn=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    daemon.down();
    assert_eq!(daemon.deaths(), ["0 0"]);
}

fn workers_have_no_more_time_than_the_service(how: How) {
    let service = Daemon::imitation(how, "workers=1 stubborn=1").file("timeout-kill", "100\n");
    let mut daemon = started!(Daemon::start(how, service));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let told = Instant::now();
    daemon.service.command("1");
    assert_eq!(daemon.first_death(), "7 0");
    assert!(told.elapsed() < Duration::from_secs(1));
    daemon.down();
}

fn hundreds_of_workers_are_killed_at_once(how: How) {
    let mut daemon = started!(Daemon::run(how, "workers=800"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let killed = Instant::now();
    kill(daemon.main(), 9);
    assert_eq!(daemon.first_death(), daemon.killed_by(9));
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    daemon.down();
}

fn a_worker_without_its_first_thread_is_no_zombie(how: How) {
    let mut daemon = started!(Daemon::run(how, "workers=1 headless=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let worker = daemon.logged("bystander");
    until("its first thread has ended", || state(worker) == 'Z');
    daemon.down();
    assert_eq!(state(worker), '-');
}

fn the_exit_code_is_main_s(how: How) {
    let mut daemon = started!(Daemon::run(how, ""));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    daemon.service.command("1");
    assert_eq!(daemon.first_death(), "7 0");
    daemon.down();
}

fn the_exit_code_of_somebody_else_s_child_is_known_too(how: How) {
    let mut daemon = started!(Daemon::run(how, "forks=2 stays=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let between = daemon.logged("bystander");
    daemon.service.command("1");
    assert_eq!(daemon.first_death(), "7 0");
    assert!(!is_alive(between));
    daemon.down();
}

fn members_that_outlive_a_main_that_exits_well_are_no_daemon(how: How) {
    let mut daemon = started!(Daemon::start(how, with_limit(how, SOON, "workers=2")));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let worker = daemon.logged("bystander");
    kill(daemon.main(), 15);
    assert_eq!(daemon.first_death(), "0 0");
    assert!(!is_alive(worker));
    daemon.down();
}

fn a_signal_reaches_main(how: How) {
    let mut daemon = started!(Daemon::run(how, "ignores=1"));
    daemon.service.listener.expect("suU");
    daemon.service.command("t");
    daemon.wait_for_line(&format!("told {} SIGTERM", daemon.main()));
    assert_eq!(daemon.deaths(), Vec::<String>::new());
}

/// Before the file comes, main ends by a signal and leaves a worker: that is no daemon, and gets the signal too.
fn what_a_signal_leaves_before_main_is_known_is_not_followed(how: How) {
    for stubborn in [false, true] {
        let words = format!("late=60000 early=1 workers=1 stubborn={}", i32::from(stubborn));
        let mut daemon = started!(Daemon::start(how, with_limit(how, 4 * SOON, &words)));
        let parent = daemon.logged("parent");
        daemon.wait_for_line("bystander");
        until("the parent is gone", || !is_alive(parent));
        daemon.service.command("Oa");
        let death = if stubborn { daemon.no_main().to_owned() } else { daemon.killed_by(14) };
        assert_eq!(daemon.first_death(), death, "{words}");
        until("nothing is left", || daemon.status().pid == 0 && daemon.family().is_empty());
        assert!(!daemon.service.listener.letters().contains('U'), "{words}");
    }
}

/// Between the parent's exit and the coming of the file, and while the parent lives.
fn a_signal_before_main_is_known_is_not_lost(how: How) {
    for words in ["late=500", "late=500 forks=2", "late=500 write=rename"] {
        let daemon = started!(Daemon::run(how, words));
        let parent = daemon.logged("parent");
        until("the parent is gone", || !is_alive(parent));
        daemon.down();
        assert_eq!(daemon.deaths().len(), 1);
    }
    let daemon = started!(Daemon::run(how, "hangs=1"));
    let parent = daemon.logged("parent");
    daemon.down();
    assert!(!is_alive(parent));
}

fn a_reload_that_forks_again_is_no_death(how: How) {
    for words in ["late=20 workers=1", "late=300 write=rename workers=1"] {
        let mut daemon = started!(Daemon::run(how, words));
        daemon.service.listener.expect("suU");
        for _ in 0..2 {
            let old = daemon.main();
            daemon.wait_for_line(&format!("main {old}"));
            daemon.service.command("h");
            let new = eventually("another main", || Some(daemon.main()).filter(|&pid| pid != old));
            daemon.wait_for_line(&format!("main {new}"));
            until("the old main is gone", || !is_alive(old));
            if how == How::Pidfile {
                daemon.service.wait("the status names the new main", |s| s.pid == new as u64 && s.ready);
            }
            daemon.service.command("y");
            daemon.wait_for_line(&format!("told {new} SIGWINCH"));
        }
        assert_eq!(daemon.service.listener.letters(), "suU", "{words}");
        daemon.down();
    }
}

/// While another main is searched for, which never comes.
fn what_a_main_leaves_that_reloads_badly_can_be_taken_down(how: How) {
    let mut daemon = started!(Daemon::start(how, with_limit(how, 60_000, "workers=1 stubborn=1")));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let main = daemon.main();
    kill(main, 15);
    until("main is reaped", || state(main) == '-');
    daemon.down();
    daemon.service.listener.expect("suUdD");
    assert_eq!(daemon.deaths(), ["0 0"]);
}

fn a_main_that_hands_over_to_a_child_is_no_death(how: How) {
    let mut daemon = started!(Daemon::run(how, ""));
    daemon.service.listener.expect("suU");
    let old = daemon.main();
    daemon.wait_for_line(&format!("main {old}"));
    daemon.service.command("2");
    let new = eventually("another main", || Some(daemon.main()).filter(|&pid| pid != old));
    until("the old main is gone", || !is_alive(old));
    daemon.service.command("y");
    daemon.wait_for_line(&format!("told {new} SIGWINCH"));
    if how == How::Pidfile {
        daemon.service.wait("the status names the new main", |s| s.pid == new as u64 && s.ready);
    }
    assert_eq!(daemon.service.listener.letters(), "suU");
    daemon.service.command("1");
    assert_eq!(daemon.first_death(), "7 0");
    daemon.down();
}

fn a_main_that_exits_well_with_nobody_left_is_a_death(how: How) {
    let mut daemon = started!(Daemon::run(how, ""));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    kill(daemon.main(), 15);
    assert_eq!(daemon.first_death(), "0 0");
    daemon.down();
}

fn orphans_leave_no_zombies(how: How) {
    let mut daemon = started!(Daemon::run(how, ""));
    daemon.service.listener.expect("suU");
    daemon.service.command("y");
    daemon.wait_for_line("orphans");
    until("no zombie is left", || descendants(daemon.service.supervisor.pid()).iter().all(|e| e.alive));
    assert_eq!(daemon.service.listener.letters(), "suU");
    daemon.down();
}

/// How often a process has given up the processor of its own will: once for each time it went to sleep.
fn sleeps(pid: i32) -> u64 {
    let status = text(format!("/proc/{pid}/status"));
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap()
}

fn nothing_happens_while_nothing_happens(how: How) {
    let mut daemon = started!(Daemon::run(how, ""));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let main = daemon.main();
    let mut followers = daemon.family();
    followers.retain(|&pid| pid != main);
    followers.push(daemon.supervisor());
    let count = || followers.iter().map(|&pid| sleeps(pid)).collect::<Vec<_>>();
    let before = eventually("everybody sleeps", || {
        let before = count();
        std::thread::sleep(Duration::from_millis(50));
        (count() == before).then_some(before)
    });
    // Nothing to wait for: that nothing happens is what is to be seen.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(count(), before);
    daemon.down();
}

fn sigterm_to_the_supervisor_ends_the_daemon(how: How) {
    let mut daemon = started!(Daemon::run(how, "workers=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    kill(daemon.supervisor(), 15);
    assert_eq!(daemon.service.supervisor.code(), 0, "the collector ends when nobody is left");
    daemon.service.listener.expect_end("dDx");
}

fn a_pid_file_that_is_no_file_stays(how: How) {
    let service = Daemon::imitation(how, "write=plain");
    let target = service.scratch.write("target", "1234\n");
    std::os::unix::fs::symlink(&target, service.path("daemon.pid")).unwrap();
    let mut daemon = started!(Daemon::start(how, service));
    daemon.service.listener.expect("suU");
    assert!(daemon.service.service.path("daemon.pid").is_symlink());
    assert!(daemon.service.errors().contains("not removing the old pid file"), "{}", daemon.service.errors());
    daemon.down();

    let service = with_limit(how, SOON, "write=never");
    std::fs::create_dir(service.path("daemon.pid")).unwrap();
    let mut daemon = started!(Daemon::start(how, service));
    daemon.service.listener.expect("suU");
    daemon.down();
    assert!(daemon.service.service.path("daemon.pid").is_dir());
}

fn members_are_kept_where_a_flag_says_so(how: How) {
    for flag in ["flag-keep-members", "data/s6-rs/flag-keep-members"] {
        let mut daemon = started!(Daemon::start(how, Daemon::imitation(how, "workers=1").file(flag, "")));
        daemon.service.listener.expect("suU");
        daemon.wait_for_line("main");
        let kept = daemon.logged("bystander");
        daemon.service.command("r");
        daemon.service.listener.expect("suUdDuU");
        assert!(is_alive(kept));
        assert!(daemon.family().contains(&daemon.main()));
    }
    let mut daemon = started!(Daemon::start(how, Daemon::imitation(how, "workers=1").file("flag-keep-members", "")));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let kept = daemon.logged("bystander");
    daemon.service.command("O");
    kill(daemon.main(), 9);
    daemon.service.listener.expect("suUdD");
    assert!(is_alive(kept));
    assert!(!daemon.service.service.path("daemon.pid").exists());
}

// ---- Thirteen real daemons

/// A real daemon under supervision.
struct Real {
    daemon: Daemon,
    home: Home,
    /// Those with a pid file of the whole system run one at a time.
    _turn: Option<nix::fcntl::Flock<std::fs::File>>,
}

impl Drop for Real {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}{}", self.daemon.service.errors(), text(self.home.path("log")));
        }
    }
}

impl Real {
    fn start(how: How, name: &str, flags: &[&str]) -> Option<Real> {
        let about = daemons::find(name)?;
        let turn = about.pid_file.map(|_| {
            let program = std::fs::File::open(about.program).unwrap();
            nix::fcntl::Flock::lock(program, nix::fcntl::FlockArg::LockExclusive).unwrap()
        });
        let mut service = Service::new("");
        let home = Home::new(about, service.scratch.path("home"));
        let (pid_file, command) = (home.pid_file(), home.command());
        service = Daemon::fill(service, how, "", pid_file.to_str().unwrap(), &command);
        for flag in flags {
            service = service.file(flag, "");
        }
        Some(Real { daemon: Daemon::start(how, service)?, home, _turn: turn })
    }

    /// The number in the pid file.
    fn main(&self) -> i32 {
        eventually("the pid file has a number", || text(self.home.pid_file()).trim().parse().ok())
    }

    /// Waits until it is ready, and looks whether it is alone and serves; main.
    fn ready(&self) -> i32 {
        self.daemon.service.wait("the daemon is ready", |s| s.is_up() && s.ready);
        let main = self.main();
        let parent = match self.daemon.how {
            How::Watcher => self.daemon.inner(),
            How::Pidfile => self.daemon.supervisor(),
        };
        let top: Vec<i32> = children(parent);
        assert_eq!(top, [main], "not the only one: {}", self.daemon.service.errors());
        if self.daemon.how == How::Pidfile {
            self.daemon.service.wait("the status names main", |s| s.pid == main as u64);
        }
        until("the daemon serves", || self.home.serves());
        main
    }
}

fn five_starts_and_stops_in_a_row_are_good(how: How, name: &str) {
    let mut real = started!(Real::start(how, name, &[]));
    let mut mains = std::collections::BTreeSet::new();
    for _ in 0..5 {
        real.daemon.service.command("u");
        mains.insert(real.ready());
        real.daemon.down();
    }
    assert_eq!(mains.len(), 5);
    real.daemon.service.listener.expect(&format!("s{}", "uUdD".repeat(5)));
}

fn a_signal_does_what_the_daemon_makes_of_it(how: How, name: &str) {
    let mut real = started!(Real::start(how, name, &[]));
    let main = real.ready();
    let (letter, effect) = daemons::find(name).unwrap().told;
    match effect {
        Effect::Stays(shows) => {
            let before = shows(&real.home, main);
            real.daemon.service.command(letter);
            until("the signal has its effect", || shows(&real.home, main) != before);
            until("the daemon serves", || real.home.serves());
            assert_eq!(real.main(), main);
            assert_eq!(real.daemon.service.listener.letters(), "suU");
        }
        Effect::Forks => {
            real.daemon.service.command(letter);
            until("another main", || is_alive(real.main()) && real.main() != main && !is_alive(main));
            assert_ne!(real.ready(), main);
            assert_eq!(real.daemon.service.listener.letters(), "suU");
        }
        Effect::Exits => {
            real.daemon.service.command(letter);
            real.daemon.service.listener.expect("suUdDuU");
            assert_ne!(real.ready(), main);
        }
    }
    // Now and then apache2 forgets a SIGTERM that comes while it reloads.
    until("it goes down", || {
        real.daemon.service.command("d");
        real.daemon.status().pid == 0
    });
    real.daemon.down();
}

fn a_killed_main_is_replaced(how: How, name: &str) {
    let mut real = started!(Real::start(how, name, &[]));
    let main = real.ready();
    let before = real.daemon.family();
    kill(main, 9);
    assert_eq!(real.daemon.first_death(), real.daemon.killed_by(9));
    assert!(before.iter().all(|&pid| !is_alive(pid)));
    real.daemon.service.listener.expect("suUdDuU");
    assert_ne!(real.ready(), main);
    real.daemon.down();
}

fn a_killed_watcher_is_replaced(how: How, name: &str) {
    if how != How::Watcher {
        return;
    }
    let real = started!(Real::start(how, name, &[]));
    let main = real.ready();
    let (before, watcher) = (real.daemon.family(), real.daemon.status().pid);
    real.daemon.service.command("k");
    until("the old daemon is gone", || before.iter().all(|&pid| !is_alive(pid)));
    real.daemon.service.wait("ready again", |s| s.is_up() && s.ready && s.pid != watcher);
    assert_ne!(real.ready(), main);
    real.daemon.down();
}

fn an_ssh_session_survives_the_restart_of_its_listener(how: How) {
    let real = started!(Real::start(how, "sshd", &["flag-keep-members"]));
    let main = real.ready();
    let mut session = Background::start(
        Command::new("ssh")
            .args(["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "LogLevel=ERROR", "-p", &real.home.port.to_string(), "-i"])
            .arg(real.home.path("key"))
            .args(["root@127.0.0.1", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut input = session.0.stdin.take().unwrap();
    let mut output = BufReader::new(session.0.stdout.take().unwrap());
    let mut echo = |text: &str| {
        let mut line = String::new();
        writeln!(input, "{text}").unwrap();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), text);
    };
    echo("before");
    real.daemon.service.command("r");
    until("another main", || is_alive(real.main()) && real.main() != main);
    until("the daemon serves", || real.home.serves());
    echo("after");
    assert!(!is_alive(main));
}

/// Declares the tests of real daemons for both followers.
macro_rules! real {
    ($($name:ident)*) => { $(
        mod $name {
            use super::How::{Pidfile, Watcher};

            #[test]
            fn five_starts_and_stops_with_a_pidfile() {
                super::five_starts_and_stops_in_a_row_are_good(Pidfile, stringify!($name));
            }

            #[test]
            fn five_starts_and_stops_under_the_watcher() {
                super::five_starts_and_stops_in_a_row_are_good(Watcher, stringify!($name));
            }

            #[test]
            fn a_signal_with_a_pidfile() {
                super::a_signal_does_what_the_daemon_makes_of_it(Pidfile, stringify!($name));
            }

            #[test]
            fn a_signal_under_the_watcher() {
                super::a_signal_does_what_the_daemon_makes_of_it(Watcher, stringify!($name));
            }

            #[test]
            fn sigkill_to_main_with_a_pidfile() {
                super::a_killed_main_is_replaced(Pidfile, stringify!($name));
            }

            #[test]
            fn sigkill_to_main_under_the_watcher() {
                super::a_killed_main_is_replaced(Watcher, stringify!($name));
            }

            #[test]
            fn sigkill_to_the_watcher() {
                super::a_killed_watcher_is_replaced(Watcher, stringify!($name));
            }
        }
    )* };
}

real! { nginx haproxy rsyslogd dnsmasq lighttpd atd unbound exim4 redis apache2 cron sshd memcached }

// ---- What only `pidfile` has

/// The letter for the state of a process.
fn state(pid: i32) -> char {
    text(format!("/proc/{pid}/stat")).rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
}

#[test]
fn pause_and_continue_go_to_main() {
    for (pause, resume) in [("p", "c"), ("P", "C")] {
        let mut daemon = started!(Daemon::run(How::Pidfile, "workers=1"));
        daemon.service.listener.expect("suU");
        daemon.wait_for_line("main");
        let (main, worker) = (daemon.main(), daemon.logged("bystander"));
        daemon.service.command(pause);
        until("main is stopped", || state(main) == 'T' && (pause == "p") == (state(worker) != 'T'));
        assert!(daemon.status().paused);
        daemon.service.command(resume);
        until("main goes on", || state(main) != 'T' && state(worker) != 'T');
        daemon.down();
    }
}

#[test]
fn a_restart_does_not_look_for_a_reload() {
    let mut daemon = started!(Daemon::run(How::Pidfile, "workers=1 stubborn=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let worker = daemon.logged("bystander");
    daemon.service.command("r");
    daemon.service.listener.expect("suUdDuU");
    assert!(!is_alive(worker));
    assert_eq!(daemon.deaths(), ["0 0"]);
    assert_eq!(daemon.service.errors(), "");
}

#[test]
fn a_failed_start_is_cleared_away_even_where_members_are_kept() {
    let service = with_limit(How::Pidfile, SOON, "write=never second=1").file("flag-keep-members", "");
    let daemon = started!(Daemon::start(How::Pidfile, service));
    assert_eq!(daemon.first_death(), "0 0");
    daemon.down();
}

#[test]
fn a_pidfile_among_the_data_counts_unless_there_is_another() {
    for direct in [false, true] {
        let service = Daemon::imitation(How::Pidfile, "");
        std::fs::remove_file(service.path("pidfile")).unwrap();
        let service = match direct {
            true => service.file("pidfile", "daemon.pid\n").file("data/s6-rs/pidfile", "other.pid\n"),
            false => service.file("data/s6-rs/pidfile", "daemon.pid\n"),
        };
        let mut daemon = started!(Daemon::start(How::Pidfile, service));
        daemon.service.listener.expect("suU");
        assert_eq!(daemon.status().pid, daemon.main() as u64);
        daemon.down();
    }
}

#[test]
fn without_a_pidfile_orphans_go_where_they_went() {
    let service = Service::new("(sleep 1000 & echo $! >orphan); exec sleep 1000");
    let daemon = started!(Daemon::start(How::Pidfile, service));
    let orphan: i32 = eventually("the orphan", || daemon.file("orphan").trim().parse().ok());
    until("the orphan is the collector's", || children(daemon.service.supervisor.pid()).contains(&orphan));
}

#[test]
fn a_daemon_that_names_itself_is_not_searched_for_any_more() {
    // Two processes at the top, no pid file, and, after the limit, an orphan that ends.
    let main = "s6-sdnotify --pid --ready; sleep 0.5; (sleep 0 &); touch orphaned; exec sleep 1000";
    let command = format!("sh -c '(sleep 1000 & sh -c \"{main}\" &)'");
    let service = Daemon::directory(How::Pidfile, "", "daemon.pid", &command)
        .file("notify-socket", "")
        .file("notify-access", "all\n")
        .file("timeout-ready", "200\n");
    let mut daemon = started!(Daemon::start(How::Pidfile, service));
    daemon.service.listener.expect("suU");
    let main = daemon.status().pid as i32;
    until("the orphan is there", || daemon.service.service.path("orphaned").exists());
    until("the orphan is gone", || daemon.family().len() == 2);
    daemon.service.command("r");
    assert_eq!(daemon.first_death(), "256 15");
    assert_eq!((is_alive(main), daemon.service.errors()), (false, String::new()));
    daemon.down();
}

#[test]
fn a_start_that_takes_too_long_is_taken_down() {
    let service =
        Daemon::imitation(How::Pidfile, "hangs=1").file("timeout-ready", "300\n").file("timeout-kill", "300\n");
    let daemon = started!(Daemon::start(How::Pidfile, service));
    assert_eq!(daemon.first_death(), "256 15");
    daemon.service.command("O");
    until("nothing is left", || daemon.status().pid == 0 && daemon.family().is_empty());
}

#[test]
fn a_supervisor_that_leaves_lets_the_daemon_go_on() {
    let mut daemon = started!(Daemon::run(How::Pidfile, ""));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let main = daemon.main();
    kill(daemon.supervisor(), 3);
    daemon.service.listener.expect("suUx");
    until("the daemon is an orphan", || children(daemon.service.supervisor.pid()) == [main]);
    assert!(is_alive(main));
}

// ---- What only the watcher has

#[test]
fn the_watcher_that_is_killed_takes_the_daemon_with_it() {
    let mut daemon = started!(Daemon::run(How::Watcher, "workers=2 stubborn=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let before = daemon.family();
    daemon.service.command("k");
    daemon.service.listener.expect("suUdDuU");
    until("the old processes are gone", || before.iter().all(|&pid| !is_alive(pid)));
    assert!(daemon.family().contains(&daemon.main()));
    assert_eq!(daemon.first_death(), "256 9");
    daemon.down();
}

#[test]
fn the_inner_process_that_is_killed_takes_the_daemon_with_it() {
    let mut daemon = started!(Daemon::run(How::Watcher, "workers=2 stubborn=1"));
    daemon.service.listener.expect("suU");
    daemon.wait_for_line("main");
    let before = daemon.family();
    kill(daemon.inner(), 9);
    daemon.service.listener.expect("suUdDuU");
    assert_eq!(daemon.first_death(), "111 0");
    assert!(before.iter().all(|&pid| !is_alive(pid)));
    daemon.down();
}

/// In a new PID namespace /proc is that of the old one, until somebody mounts another.
#[test]
fn a_watcher_without_its_process_table_follows_and_ends() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let mut daemon =
        started!(Daemon::start(How::Watcher, Daemon::imitation(How::Watcher, "late=20").file("flag-newpidns", "")));
    daemon.service.listener.expect("suU");
    daemon.service.command("1");
    assert_eq!(daemon.first_death(), "7 0");
    daemon.down();
}

#[test]
fn a_parent_that_takes_too_long_is_killed() {
    for (limit, words) in
        [("-t 500", "hangs=1"), ("-t 0", "hangs=1"), ("--timeout-ready=200", "hangs=1 second=1 stubborn=1")]
    {
        let daemon = started!(Daemon::start(How::Watcher, Daemon::with_options(How::Watcher, limit, words)));
        assert_eq!(daemon.first_death(), "137 0");
        daemon.service.command("O");
        until("nothing is left", || daemon.status().pid == 0 && daemon.family().is_empty());
        let lives = daemon.deaths().len();
        assert_eq!(daemon.service.errors().matches("is not in the background in time").count(), lives);
    }
}

#[test]
fn the_longest_limit_is_no_shorter_than_none() {
    let service = Daemon::with_options(How::Watcher, "-t 4294967295", "late=5500");
    let mut daemon = started!(Daemon::start(How::Watcher, service));
    daemon.service.listener.expect("suU");
    assert_eq!(daemon.service.errors(), "");
    daemon.down();
}

/// The code of s6-background-watch in a scratch directory, and what it said.
fn watch(options: &[&str], pid_file: &str, script: &str) -> (i32, String) {
    let scratch = Scratch::new();
    let mut command = program("s6-background-watch");
    command.current_dir(scratch.path("")).args(options).args([pid_file, "sh", "-c", script]);
    let outcome = finish(&mut command);
    (outcome.code, outcome.err)
}

#[test]
fn the_watcher_ends_with_the_codes_of_the_original() {
    for (options, script, code, message) in [
        (&[][..], "exit 3", 3, "fatal: sh exited with code 3"),
        (&[], "exit 200", 128, "fatal: sh exited with code 200"),
        (&[], "kill -9 $$", 137, "fatal: sh was killed by signal 9"),
        (&[], "exit 0", 104, "fatal: the daemon has ended, and there is no pid file pid"),
        (&[], "echo junk >pid", 104, "fatal: the daemon has ended, and pid holds no process number"),
        (&[], "echo 999999999 >pid", 111, "names process 999999999, which is gone"),
        (&[], "(sleep 0.1; exit 5) & echo $! >pid", 5, ""),
        (&[], "(sleep 0.1; exit 200) & echo $! >pid", 128, ""),
        (&[], "sh -c 'sleep 0.1; kill -9 $$' & echo $! >pid", 137, ""),
        (&["-t", "x"], "", 100, "usage: "),
        (&["-d", "2"], "", 100, "fatal: notification fd must be 3 or more"),
        (&["-d", "99"], "", 111, "fatal: unable to use the notification fd: "),
        (&["-d", "4294967295"], "", 111, "fatal: unable to use the notification fd: "),
        (&["--bogus"], "", 100, "fatal: "),
    ] {
        let (got, said) = watch(options, "pid", script);
        assert_eq!(got, code, "{options:?} {script}: {said}");
        assert!(said.is_empty() == message.is_empty() && said.contains(message), "{options:?} {script}: {said}");
    }
}

#[test]
fn the_watcher_says_when_there_is_nothing_to_start() {
    let scratch = Scratch::new();
    let prog = scratch.write("prog", "not executable");
    for (words, code) in
        [(&["pid", "/nonexistent/prog"][..], 127), (&["pid", prog.to_str().unwrap()], 126), (&["pid"], 100), (&[], 100)]
    {
        let outcome = finish(program("s6-background-watch").current_dir(scratch.path("")).args(words));
        assert_eq!(outcome.code, code, "{}", outcome.err);
        assert!(outcome.err.starts_with("s6-background-watch: "), "{}", outcome.err);
    }
}

#[test]
fn the_daemon_inherits_no_descriptor_of_the_watcher() {
    let scratch = Scratch::new();
    let list = "ls /proc/$$/fd >fds; sleep 0.1 & echo $! >pid";
    let run = |words: &[&str]| {
        let outcome = finish(with_path(Command::new("sh")).current_dir(scratch.path("")).args(words));
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        text(scratch.path("fds"))
    };
    let own = run(&["-c", list]);
    let watch = "exec 9>newline; exec s6-background-watch -d 9 pid \"$@\"";
    assert_eq!(run(&["-c", watch, "sh", "sh", "-c", list]), own);
    assert_eq!(text(scratch.path("newline")), "\n");
}
