//! s6-supervise and s6-svscan with real processes: what a user relies on, and what the original gets wrong.

mod common;

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use common::service::{Listener, Scandir, Service, c, is_supervised, supervisor_of};
use common::{Background, Scratch, eventually, is_alive, kill, program, run, text, until};
use s6::servicedir::status::Status;
use s6::tai::Tai64n;

// ---- s6-supervise: the life of a service

#[test]
fn a_service_that_dies_comes_back() {
    let mut s = Service::sleeper().supervise();
    let first = s.wait_up();
    kill(first, 9);
    s.listener.expect("sudDu");
    assert_ne!(s.wait_up(), first);
    assert_eq!(s.status().wait_status.signal(), Some(9));
}

#[test]
fn readiness_is_a_newline_on_the_notification_descriptor() {
    let mut s = Service::new("echo almost >&5; exec sleep 1000").file("notification-fd", "5\n").supervise();
    s.listener.expect("suU");
    assert!(s.wait("ready", |s| s.ready && s.is_up()).readystamp >= s.status().stamp);
}

#[test]
fn half_a_line_of_readiness_stops_nobody() {
    let mut s = Service::new("printf almost >&5; exec sleep 1000").file("notification-fd", "5\n").supervise();
    let pid = s.wait_up();
    s.command("d");
    s.listener.expect("sudD");
    until("the service is gone", || !is_alive(pid));
}

#[test]
fn a_service_that_becomes_ready_and_dies_was_ready() {
    let mut s = Service::new("echo >&5").file("notification-fd", "5\n").supervise();
    s.listener.expect("suUdD");
}

#[test]
fn readiness_counts_whatever_was_written_before_it_and_however_soon_the_end_comes() {
    let service = Service::new("read line < go; { head -c 60000 /dev/zero; echo; } >&5").file("notification-fd", "5\n");
    let go = service.path("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut s = service.supervise();
    let pid = s.wait_up();
    s.supervisor.signal(libc::SIGSTOP);
    std::fs::write(go, "\n").unwrap();
    until("the service has ended", || !is_alive(pid));
    s.supervisor.signal(libc::SIGCONT);
    s.listener.expect("suUdD");
}

#[test]
fn a_useless_notification_descriptor_is_a_warning_and_the_service_runs() {
    for text in ["0\n", "9999999\n", "3x\n", "-1\n", "\n"] {
        let s = Service::sleeper().file("notification-fd", text).supervise();
        s.wait_up();
        until("a warning", || s.errors().contains("warning: "));
        assert!(s.errors().contains("notification-fd"), "{}", s.errors());
    }
}

#[test]
fn one_descriptor_for_lock_and_readiness_is_refused_until_changed() {
    let s = Service::sleeper().file("notification-fd", "5").file("lock-fd", "5").supervise();
    until("a warning", || s.errors().contains("not starting the service"));
    std::fs::write(s.service.path("notification-fd"), "6").unwrap();
    s.command("u");
    s.wait_up();
}

#[test]
fn the_lock_of_lock_fd_is_held_as_long_as_the_service_runs() {
    let s = Service::sleeper().file("lock-fd", "7\n").supervise();
    s.wait_up();
    let lock = || run("s6-setlock", &["-n", s.service.path("supervise/service-lock").to_str().unwrap(), "true"]).code;
    until("the lock is held", || lock() == 1);
    s.command("d");
    s.wait_down();
    assert_eq!(lock(), 0);
}

#[test]
fn a_run_that_is_not_there_yet_is_tried_again_on_command() {
    let s = Service::sleeper().supervise_with(&mut program("s6-supervise"));
    s.wait_up();
    std::fs::remove_file(s.service.path("run")).unwrap();
    s.command("r");
    until("a warning", || s.errors().contains("unable to start ./run"));
    s.service.run("exec sleep 1000");
    s.command("u");
    s.wait("up again", |status| status.is_up());
}

#[test]
fn finish_is_told_how_run_ended_and_may_end_it_all() {
    let service = Service::new("exit 3").finish("echo \"$# $1 $2 $3\" > told; exit 125");
    let mut s = service.supervise();
    s.listener.expect("sudOD");
    assert_eq!(text(s.service.path("told")), "4 3 0 service\n");
    assert!(!s.status().wanted_up);
}

#[test]
fn a_script_that_cannot_be_executed_is_told_with_the_cause() {
    let crlf = "#!/bin/sh\r\nexit 125\r\n";
    let service = Service::new("exit 0").file("down", "");
    service.scratch.script("service/finish", crlf);
    let mut s = service.supervise();
    s.command("o");
    s.listener.expect("sudD");
    assert!(
        s.errors().contains("unable to start ./finish (its interpreter does not exist), going on"),
        "{}",
        s.errors()
    );
    let run = s.service.path("run");
    let fails = |cause: &str| {
        s.command("o");
        until(cause, || s.errors().contains(&format!("unable to start ./run ({cause}), trying again")));
    };
    std::fs::write(&run, crlf).unwrap();
    fails("its interpreter does not exist");
    std::fs::write(&run, "exec sleep 1000\n").unwrap();
    fails("its first line does not name an interpreter");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o644)).unwrap();
    fails("it is not executable");
    std::fs::remove_file(&run).unwrap();
    std::fs::create_dir(&run).unwrap();
    fails("it is not a file");
}

#[test]
fn a_finish_that_does_not_end_is_killed() {
    let service = Service::new("exit 0").finish("exec sleep 1000").file("timeout-finish", "100\n").file("down", "");
    let mut s = service.supervise();
    s.command("o");
    s.listener.expect("sudD");
    assert!(s.errors().contains("finish takes too long"));
}

#[test]
fn a_service_that_ignores_its_down_signal_is_killed() {
    let mut s = Service::new("trap '' TERM; : > trapped; while :; do sleep 1; done")
        .file("timeout-kill", "200\n")
        .file("flag-timeout-killpg", "")
        .supervise();
    until("the trap is set", || s.service.path("trapped").exists());
    s.command("d");
    s.listener.expect("sudD");
    assert_eq!(s.status().wait_status.signal(), Some(9));
}

#[test]
fn once_for_good_makes_the_down_file_and_does_not_kill() {
    let s = Service::sleeper().supervise();
    s.wait_up();
    s.command("Q");
    s.wait("not wanted up", |status| status.is_up() && !status.wanted_up);
    assert!(s.service.path("down").exists());
}

#[test]
fn down_for_good_empties_the_down_file() {
    let mut s = Service::sleeper().file("down", "for maintenance\n").supervise();
    s.command("uD");
    s.listener.expect("sudD");
    assert_eq!(text(s.service.path("down")), "");
    assert!(s.service.path("down").exists());
}

#[test]
fn a_link_that_is_too_long_to_follow_is_a_failure_of_the_system() {
    let service = Service::sleeper();
    symlink(format!("{}gone", "./".repeat(254)), service.path("supervise")).unwrap();
    symlink(format!("{}there", "./".repeat(253)), service.path("event")).unwrap();
    let outcome = run("s6-supervise", &[service.dir()]);
    assert_eq!(outcome.code, 111, "{}", outcome.err);
    assert!(outcome.err.contains("unable to follow the link supervise: "), "{}", outcome.err);
    assert!(service.path("there").is_dir());
}

#[test]
fn a_linked_supervise_works_each_time() {
    let service = Service::sleeper();
    let elsewhere = Scratch::new();
    symlink(elsewhere.path("state"), service.path("supervise")).unwrap();
    let mut s = service.supervise();
    for _ in 0..2 {
        s.wait_up();
        s.command("xd");
        assert_eq!(s.supervisor.code(), 0, "{}", s.errors());
        s = Service::supervise(take(s));
    }
    s.wait_up();
}

/// The service of a supervisor that has ended.
fn take(s: common::service::Supervised) -> Service {
    let name = s.service.dir();
    let copy = Service::sleeper();
    std::fs::remove_dir_all(copy.dir()).unwrap();
    std::fs::rename(name, copy.dir()).unwrap();
    copy
}

#[test]
fn a_never_started_service_says_so_until_the_first_command() {
    let s = Service::sleeper().file("down", "").supervise();
    assert!(s.wait("a status", |_| true).is_never_started());
    s.command("d");
    s.wait("not the mark", |status| !status.paused);
}

#[test]
fn what_is_said_about_the_file_down_counts_also_behind_the_command_to_leave() {
    for (commands, down) in [("xU", false), ("xUD", true), ("xUQ", true), ("xu", true)] {
        let mut s = Service::sleeper().file("down", "").supervise();
        s.wait("a status", |_| true);
        s.command(commands);
        s.listener.expect_end("x");
        assert_eq!(s.supervisor.code(), 0);
        assert_eq!(s.service.path("down").exists(), down, "{commands}");
        assert!(s.status().is_never_started());
    }
}

// ---- s6-supervise: what happens to it

#[test]
fn a_service_that_could_not_be_started_was_never_started() {
    let service = Service::sleeper();
    std::fs::remove_file(service.path("run")).unwrap();
    let s = service.supervise();
    until("a warning", || s.errors().contains("unable to start ./run"));
    assert!(s.status().is_never_started() && s.status().wanted_up);
    s.command("o");
    s.wait("that nothing is wanted", |status| !status.paused && !status.wanted_up);
    s.command("u");
    s.wait("what is wanted", |status| !status.paused && status.wanted_up);
}

#[test]
fn a_status_that_cannot_be_written_at_the_start_keeps_nothing_down() {
    let service = Service::new(": > here; exec sleep 1000");
    std::fs::create_dir_all(service.path("supervise/status.new")).unwrap();
    let mut supervisor = Background::start(program("s6-supervise").arg(service.dir()));
    until("the service runs", || service.path("here").exists());
    std::fs::remove_dir(service.path("supervise/status.new")).unwrap();
    let status = eventually("a status", || Status::read(&c(service.dir())).ok());
    assert!(status.is_up());
    s6::servicedir::control::send(&c(service.dir()), "supervise", b"dx").unwrap();
    assert_eq!(supervisor.code(), 0);
}

#[test]
fn the_tally_of_an_earlier_supervisor_is_emptied_where_it_is() {
    use std::os::unix::fs::MetadataExt;
    let service = Service::sleeper().file("supervise/death_tally", &"x".repeat(28));
    let before = std::fs::File::open(service.path("supervise/death_tally")).unwrap();
    let s = service.supervise();
    let after = std::fs::metadata(s.service.path("supervise/death_tally")).unwrap();
    assert_eq!((after.len(), after.ino()), (0, before.metadata().unwrap().ino()));
}

#[test]
fn garbage_in_the_control_fifo_does_no_harm() {
    let s = Service::sleeper().supervise();
    s.wait_up();
    // Every byte that is no command, a megabyte of them.
    let garbage: Vec<u8> =
        (0..=255u8).filter(|b| !b"abqhkti12ypcPCKrlduoODUQxF".contains(b)).cycle().take(1 << 20).collect();
    s.command(&String::from_utf8_lossy(&garbage[..0]));
    let mut fifo = std::fs::File::options().write(true).open(s.service.path("supervise/control")).unwrap();
    fifo.write_all(&garbage).unwrap();
    s.command("d");
    s.wait_down();
    assert!(s.supervisor.pid() > 0 && is_alive(s.supervisor.pid()));
}

#[test]
fn a_lost_or_corrupt_status_is_true_again_with_the_next_change() {
    let s = Service::sleeper().supervise();
    s.wait_up();
    std::fs::write(s.service.path("supervise/status"), b"nonsense").unwrap();
    s.command("O");
    s.wait("a true status", |status| status.is_up() && !status.wanted_up);
    std::fs::remove_file(s.service.path("supervise/status")).unwrap();
    s.command("d");
    s.wait_down();
}

#[test]
fn losing_its_directories_does_not_end_it() {
    let mut s = Service::sleeper().supervise();
    let pid = s.wait_up();
    std::fs::remove_dir_all(s.service.path("supervise")).unwrap();
    std::fs::remove_dir_all(s.service.path("event")).unwrap();
    kill(pid, 9);
    until("warnings", || s.errors().contains("supervise/status"));
    std::fs::create_dir(s.service.path("supervise")).unwrap();
    s.wait("the status is written again", Status::is_up);
    s.supervisor.signal(15);
    assert_eq!(s.supervisor.code(), 0);
}

#[test]
fn fifos_of_dead_subscribers_are_removed_at_the_start() {
    let service = Service::sleeper();
    std::fs::create_dir(service.path("event")).unwrap();
    let names = (0..500).map(|n| format!("ftrig1:@4000000065{n:014x}:abcdef"));
    for name in names.chain(["ftrig1-that-nobody-sends-any-letter-to--".into()]) {
        let fifo = service.path(&format!("event/{}", &name[..39]));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o622)).unwrap();
    }
    let mut s = service.supervise();
    s.listener.expect("su");
    assert_eq!(std::fs::read_dir(s.service.path("event")).unwrap().count(), 1, "only the listener's");
}

/// What libfaketime leaves in /dev/shm of a process that ends without its destructors.
struct FakeClock(i32);

impl Drop for FakeClock {
    fn drop(&mut self) {
        for name in ["faketime_shm_", "sem.faketime_sem_"] {
            let _ = std::fs::remove_file(format!("/dev/shm/{name}{}", self.0));
        }
    }
}

#[test]
fn a_clock_that_jumps_changes_stamps_and_nothing_else() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !std::path::Path::new(library).exists() {
        eprintln!("skipped: no libfaketime");
        return;
    }
    let service = Service::new("echo >&5; exec env -u LD_PRELOAD sleep 1000").file("notification-fd", "5");
    service.scratch.write("clock", "-100d");
    let mut supervise = program("s6-supervise");
    supervise.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", service.scratch.path("clock"));
    supervise.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    // Dropped when all are dead that might make another one.
    let mut left_behind = FakeClock(0);
    let mut s = service.supervise_with(&mut supervise);
    left_behind.0 = s.supervisor.pid();
    s.listener.expect("suU");
    let began = s.status().stamp;
    if began.until(Tai64n::now()) < Duration::from_secs(50 * 86400) {
        eprintln!("skipped: a static program, which takes its time from nobody but the kernel");
        return;
    }
    let mut letters = String::from("suU");
    for (jump, is_later) in [("-101d", false), ("+2d", true), ("-9000d", false), ("+9000d", true)] {
        let pid = s.wait("the service is ready", |status| status.is_up() && status.ready).pid;
        std::fs::write(s.service.scratch.path("clock"), jump).unwrap();
        kill(pid as i32, 9);
        letters += "dDuU";
        s.listener.expect(&letters);
        assert_eq!(s.status().stamp > began, is_later, "{jump}");
    }
}

#[test]
fn being_stopped_only_delays_it() {
    let mut s = Service::sleeper().supervise();
    let first = s.wait_up();
    s.supervisor.signal(libc::SIGSTOP);
    kill(first, 9);
    s.supervisor.signal(libc::SIGCONT);
    s.listener.expect("sudDu");
}

#[test]
fn restarts_leak_no_descriptor_and_no_zombie() {
    let mut s = Service::new("echo >&5; exec sleep 1000").file("notification-fd", "5").supervise();
    s.listener.expect_end("U");
    let before = s.descriptors();
    for _ in 0..100 {
        let pid = s.wait("ready", |status| status.is_up() && status.ready).pid as i32;
        s.command("ku");
        until("the old one is gone", || !is_alive(pid));
        s.command("u");
        s.wait("a new one", |status| status.is_up() && status.pid != pid as u64);
    }
    // The last letter may still be on its way.
    until("no more descriptors than before", || s.descriptors() <= before);
}

#[test]
#[ignore = "takes minutes: cargo test --test supervision -- --ignored"]
fn ten_thousand_restarts_leak_nothing() {
    let s = Service::sleeper().supervise();
    let restart = |times| {
        for _ in 0..times {
            let pid = s.wait_up();
            s.command("k");
            s.wait("it died", |status| status.pid != pid as u64);
            s.command("u");
        }
        s.wait_up();
    };
    restart(200);
    let (descriptors, before) = (s.descriptors(), memory(s.supervisor.pid()));
    restart(9_800);
    // The last letter may still be on its way.
    until("no more descriptors than before", || s.descriptors() <= descriptors);
    assert_eq!(memory(s.supervisor.pid()), before);
}

/// Memory of its own, in kB.
fn memory(pid: i32) -> u64 {
    let smaps = text(format!("/proc/{pid}/smaps_rollup"));
    let line = smaps.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_tree_does_not_wake_up() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    scandir.service("one/log", "exec cat");
    let scanned = scandir.scan(&[]);
    scanned.wait_up("one");
    scanned.wait_up("one/log");
    let pids = [scanned.scanner.pid(), supervisor_of(&scanned.service("one")).unwrap()];
    // Let what was begun end: two looks a while apart must be the same once, at processes that sleep and do not only
    // wait for the processor, and then stay the same.
    let asleep = |pid: i32| text(format!("/proc/{pid}/status")).contains("\nState:\tS");
    let mut before = pids.map(switches);
    until("the tree is at rest", || {
        let last = std::mem::replace(&mut before, pids.map(switches));
        last == before && pids.into_iter().all(asleep)
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(pids.map(switches), before);
}

/// How often a process went to sleep by itself.
fn switches(pid: i32) -> String {
    let status = text(format!("/proc/{pid}/status"));
    status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
}

#[test]
fn a_supervisor_that_cannot_fork_says_so_and_goes_on() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root to become another user");
        return;
    }
    let service = Service::sleeper().file("down", "");
    let other = nix::unistd::Uid::from_raw(64123);
    for path in [service.scratch.path(""), service.dir()] {
        nix::unistd::chown(&path, Some(other), None).unwrap();
    }
    let mut command = common::with_path(std::process::Command::new("prlimit"));
    command.args(["--nproc=1", "setpriv", "--reuid=64123", "--clear-groups", "s6-supervise"]);
    let s = service.supervise_with(&mut command);
    s.wait("a status", Status::is_never_started);
    s.command("u");
    until("a warning", || s.errors().contains("unable to start ./run"));
    assert!(is_alive(s.supervisor.pid()));
    s.command("d");
    s.wait("the command arrived", |status| !status.wanted_up && !status.paused);
}

/// Sets the soft limit on descriptors of a running process.
fn limit_descriptors(pid: i32, soft: u32) {
    let limit = format!("--nofile={soft}:");
    let status = std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().unwrap();
    assert!(status.success());
}

#[test]
fn without_descriptors_it_goes_on_and_recovers() {
    let s = Service::sleeper().supervise();
    let pid = s.wait_up();
    limit_descriptors(s.supervisor.pid(), 3);
    kill(pid, 9);
    until("a warning", || s.errors().contains("unable to write supervise/status"));
    limit_descriptors(s.supervisor.pid(), 1000);
    s.wait("a true status", |status| status.is_up() && status.pid != pid as u64);
}

// ---- s6-svscan

#[test]
fn a_scanner_without_descriptors_goes_on_and_recovers() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let scanned = scandir.scan(&[]);
    scanned.wait_up("one");
    limit_descriptors(scanned.scanner.pid(), 3);
    scanned.scandir.service("two", "exec sleep 1000");
    scanned.scandir.service("two/log", "exec cat");
    scanned.command("an");
    until("a warning", || scanned.errors().contains("unable to read the scan directory"));
    limit_descriptors(scanned.scanner.pid(), 1000);
    scanned.wait_up("two");
    scanned.wait_up("one");
}

#[test]
fn a_scan_and_the_end_in_one_write_end_the_tree() {
    for how in ["at", "ht", "ta"] {
        let scandir = Scandir::new();
        scandir.service("one", "exec sleep 1000");
        let mut scanned = scandir.scan(&[]);
        let pid = scanned.wait_up("one");
        scanned.command(how);
        assert_eq!(scanned.scanner.code(), 0);
        assert!(!is_alive(pid));
    }
}

#[test]
fn hang_up_and_terminate_at_once_end_the_tree() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let mut scanned = scandir.scan(&[]);
    scanned.wait_up("one");
    scanned.scanner.signal(libc::SIGHUP);
    scanned.scanner.signal(libc::SIGTERM);
    assert_eq!(scanned.scanner.code(), 0);
}

#[test]
fn one_bad_entry_does_not_keep_the_others_down() {
    let scandir = Scandir::new();
    let scanned = scandir.scan(&[]);
    symlink("nowhere", scanned.scandir.scratch.path("dangling")).unwrap();
    scanned.scandir.scratch.write("file", "");
    scanned.scandir.service(&"n".repeat(252), "exec sleep 1000");
    scanned.scandir.service("good", "exec sleep 1000");
    scanned.command("a");
    scanned.wait_up("good");
    assert!(scanned.errors().contains("ignoring dangling"), "{}", scanned.errors());
}

#[test]
fn too_many_services_start_as_many_as_fit() {
    let scandir = Scandir::new();
    for n in 0..6 {
        scandir.service(&format!("s{n}"), "exec sleep 1000");
    }
    let scanned = scandir.scan(&["-C4"]);
    let supervised = || (0..6).filter(|n| scanned.is_supervised(&format!("s{n}"))).count();
    until("four are supervised", || supervised() == 4);
    until("a warning", || scanned.errors().contains("as many services as -C allows"));
    assert_eq!(supervised(), 4);
}

#[test]
fn without_supervisors_in_path_it_says_so_and_goes_on() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let mut command = program("s6-svscan");
    let scanned = scandir.scan_with(command.env("PATH", "/nonexistent"));
    until("a warning", || scanned.errors().contains("unable to start s6-supervise for one"));
    drop(scanned);
}

#[test]
fn a_logger_and_its_service_may_die_without_a_lost_byte() {
    let scandir = Scandir::new();
    let log = scandir.scratch.path("collected");
    scandir.service("one", "i=0; while :; do i=$((i+1)); echo $$ $i; done");
    scandir.service("one/log", &format!("while read -r line; do echo \"$line\" >> {}; done", log.display()));
    let mut scanned = scandir.scan(&[]);
    for round in 0..6 {
        let service = scanned.wait_up("one");
        scanned.wait_up("one/log");
        let before = text(&log).lines().count();
        until("lines flow", || text(&log).lines().count() > before + 20);
        // The service in one round; its supervisor in the next: the pipe lives on in the scanner.
        if round % 2 == 0 {
            kill(service, 9);
        } else {
            kill(supervisor_of(&scanned.service("one")).unwrap(), 9);
            kill(service, 9);
        }
        until("it is back", || is_supervised(&scanned.service("one")) && scanned.wait_up("one") != service);
    }
    scanned.end();
    let mut last = std::collections::HashMap::new();
    for line in text(&log).lines() {
        let (instance, number) = line.split_once(' ').expect("whole lines");
        let number: u64 = number.parse().unwrap();
        let before = last.insert(instance.to_owned(), number).unwrap_or(0);
        assert_eq!(number, before + 1, "after line {before} of instance {instance}");
    }
    assert!(last.len() >= 6);
}

#[test]
fn a_storm_of_deaths_leaves_one_instance_of_each_service() {
    storm(60, 3);
}

#[test]
#[ignore = "takes minutes: cargo test --test supervision -- --ignored"]
fn a_storm_over_a_thousand_services_leaves_one_instance_of_each() {
    storm(1000, 5);
}

/// Kills services and supervisors at random, `rounds` times all of them, then counts.
fn storm(services: usize, rounds: usize) {
    let scandir = Scandir::new();
    let names: Vec<String> = (0..services).map(|n| format!("s{n}")).collect();
    for name in &names {
        scandir.service(name, "exec sleep 1000");
    }
    let mut scanned = scandir.scan(&["-C4000"]);
    let mut seed = 12345u64;
    let mut seen = HashSet::new();
    for _ in 0..rounds {
        for name in &names {
            let pid = scanned.wait_up(name);
            seen.insert(pid);
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if seed >> 63 == 0
                && let Some(supervisor) = supervisor_of(&scanned.service(name))
            {
                kill(supervisor, 9);
            }
            kill(pid, 9);
        }
    }
    for name in &names {
        until("a live instance under a live supervisor", || {
            let status = Status::read(&scanned.service(name)).unwrap();
            supervisor_of(&scanned.service(name)).is_some() && status.is_up() && is_alive(status.pid as i32)
        });
        seen.insert(scanned.wait_up(name));
    }
    let alive = seen.iter().filter(|&&pid| is_alive(pid)).count();
    assert_eq!(alive, services, "instances that live");
    let zombies = children(scanned.scanner.pid()).into_iter().filter(|&pid| !is_alive(pid)).count();
    assert_eq!(zombies, 0);
    assert_eq!(scanned.end(), 0);
}

fn children(of: i32) -> Vec<i32> {
    let table = s6::sys::process::all();
    table.iter().filter(|e| e.parent.as_raw() == of).map(|e| e.pid.as_raw()).collect()
}

/// Services `s0`, `s1` and so on, each with a logger.
fn logged_services(count: usize) -> Scandir {
    let scandir = Scandir::new();
    for n in 0..count {
        scandir.service(&format!("s{n}"), "exec sleep 1000");
        scandir.service(&format!("s{n}/log"), "exec cat");
    }
    scandir
}

/// What a process has open.
fn open_files(pid: i32) -> Vec<String> {
    let list = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    list.filter_map(|fd| Some(std::fs::read_link(fd.unwrap().path()).ok()?.to_string_lossy().into_owned())).collect()
}

/// How many pidfds it has.
fn pidfds(pid: i32) -> usize {
    open_files(pid).iter().filter(|name| name.contains("[pidfd]")).count()
}

#[test]
fn a_scanner_has_a_descriptor_for_each_child_and_no_child_gets_it() {
    let scandir = logged_services(20);
    let mut scanned = scandir.scan(&[]);
    let scanner = scanned.scanner.pid();
    let services: Vec<i32> = (0..20).map(|n| scanned.wait_up(&format!("s{n}"))).collect();
    if pidfds(scanner) == 0 {
        return common::skip("there are no pidfds here");
    }
    until("all are watched", || pidfds(scanner) == 40);
    let before = open_files(scanner).len();
    for &service in &services {
        // stdin, stdout, stderr; three of the supervisor's own; what the tests themselves were started with.
        let supervisor = s6::sys::process::look_up(s6::sys::Pid::from_raw(service)).unwrap().parent.as_raw();
        assert_eq!(pidfds(supervisor), 0);
        assert!(open_files(supervisor).iter().filter(|name| name.starts_with("pipe:")).count() < 20);
        kill(supervisor, 9);
        kill(service, 9);
    }
    until("all are back", || (0..20).all(|n| !services.contains(&scanned.wait_up(&format!("s{n}")))));
    until("as many descriptors as before", || pidfds(scanner) == 40 && open_files(scanner).len() == before);
    assert_eq!(scanned.end(), 0);
}

#[test]
fn pipes_need_descriptors_more_than_watches_do() {
    let scandir = logged_services(40);
    // 80 ends of pipes and what every scanner has leave room for some of the 80 children.
    let mut limited = common::with_path(std::process::Command::new("sh"));
    let mut scanned = scandir.scan_with(limited.args(["-c", "ulimit -n 110; exec s6-svscan \"$@\"", "sh"]));
    for round in 0..2 {
        for n in 0..40 {
            let (name, log) = (format!("s{n}"), format!("s{n}/log"));
            let (service, logger) = (scanned.wait_up(&name), scanned.wait_up(&log));
            if round == 0 {
                kill(supervisor_of(&scanned.service(&name)).unwrap(), 9);
                kill(service, 9);
                kill(logger, 9);
            }
        }
    }
    assert_eq!(scanned.errors(), "");
    assert_eq!(pidfds(scanned.scanner.pid()), 0, "watches that were given up");
    until("no zombie is left", || children(scanned.scanner.pid()).into_iter().all(is_alive));
    assert_eq!(scanned.end(), 0);
}

#[test]
fn a_kernel_that_names_no_dead_children_is_good_enough() {
    let strace = || std::process::Command::new("strace");
    if common::finish(strace().args(["-o", "/dev/null", "true"])).code != 0 {
        return common::skip("it needs strace, and leave to use it");
    }
    for fault in [
        "close_range:error=ENOSYS",
        "close_range:error=EPERM",
        "pidfd_open:error=ENOSYS:when=3+",
        "epoll_create1:error=EMFILE",
        "epoll_ctl:error=ENOSPC:when=3+",
    ] {
        let scandir = logged_services(4);
        // -D: the scanner is our child, and strace is not.
        let (call, _) = fault.split_once(':').unwrap();
        let mut command = common::with_path(strace());
        command.args([
            "-D",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &format!("inject={fault}"),
        ]);
        let mut scanned = scandir.scan_with(command.arg("s6-svscan"));
        for n in 0..4 {
            let name = format!("s{n}");
            let service = scanned.wait_up(&name);
            kill(eventually("a supervisor", || supervisor_of(&scanned.service(&name))), 9);
            kill(service, 9);
            until("another one", || scanned.wait_up(&name) != service);
        }
        let scanner = scanned.scanner.pid();
        until("no zombie is left", || children(scanner).into_iter().all(is_alive));
        assert_eq!(pidfds(scanner), 0, "{fault}");
        assert_eq!((scanned.end(), scanned.errors()), (0, String::new()), "{fault}");
    }
}

#[test]
fn a_second_supervisor_or_scanner_is_refused() {
    let s = Service::sleeper().supervise();
    s.wait_up();
    let outcome = run("s6-supervise", &[s.service.dir()]);
    assert_eq!(outcome.code, 100, "{}", outcome.err);
    let scanned = Scandir::new().scan(&[]);
    let outcome = run("s6-svscan", &[scanned.scandir.scratch.path("")]);
    assert_eq!(outcome.code, 100, "{}", outcome.err);
}

#[test]
fn wrong_usage_and_missing_directories_have_their_exit_codes() {
    let scratch = Scratch::new();
    let file = scratch.write("file", "");
    for (name, args, want) in [
        ("s6-supervise", vec![], 100),
        ("s6-supervise", vec!["/nonexistent"], 111),
        ("s6-supervise", vec![file.to_str().unwrap()], 111),
        ("s6-svscan", vec![], 100),
        ("s6-svscan", vec!["--bogus", "."], 100),
        ("s6-svscan", vec!["-d2", "."], 100),
        ("s6-svscan", vec!["/nonexistent"], 111),
    ] {
        let outcome = run(name, &args);
        assert_eq!(outcome.code, want, "{name} {args:?}: {}", outcome.err);
        assert!(outcome.err.starts_with(&format!("{name}: ")) && outcome.err.lines().count() == 1, "{}", outcome.err);
    }
    let twice = run("s6-svscan", &["-d3", "-X3", "."]);
    assert!(twice.code == 100 && twice.err.contains("cannot be the console holder"), "{}", twice.err);
}

#[test]
fn letters_come_after_the_status_says_it() {
    let s = Service::sleeper().supervise();
    let mut listener = Listener::new(&s.service.path("event"));
    for _ in 0..20 {
        let pid = s.wait_up();
        let before = listener.letters().len();
        s.command("ku");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !listener.letters()[before..].contains('d') {
            assert!(Instant::now() < deadline);
        }
        assert_ne!(Status::read(&c(s.service.dir())).unwrap().pid, pid as u64);
        s.command("u");
        eventually("a new one", || Some(s.status()).filter(|status| status.is_up() && status.pid != pid as u64));
    }
}

#[test]
fn a_full_disk_delays_the_status_and_nothing_else() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root to mount a small file system");
        return;
    }
    let scratch = Scratch::new();
    let script = scratch.script(
        "test",
        "#!/bin/sh -e\n\
         mount -t tmpfs -o size=64k none \"$1\"; cd \"$1\"; mkdir service\n\
         printf '#!/bin/sh\\nexec sleep 1000\\n' > service/run; chmod 755 service/run\n\
         s6-supervise service 2> \"$2\" & supervisor=$!\n\
         wait_for() { n=0; until eval \"$1\"; do n=$((n+1)); [ $n -lt 400 ] || { echo \"not: $1\"; exit 1; }; sleep 0.05; done; }\n\
         status() { od -An -tu1 -j34 -N1 service/supervise/status 2>/dev/null | tr -d ' '; }\n\
         wait_for '[ \"$(status)\" = 4 ]'\n\
         dd if=/dev/zero of=fill bs=1k 2>/dev/null || :\n\
         kill -TERM $supervisor\n\
         wait_for '! kill -0 $supervisor 2>/dev/null'\n\
         wait $supervisor\n",
    );
    std::fs::create_dir(scratch.path("mnt")).unwrap();
    let mut command = common::with_path(std::process::Command::new("unshare"));
    let outcome =
        common::finish(command.args(["-m", "--"]).arg(script).arg(scratch.path("mnt")).arg(scratch.path("err")));
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    assert!(text(scratch.path("err")).contains("unable to write supervise/status"), "{}", text(scratch.path("err")));
}

#[test]
fn as_process_one_it_reaps_orphans_and_becomes_finish() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: needs root for a PID namespace");
        return;
    }
    let scandir = Scandir::new();
    scandir.service("one", "(sleep 0.01 &); (sleep 0.02 &); exec sleep 1000");
    let proof = scandir.scratch.path("proof");
    scandir.scratch.script(".s6-svscan/finish", format!("#!/bin/sh\necho \"$$ $#\" > {}\n", proof.display()));
    let mut command = common::with_path(std::process::Command::new("unshare"));
    let mut scanned = scandir.scan_with(command.args(["-fp", "--mount-proc", "s6-svscan"]));
    until("the service is up", || Status::read(&scanned.service("one")).is_ok_and(|s| s.is_up()));
    scanned.command("t");
    assert_eq!(scanned.scanner.code(), 0);
    assert_eq!(text(proof), "1 0\n");
}

#[test]
fn as_process_one_it_takes_orphans_that_die_together_with_supervisors() {
    if !nix::unistd::Uid::effective().is_root() {
        return common::skip("it needs root for a PID namespace");
    }
    let scandir = Scandir::new();
    for n in 0..25 {
        scandir.service(&format!("s{n}"), "(sleep 1000 &); exec sleep 1000");
    }
    let mut command = common::with_path(std::process::Command::new("unshare"));
    let mut scanned = scandir.scan_with(command.args(["-fp", "--mount-proc", "s6-svscan"]));
    let scanner = eventually("the scanner", || children(scanned.scanner.pid()).first().copied());
    for _ in 0..4 {
        // A supervisor and an orphan of each service.
        until("all are there", || children(scanner).into_iter().filter(|&pid| is_alive(pid)).count() >= 50);
        children(scanner).into_iter().for_each(|pid| kill(pid, 9));
    }
    until("no zombie is left", || children(scanner).into_iter().all(is_alive));
    scanned.command("t");
    assert_eq!(scanned.scanner.code(), 0);
}

#[test]
fn a_finish_whose_interpreter_is_not_there_is_a_reason_for_crash() {
    let scandir = Scandir::new();
    scandir.scratch.script(".s6-svscan/finish", "#!/bin/sh\r\nexit 0\r\n");
    scandir.scratch.script(".s6-svscan/crash", "#!/bin/sh\nexit 42\n");
    let mut scanned = scandir.scan(&[]);
    assert_eq!(scanned.end(), 42);
    assert!(scanned.errors().contains("unable to execute .s6-svscan/finish"), "{}", scanned.errors());
}

#[test]
fn the_console_gets_the_last_words() {
    let scratch = Scratch::new();
    let console = scratch.path("console");
    let scandir = Scandir::new();
    scandir.scratch.script(".s6-svscan/finish", "#!/bin/sh\necho goodbye\n");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec s6-svscan -X 9 \"$0\" 9>\"$CONSOLE\""]).env("CONSOLE", &console);
    let mut command = common::with_path(command);
    let mut scanned = scandir.scan_with(&mut command);
    assert_eq!(scanned.end(), 0);
    assert_eq!(text(console), "goodbye\n");
}

#[test]
fn a_catch_all_with_a_logger_has_the_console_too() {
    let scandir = Scandir::new();
    let console = scandir.scratch.path(".console");
    scandir.service("s6-svscan-log", "echo said; echo warned >&2; exec sleep 1000");
    scandir.service("s6-svscan-log/log", "exec cat > heard");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec s6-svscan -X 9 \"$0\" 9>\"$CONSOLE\""]).env("CONSOLE", &console);
    let scanned = scandir.scan_with(&mut common::with_path(command));
    until("the logger hears it", || text(scanned.scandir.scratch.path("s6-svscan-log/log/heard")) == "said\n");
    until("the console too", || text(&console) == "warned\n");
}

/// A command line that runs the program with a pipe on stderr that is full, and that nobody reads.
fn with_full_stderr(program: &str) -> std::process::Command {
    let mut command = std::process::Command::new("/bin/sh");
    let fill = "mkfifo .full; exec 9<>.full; dd if=/dev/zero of=.full bs=1 count=99999 oflag=nonblock 2>/dev/null";
    command.args(["-c", &format!("{fill}; exec {program} \"$0\" 2>&9")]);
    common::with_path(command)
}

#[test]
fn a_scanner_waits_for_nobody_to_read_its_messages() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let mut command = with_full_stderr("s6-svscan");
    command.current_dir(scandir.scratch.path(""));
    let mut scanned = scandir.scan_with(&mut command);
    scanned.command("?");
    scanned.wait_up("one");
    assert_eq!(scanned.end(), 0);
}

#[test]
fn a_supervisor_waits_for_nobody_to_read_its_messages() {
    let s = Service::sleeper().file("notification-fd", "0").file("down-signal", "none");
    let mut command = with_full_stderr("s6-supervise");
    let mut s = s.supervise_with(&mut command);
    s.wait_up();
    s.command("dx");
    assert_eq!(s.supervisor.code(), 0);
    s.listener.expect("sudDx");
}

#[test]
fn what_the_scanner_cannot_become_it_tries_once_and_says_once() {
    for (crash, mode, code) in
        [(None, 0, 127), (Some("no script"), 0o644, 126), (Some("#!/bin/sh\nexit 43\n"), 0o755, 43)]
    {
        let scandir = Scandir::new();
        scandir.scratch.write(".s6-svscan/finish", "no script");
        if let Some(crash) = crash {
            let crash = scandir.scratch.write(".s6-svscan/crash", crash);
            std::fs::set_permissions(crash, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut scan = scandir.scan(&[]);
        assert_eq!(scan.end(), code, "{crash:?}");
        let errors = scan.errors();
        assert_eq!(errors.matches("unable to execute .s6-svscan/finish").count(), 1, "{errors}");
        assert_eq!(errors.matches("unable to execute .s6-svscan/crash").count(), usize::from(code != 43), "{errors}");
    }
}

#[test]
fn a_scanner_survives_those_who_read_its_messages() {
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let mut command = std::process::Command::new("/bin/sh");
    // The descriptor that it is to notify, and its stderr, are pipes that nobody reads.
    let pipes = "mkfifo .pipe; exec 8<>.pipe 9>.pipe 8<&-; exec s6-svscan -d 9 \"$0\" 2>&9";
    command.args(["-c", pipes]).current_dir(scandir.scratch.path(""));
    let mut scanned = scandir.scan_with(&mut common::with_path(command));
    scanned.wait_up("one");
    scanned.command("?");
    assert_eq!(scanned.end(), 0);
}

#[test]
fn signals_mean_nothing_any_more_once_the_end_has_begun() {
    let scandir = Scandir::new();
    let one = scandir.service("one", "trap : TERM; : > trapped; while :; do sleep 0.1; done");
    scandir.scratch.script(".s6-svscan/SIGUSR1", "#!/bin/sh\necho usr1 >> heard\n");
    scandir.scratch.script(".s6-svscan/finish", "#!/bin/sh\necho finish >> heard\n");
    let mut scanned = scandir.scan(&[]);
    let pid = scanned.wait_up("one");
    until("the trap is set", || one.join("trapped").exists());
    scanned.scanner.signal(libc::SIGUSR1);
    let heard = scanned.scandir.scratch.path("heard");
    until("the script has run", || text(&heard) == "usr1\n");
    scanned.command("t");
    let dir = scanned.service("one");
    until("the service is told to end", || Status::read(&dir).is_ok_and(|status| !status.wanted_up));
    scanned.scanner.signal(libc::SIGUSR1);
    scanned.scanner.signal(libc::SIGABRT);
    // It has taken the signals when it has taken what was sent after them.
    scanned.command("?");
    until("a warning", || scanned.errors().contains("no commands"));
    assert!(scanned.scanner.is_running());
    kill(pid, 9);
    assert_eq!(scanned.scanner.code(), 0);
    assert_eq!(text(heard), "usr1\nfinish\n");
}

#[test]
fn a_background_process_is_ended_when_its_test_ends() {
    // The fixture itself: nothing that a test starts may outlive it.
    let background = Background::start(std::process::Command::new("sleep").arg("1000"));
    let pid = background.pid();
    drop(background);
    assert!(!is_alive(pid));
}
