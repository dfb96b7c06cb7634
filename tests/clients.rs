//! The clients of a supervision tree: on a supervisor that is only played, on ours, and on Debian's.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::fake::{Fake, ago, down, up};
use common::service::{Scandir, Service};
use common::user::{NOBODY, for_everyone, is_root};
use common::{Background, Scratch, finish, is_alive, original, program, run, text, until};
use s6::servicedir::status::Status;
use s6::servicedir::tally::Death;
use s6::sys::wait::WaitStatus;

fn up_and_not_ready() -> Status {
    Status { ready: false, ..up() }
}

fn finishing() -> Status {
    Status { pid: 77, finishing: true, ready: false, ..down() }
}

/// The code of a program on directories, options in one string.
fn code(name: &str, options: &str, dirs: &[&Fake]) -> i32 {
    finish(program(name).args(options.split_whitespace()).args(dirs.iter().map(|d| d.path()))).code
}

// ---- s6-svok

#[test]
fn svok_says_no_for_what_is_not_supervised() {
    let scratch = Scratch::new();
    assert_eq!(run("s6-svok", &[scratch.path("missing")]).code, 1);
    scratch.write("service/supervise/lock", "");
    assert_eq!(run("s6-svok", &[scratch.path("service")]).code, 1);
    scratch.write("file", "");
    assert_eq!(run("s6-svok", &[scratch.path("file")]).code, 111);
}

#[test]
fn svok_says_yes_for_what_is_supervised() {
    assert_eq!(code("s6-svok", "", &[&Fake::supervisor(up())]), 0);
}

#[test]
fn svok_without_a_directory_is_wrong_usage() {
    let outcome = run::<&str>("s6-svok", &[]);
    assert_eq!((outcome.code, outcome.err.as_str()), (100, "s6-svok: usage: s6-svok servicedir\n"));
}

// ---- s6-svscanctl

#[test]
fn svscanctl_sends_its_letters_in_order() {
    let mut scanner = Fake::scanner();
    for (options, letters) in [("-zabhitqnN", "zabhitqnN"), ("-a -n", "an"), ("", "")] {
        assert_eq!(code("s6-svscanctl", options, &[&scanner]), 0);
        assert_eq!(scanner.commands(), letters);
    }
    assert_eq!(code("s6-svscanctl", &format!("-{}", "z".repeat(64)), &[&scanner]), 0);
    assert_eq!(code("s6-svscanctl", &format!("-{}", "z".repeat(65)), &[&scanner]), 100);
    assert_eq!(scanner.commands(), "z".repeat(64));
}

#[test]
fn svscanctl_says_what_is_missing() {
    let scratch = Scratch::new();
    let control = || run("s6-svscanctl", &["-a".into(), scratch.path("scan")]);
    assert_eq!(control().code, 111);
    std::fs::create_dir(scratch.path("scan")).unwrap();
    assert_eq!(control().code, 100);
    std::fs::create_dir(scratch.path("scan/.s6-svscan")).unwrap();
    let outcome = control();
    assert_eq!(outcome.code, 100);
    assert!(outcome.err.starts_with("s6-svscanctl: fatal: unable to control "), "{}", outcome.err);
    nix::unistd::mkfifo(&scratch.path("scan/.s6-svscan/control"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(control().code, 100);
    for wrong in ["-d", "--all", "-"] {
        assert_eq!(run("s6-svscanctl", &[wrong]).code, if wrong == "-" { 111 } else { 100 });
    }
}

#[test]
fn a_control_directory_that_cannot_be_read_is_there() {
    if !is_root() {
        common::skip("needs root to be somebody else");
        return;
    }
    let scratch = Scratch::new();
    let bin = for_everyone(&scratch, &["s6-svc", "s6-svscanctl"]);
    for (name, control, code) in [("s6-svc", "supervise", 1), ("s6-svscanctl", ".s6-svscan", 100)] {
        std::fs::create_dir_all(scratch.path("dir").join(control)).unwrap();
        std::fs::set_permissions(scratch.path("dir").join(control), PermissionsExt::from_mode(0o711)).unwrap();
        let outcome = finish(Command::new(bin.join(name)).uid(NOBODY).arg("-a").arg(scratch.path("dir")));
        assert_eq!(outcome.code, code, "{}", outcome.err);
        assert!(outcome.err.contains("control is not there"), "{}", outcome.err);
    }
}

// ---- s6-svc

#[test]
fn svc_sends_its_letters_in_order() {
    let mut service = Fake::supervisor(up());
    for (options, letters) in [
        ("-abqhkti12pcyrlPCK", "abqhkti12pcyrlPCK"),
        ("-oduDUxOQF", "oduDUxOQF"),
        ("-d -u", "du"),
        ("-T 5 -u", "u"),
        ("", ""),
        ("-s ALRM -sSIGABRT -s quit -s 1 -s 9 -d", "abqhkd"),
        ("-s TERM -s INT -s USR1 -s USR2 -s STOP -s CONT -s WINCH", "ti12pcy"),
    ] {
        assert_eq!(code("s6-svc", options, &[&service]), 0, "{options}");
        assert_eq!(service.commands(), letters);
    }
    assert_eq!(code("s6-svc", &format!("-{}", "u".repeat(62)), &[&service]), 0);
    assert_eq!(code("s6-svc", &format!("-{}", "u".repeat(63)), &[&service]), 100);
    assert_eq!(service.commands(), "u".repeat(62));
}

#[test]
fn svc_refuses_what_it_cannot_send() {
    for words in [
        &[][..],
        &["-d"],
        &["-d", ""],
        &["-Z", "x"],
        &["--up", "x"],
        &["-s"],
        &["-s", "SEGV", "x"],
        &["-s", "bogus", "x"],
        &["-s", "99999999999999999999", "x"],
        &["-w", "x", "x"],
        &["-w", "", "x"],
        &["-T", "1s", "x"],
    ] {
        assert_eq!(run("s6-svc", words).code, 100, "{words:?}");
    }
}

#[test]
fn svc_goes_on_after_a_failure_and_ends_with_the_last() {
    let mut service = Fake::supervisor(up());
    let scratch = Scratch::new();
    for dir in ["plain", "broken/supervise"] {
        std::fs::create_dir_all(scratch.path(dir)).unwrap();
    }
    let (missing, plain, broken) = (scratch.path("missing"), scratch.path("plain"), scratch.path("broken"));
    let send = |dirs: &[&std::path::Path]| finish(program("s6-svc").arg("-d").args(dirs));
    for (dirs, code) in [
        ([&missing, &plain, &service.path()], 102),
        ([&plain, &missing, &service.path()], 111),
        ([&missing, &broken, &service.path()], 1),
    ] {
        let outcome = send(&dirs.map(|dir| dir.as_path()));
        assert_eq!((outcome.code, service.commands().as_str()), (code, "d"));
        assert_eq!(outcome.err.matches("s6-svc: warning: unable to control ").count(), 2, "{}", outcome.err);
    }
}

#[test]
fn svc_with_w_becomes_the_program_that_waits() {
    let scratch = Scratch::new();
    for name in ["s6-svwait", "s6-svlisten"] {
        let say = "printf '%s' \"${0##*/}\"; printf '|%s' \"$@\"; echo \"|${EXECLINE_STRICT-unset}\"";
        scratch.script(format!("bin/{name}"), format!("#!/bin/sh\n{say}\n"));
    }
    scratch.write("ready/notification-fd", "3\n");
    std::fs::create_dir(scratch.path("plain")).unwrap();
    let path = format!("{}:/usr/bin:/bin", scratch.path("bin").display());
    let says = |words: &[&str]| {
        let mut command = program("s6-svc");
        finish(command.args(words).current_dir(scratch.path("")).env("PATH", &path).env("EXECLINE_STRICT", "2"))
    };
    for (words, wanted, warns) in [
        (&["-wu", "plain"][..], "s6-svwait|-u|--|plain|unset", false),
        (&["-wd", "-wD", "-T", "0500", "plain", "b"], "s6-svwait|-D|-t|500|--|plain|b|unset", false),
        (&["-wUx", "-T", "0", "ready", "plain"], "s6-svwait|-U|--|ready|plain|unset", false),
        (&["-wU", "plain", "ready"], "s6-svwait|-u|--|plain|ready|unset", true),
        (&["-wR", "plain"], "s6-svwait|-r|--|plain|unset", true),
        (&["-uwU", "-s", "HUP", "ready"], "s6-svlisten|-U|--|ready||s6-svc|-uh|--|ready|unset", false),
        (&["-d", "-wD", "-T1", "a", " b", ""], "s6-svlisten|-D|-t|1|--|a|  b| ||s6-svc|-d|--|a| b||unset", false),
    ] {
        let outcome = says(words);
        assert_eq!((outcome.code, outcome.out.trim_end()), (0, wanted), "{words:?}");
        assert_eq!(outcome.err.starts_with("s6-svc: warning: plain has no notification-fd"), warns, "{}", outcome.err);
    }
}

// ---- s6-svstat

#[test]
fn svstat_sums_a_service_up_in_one_line() {
    let killed = |raw| Status { wait_status: WaitStatus::from_raw(raw), ..down() };
    let exited = |code| Status { wait_status: WaitStatus::exited(code), ..down() };
    let never = Status { paused: true, ready: true, ..down() };
    for (status, down_file, wanted) in [
        (up_and_not_ready(), false, "up (pid 1234 pgid 1234) 0 seconds"),
        (up(), false, "up (pid 1234 pgid 1234) 0 seconds, ready 0 seconds"),
        (up_and_not_ready(), true, "up (pid 1234 pgid 1234) 0 seconds, normally down"),
        (Status { paused: true, ..up_and_not_ready() }, false, "up (pid 1234 pgid 1234) 0 seconds, paused"),
        (Status { wanted_up: false, ..up_and_not_ready() }, false, "up (pid 1234 pgid 1234) 0 seconds, want down"),
        (
            Status { wanted_up: false, paused: true, ..up() },
            true,
            "up (pid 1234 pgid 1234) 0 seconds, normally down, paused, want down, ready 0 seconds",
        ),
        (exited(3), true, "down (exitcode 3) 0 seconds, ready 0 seconds"),
        (
            Status { wanted_up: true, ..exited(3) },
            false,
            "down (exitcode 3) 0 seconds, normally up, want up, ready 0 seconds",
        ),
        (killed(15), true, "down (signal SIGTERM) 0 seconds, ready 0 seconds"),
        (killed(0x86), true, "down (signal SIGIOT) 0 seconds, ready 0 seconds"),
        (killed(50), true, "down (signal SIG???) 0 seconds, ready 0 seconds"),
        (Status { wanted_up: true, wait_status: WaitStatus::exited(255), ..finishing() }, true, {
            "down (exitcode 255) 0 seconds, want up"
        }),
        (never, true, "down (not started yet) "),
        (Status { wanted_up: true, ..never }, false, "down (not started yet) , normally up, want up"),
    ] {
        let service = Fake::supervisor(status);
        if down_file {
            service.scratch.write("dir/down", "");
        }
        let outcome = run("s6-svstat", &[service.path()]);
        assert_eq!((outcome.code, outcome.out), (0, format!("{wanted}\n")), "{status:?}");
    }
    let service = Fake::supervisor(killed(9));
    let numeric = finish(program("s6-svstat").arg("-n").arg(service.path())).out;
    assert_eq!(numeric, "down (signal 9) 0 seconds, normally up, ready 0 seconds\n");
}

#[test]
fn svstat_prints_fields_in_the_order_asked_for() {
    let all = "up,wantedup,normallyup,ready,paused,pid,pgid,exitcode,signal,signum";
    let killed = Status { wait_status: WaitStatus::from_raw(11), wanted_up: true, ..down() };
    let never = Status { paused: true, ..down() };
    for (status, wanted) in [
        (Status { wait_status: WaitStatus::from_raw(9), ..up() }, "true true true true false 1234 1234 -1 NA -1\n"),
        (Status { paused: true, ..up_and_not_ready() }, "true true true false true 1234 1234 -1 NA -1\n"),
        (Status { wait_status: WaitStatus::exited(2), ..finishing() }, "false false true false false -1 -1 2 NA -1\n"),
        (killed, "false true true false false -1 -1 -1 SIGSEGV 11\n"),
        (never, "false false true false false -1 -1 -1 NA -1\n"),
    ] {
        let service = Fake::supervisor(status);
        let outcome = finish(program("s6-svstat").args(["-o", all]).arg(service.path()));
        assert_eq!((outcome.code, outcome.out.as_str()), (0, wanted), "{status:?}");
    }
    let service = Fake::supervisor(killed);
    let print = |words: &[&str]| finish(program("s6-svstat").args(words).arg(service.path())).out;
    assert_eq!(print(&["-uwNrpgest"]), "false true true false -1 -1 -1 SIGSEGV 0\n");
    assert_eq!(print(&["-s", "-o", "signum,", "-o", "", "-p"]), "SIGSEGV 11 -1\n");
    assert_eq!(print(&["-o", &[""; 17].join("up,")]), "false ".repeat(16).trim_end().to_owned() + "\n");
    let stamps = print(&["-o", "updownsince,readysince,updownfor,readyfor"]);
    let text = |stamp: s6::tai::Tai64n| String::from_utf8(stamp.text().to_vec()).unwrap();
    assert_eq!(stamps, format!("{} {} 0 0\n", text(killed.stamp), text(killed.readystamp)));
}

#[test]
fn svstat_counts_whole_seconds() {
    let service = Fake::supervisor(Status { stamp: ago(5000), readystamp: ago(4000), ..up() });
    let outcome = finish(program("s6-svstat").args(["-o", "updownfor,readyfor"]).arg(service.path()));
    let seconds: Vec<u64> = outcome.out.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!((5000..5100).contains(&seconds[0]) && (4000..4100).contains(&seconds[1]), "{}", outcome.out);
}

#[test]
fn svstat_tells_apart_what_is_wrong() {
    let scratch = Scratch::new();
    scratch.write("plain/supervise/lock", "");
    scratch.write("plain/supervise/status", down().pack());
    assert_eq!(run("s6-svstat", &[scratch.path("plain")]).code, 1);
    assert_eq!(run("s6-svstat", &[scratch.path("missing")]).code, 1);
    let service = Fake::supervisor(down());
    service.scratch.write("dir/supervise/status", &down().pack()[..34]);
    assert_eq!(code("s6-svstat", "", &[&service]), 111);
    std::fs::remove_file(service.path().join("supervise/status")).unwrap();
    assert_eq!(code("s6-svstat", "", &[&service]), 111);
    for wrong in ["-Z", "-o bogus", "-o up,,pid", "-o ,", "-uuuuuuuuuuuuuuuuu"] {
        assert_eq!(code("s6-svstat", wrong, &[&service]), 100, "{wrong}");
    }
    assert_eq!(run("s6-svstat", &["-u"]).code, 100);
}

// ---- s6-svwait

#[test]
fn svwait_meets_a_supervisor_that_just_begins() {
    // It may come too late on a busy machine, but not always.
    until("one wait", || {
        let service = Service::sleeper();
        let mut wait = Background::start(program("s6-svwait").arg("-u").arg(service.dir()).stderr(Stdio::null()));
        until("it listens", || std::fs::read_dir(service.path("event")).is_ok_and(|mut dir| dir.next().is_some()));
        let _supervised = service.supervise();
        wait.code() == 0
    });
}

#[test]
fn svwait_believes_the_status_first() {
    let fakes = [up(), up_and_not_ready(), down(), finishing()].map(Fake::supervisor);
    let [ready, up, down, finishing] = &fakes;
    for (option, reached, not_reached) in [
        ("-u", &[ready, up][..], &[down, finishing][..]),
        ("-U", &[ready], &[up, down, finishing]),
        ("-d", &[down, finishing], &[ready, up]),
        ("-D", &[down], &[ready, up, finishing]),
    ] {
        assert_eq!(code("s6-svwait", option, reached), 0, "{option}");
        for service in not_reached {
            assert_eq!(code("s6-svwait", &format!("{option} -t 20"), &[service]), 99, "{option}");
        }
        let both = [reached[0], not_reached[0]];
        assert_eq!(code("s6-svwait", &format!("{option} -t 20"), &both), 99, "{option}");
        assert_eq!(code("s6-svwait", &format!("{option} -o"), &both), 0, "{option}");
        assert_eq!(code("s6-svwait", &format!("{option} -oa -t 20"), &both), 99, "{option}");
    }
    assert!(fakes.iter().all(|fake| fake.subscribers() == 0));
}

#[test]
fn svwait_follows_the_events() {
    for (options, status, letters, wanted) in [
        ("-u", down(), "u", 0),
        ("-U", down(), "uU", 0),
        ("-D", up(), "dD", 0),
        ("-D", finishing(), "D", 0),
        ("-r", up(), "du", 0),
        ("-R", up(), "dDuU", 0),
        ("-u", down(), "OD", 1),
        ("-d", up(), "x", 1),
    ] {
        let service = Fake::supervisor(status);
        let mut wait = Background::start(program("s6-svwait").arg(options).arg(service.path()).stderr(Stdio::null()));
        service.wait_for_subscriber();
        service.send(letters);
        assert_eq!(wait.code(), wanted, "{options} {letters}");
        assert_eq!(service.subscribers(), 0);
    }
}

#[test]
fn svwait_does_not_forget_the_failure_of_one() {
    let (one, two) = (Fake::supervisor(down()), Fake::supervisor(down()));
    let mut wait = Background::start(program("s6-svwait").args([one.path(), two.path()]).stderr(Stdio::null()));
    two.wait_for_subscriber();
    one.send("OD");
    two.send("u");
    assert_eq!(wait.code(), 1);
}

#[test]
fn svwait_makes_the_event_directory() {
    let service = Fake::supervisor(down());
    assert_eq!(code("s6-svwait", "-d", &[&service]), 0);
    let mode = std::fs::metadata(service.path().join("event")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o3730);
}

#[test]
fn svwait_that_is_told_to_end_leaves_no_fifo() {
    let service = Fake::supervisor(down());
    for (signal, wanted) in [(15, 143), (2, 130), (1, 129), (3, 131)] {
        let mut wait = Background::start(program("s6-svwait").arg(service.path()));
        service.wait_for_subscriber();
        wait.signal(signal);
        assert_eq!(wait.code(), wanted);
        assert_eq!(service.subscribers(), 0);
    }
}

#[test]
fn svwait_under_nohup_survives_a_hangup() {
    let service = Fake::supervisor(down());
    let mut command = std::process::Command::new("nohup");
    command.arg(common::bin_dir().join("s6-svwait")).arg(service.path());
    let mut wait = Background::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    service.wait_for_subscriber();
    wait.signal(1);
    service.send("u");
    assert_eq!(wait.code(), 0);
}

#[test]
fn svwait_needs_a_status() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("plain")).unwrap();
    for name in ["plain", "missing"] {
        assert_eq!(run("s6-svwait", &[scratch.path(name)]).code, 111);
    }
    assert_eq!(run("s6-svwait", &["-U", "-t", "10"]).code, 0);
    for wrong in [["-t", "x"], ["-t", "-1"], ["-Z", "x"], ["--up", "x"]] {
        assert_eq!(run("s6-svwait", &wrong).code, 100);
    }
}

// ---- s6-svlisten, s6-svlisten1

/// A shell command that sends letters as a supervisor would.
fn notify(service: &Fake, letters: &str) -> String {
    format!("s6-ftrig-notify {} {letters}", service.path().join("event").display())
}

#[test]
fn listeners_hear_what_their_program_does() {
    for (options, status, letters, wanted) in [
        ("-u", down(), "u", 0),
        ("-U", down(), "uU", 0),
        ("-D", up(), "dD", 0),
        ("-r", up(), "dDu", 0),
        ("-R", up(), "dDuU", 0),
        ("-u", down(), "OD", 1),
        ("-U", down(), "x", 1),
    ] {
        let service = Fake::supervisor(status);
        for words in [&[""][..], &[]] {
            let name = if words.is_empty() { "s6-svlisten1" } else { "s6-svlisten" };
            let mut command = program(name);
            command.arg(options).arg(service.path()).args(words).args(["sh", "-c", &notify(&service, letters)]);
            assert_eq!(finish(&mut command).code, wanted, "{name} {options} {letters}");
        }
    }
}

#[test]
fn a_restart_is_heard_only_if_finish_has_ended() {
    let service = Fake::supervisor(up());
    let command = notify(&service, "du");
    let outcome = finish(program("s6-svlisten1").args(["-rt200"]).arg(service.path()).args(["sh", "-c", &command]));
    assert_eq!(outcome.code, 99);
}

#[test]
fn listeners_do_not_wait_for_their_program() {
    let service = Fake::supervisor(up());
    let pid = service.scratch.path("pid");
    let command = format!("echo $$ > {}; exec sleep 1000 >/dev/null 2>&1", pid.display());
    let outcome = finish(program("s6-svlisten1").arg("-u").arg(service.path()).args(["sh", "-c", &command]));
    assert_eq!(outcome.code, 0);
    until("the program has started", || text(&pid).ends_with('\n'));
    let pid = text(&pid).trim().parse().unwrap();
    assert!(is_alive(pid));
    common::kill(pid, 9);
}

#[test]
fn the_block_of_svlisten_is_that_of_execline() {
    let (one, two) = (Fake::supervisor(up()), Fake::supervisor(down()));
    let quoted = |fake: &Fake| format!(" {}", fake.path().display());
    let listen = |strict: &str, words: &[&str]| {
        finish(program("s6-svlisten").env("EXECLINE_STRICT", strict).args(["-u", "-o"]).args(words))
    };
    let outcome = listen("2", &[&quoted(&one), &quoted(&two), "", "true"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let unquoted = one.path();
    let unquoted = unquoted.to_str().unwrap();
    assert_eq!(listen("2", &[unquoted, "", "true"]).code, 100);
    let outcome = listen("1", &[unquoted, "", "true"]);
    assert_eq!(outcome.code, 0);
    assert!(outcome.err.starts_with("s6-svlisten: warning: unquoted"), "{}", outcome.err);
    for wrong in [&[unquoted, "true", "false"][..], &[unquoted, ""], &["", "true"], &[]] {
        assert_eq!(listen("0", wrong).code, 100, "{wrong:?}");
    }
    let outcome = listen("0", &["", "sh", "-c", "exit 7"]);
    assert_eq!(outcome.code, 7);
    let outcome = finish(program("s6-svlisten").args(["-ro", "-t20", unquoted, "", "true"]));
    assert_eq!(outcome.code, 99);
    assert!(outcome.err.starts_with("s6-svlisten: warning: -o "), "{}", outcome.err);
}

#[test]
fn a_program_that_cannot_start_ends_the_listener_and_its_fifo() {
    let service = Fake::supervisor(down());
    let path = service.path();
    for words in [&["", "no-such-program-at-all"][..], &["no-such-program-at-all"]] {
        let name = if words.len() == 1 { "s6-svlisten1" } else { "s6-svlisten" };
        assert_eq!(finish(program(name).arg(&path).args(words)).code, 111);
        assert_eq!(service.subscribers(), 0);
    }
    assert_eq!(finish(program("s6-svlisten1").arg("-a").arg(&path).arg("true")).code, 100);
    assert_eq!(finish(program("s6-svlisten1").arg(&path)).code, 100);
}

// ---- s6-svdt, s6-svdt-clear, s6-permafailon

/// A service directory with recorded deaths: seconds ago, exit code, signal.
fn tally(deaths: &[(i64, u8, u8)]) -> (Scratch, Vec<String>) {
    let scratch = Scratch::new();
    let deaths: Vec<Death> =
        deaths.iter().map(|&(age, code, signal)| Death { stamp: ago(age), code, signal }).collect();
    scratch.write("supervise/death_tally", deaths.iter().flat_map(Death::pack).collect::<Vec<u8>>());
    let stamps = deaths.iter().map(|death| String::from_utf8(death.stamp.text().to_vec()).unwrap()).collect();
    (scratch, stamps)
}

fn svdt(scratch: &Scratch, options: &[&str]) -> common::Outcome {
    finish(program("s6-svdt").args(options).arg(scratch.path("")))
}

#[test]
fn svdt_prints_deaths_oldest_first() {
    let (scratch, stamps) = tally(&[(30, 143, 15), (20, 0, 0), (10, 255, 0), (5, 168, 40)]);
    let lines = |ways: [&str; 4]| -> String {
        stamps.iter().zip(ways).map(|(stamp, way)| format!("{stamp} {way}\n")).collect()
    };
    let names = lines(["signal SIGTERM", "exitcode 0", "exitcode 255", "signal SIG???"]);
    let numbers = lines(["signal 15", "exitcode 0", "exitcode 255", "signal 40"]);
    assert_eq!(svdt(&scratch, &[]).out, names);
    assert_eq!(svdt(&scratch, &["-sS"]).out, names);
    assert_eq!(svdt(&scratch, &["-s"]).out, numbers);
    assert_eq!(svdt(&scratch, &["-n", "99999"]).out, names);
    let newest: String = names.lines().skip(2).map(|line| format!("{line}\n")).collect();
    assert_eq!(svdt(&scratch, &["-n2"]).out, newest);
}

#[test]
fn svdt_makes_a_tally_that_is_not_there_and_empties_a_bad_one() {
    let scratch = Scratch::new();
    assert_eq!(svdt(&scratch, &["-n0"]).code, 0);
    assert_eq!(svdt(&scratch, &[]).code, 111);
    std::fs::create_dir(scratch.path("supervise")).unwrap();
    let empty = |outcome: common::Outcome| {
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "", ""));
        assert_eq!(std::fs::metadata(scratch.path("supervise/death_tally")).unwrap().len(), 0);
    };
    empty(svdt(&scratch, &[]));
    scratch.write("supervise/death_tally", [0; 15]);
    empty(svdt(&scratch, &[]));
    for wrong in [&["-Z"][..], &["-n", "x"], &["-n"]] {
        assert_eq!(svdt(&scratch, wrong).code, 100);
    }
}

#[test]
fn svdt_clear_forgets_all_deaths() {
    let (scratch, _) = tally(&[(30, 143, 15)]);
    assert_eq!(run("s6-svdt-clear", &[scratch.path("")]).code, 0);
    assert_eq!(svdt(&scratch, &[]).out, "");
    assert_eq!(std::fs::read_dir(scratch.path("supervise")).unwrap().count(), 1);
    assert_eq!(run("s6-svdt-clear", &[scratch.path("missing")]).code, 111);
    assert_eq!(run::<&str>("s6-svdt-clear", &[]).code, 100);
}

fn permafailon(scratch: &Scratch, words: &[&str]) -> common::Outcome {
    finish(program("s6-permafailon").args(words).current_dir(scratch.path("")))
}

#[test]
fn permafailon_gives_up_after_enough_matching_deaths() {
    let (scratch, _) = tally(&[(300, 1, 0), (200, 2, 0), (150, 143, 15), (100, 1, 0)]);
    for (words, gives_up) in [
        (["600", "2", "1"], true),
        (["600", "3", "1"], false),
        (["600", "4", "1,2,SIGTERM"], true),
        (["600", "1", "143"], true),
        (["600", "1", "15"], false),
        (["120", "2", "1"], false),
        (["120", "1", "1"], true),
        (["600", "1", ""], false),
    ] {
        let outcome = permafailon(&scratch, &[&words[..], &["sh", "-c", "echo on; exit 7"]].concat());
        let wanted = if gives_up { (125, "") } else { (7, "on\n") };
        assert_eq!((outcome.code, outcome.out.as_str()), wanted, "{words:?}");
        assert_eq!(outcome.err.starts_with("s6-permafailon: info: "), gives_up);
    }
    for (words, code) in [
        (&["60", "9", "1"][..], 0),
        (&["60", "9", "1", "./supervise"], 126),
        (&["60", "9", "1", "no-such-program-at-all"], 127),
        (&["60", "9"], 100),
        (&["x", "9", "1"], 100),
        (&["60", "0", "1"], 100),
        (&["60", "1", "256"], 100),
    ] {
        assert_eq!(permafailon(&scratch, words).code, code, "{words:?}");
    }
}

#[test]
fn permafailon_goes_on_without_a_readable_tally() {
    let scratch = Scratch::new();
    for content in [None, Some([0; 15])] {
        content.map(|content| scratch.write("supervise/death_tally", content));
        let outcome = permafailon(&scratch, &["60", "1", "0-255", "sh", "-c", "exit 7"]);
        assert_eq!(outcome.code, 7);
        assert!(outcome.err.starts_with("s6-permafailon: warning: "), "{}", outcome.err);
    }
}

#[test]
fn permafailon_in_a_finish_script_ends_the_restarts() {
    let mut s = Service::new("exit 3").finish("exec s6-permafailon 3600 2 3").supervise();
    s.listener.expect("sudDudOD");
    assert!(!s.wait_down().wanted_up);
}

// ---- with real supervisors

/// What s6-svc does to a service, waiting for it.
fn control_a_service(supervise: &mut std::process::Command) {
    let ready = "echo >&3; exec sleep 1000";
    let s = Service::new(ready).finish("exit 0").file("notification-fd", "3\n").file("down", "");
    let s = s.supervise_with(supervise);
    let dir = s.service.dir();
    let svc = |words: &str| finish(program("s6-svc").args(words.split_whitespace()).arg(&dir)).code;
    assert_eq!(svc("-T 20000 -uwU"), 0);
    let first = s.status();
    assert!(first.is_up() && first.ready);
    assert_eq!(svc("-T 20000 -rwR"), 0);
    assert!(s.status().ready && s.status().pid != first.pid);
    assert_eq!(svc("-T 100 -wd"), 99);
    assert_eq!(svc("-T 20000 -dwD"), 0);
    assert!(!s.status().is_up() && s.status().ready);
    let state = finish(program("s6-svstat").args(["-o", "up,wantedup,normallyup,ready,signal"]).arg(&dir));
    assert_eq!(state.out, "false false false false SIGTERM\n");
    let deaths = finish(program("s6-svdt").arg(&dir));
    assert_eq!(deaths.out.matches(" signal SIGTERM\n").count(), 2, "{}", deaths.out);
    assert_eq!(finish(program("s6-svlisten1").args(["-D", "-t20000"]).arg(&dir).arg("true")).code, 0);
    assert_eq!(svc("-x -T 20000 -wD"), 0);
    until("the supervisor leaves", || finish(program("s6-svok").arg(&dir)).code == 1);
}

#[test]
fn the_clients_control_a_service() {
    control_a_service(&mut program("s6-supervise"));
}

#[test]
fn the_clients_control_a_service_of_the_original() {
    if let Some(mut supervise) = original("s6-supervise") {
        control_a_service(&mut supervise);
    }
}

#[test]
fn the_clients_of_the_original_control_a_service() {
    let (Some(_), Some(_)) = (original("s6-svc"), original("s6-svwait")) else { return };
    let s = Service::sleeper().supervise();
    let dir = s.service.dir();
    s.wait_up();
    let mut svc = original("s6-svc").unwrap();
    assert_eq!(finish(svc.args(["-dwD", "-T20000"]).arg(&dir).env("PATH", "/usr/bin:/bin")).code, 0);
    assert!(!s.status().is_up());
    let state = finish(original("s6-svstat").unwrap().args(["-o", "up,wantedup,signal"]).arg(&dir));
    assert_eq!(state.out, "false false SIGTERM\n");
}

#[test]
fn svwait_sees_several_services_restart_each_in_its_own_time() {
    let services = [Service::sleeper().supervise(), Service::sleeper().supervise()];
    let dirs: Vec<_> = services.iter().map(|s| s.service.dir()).collect();
    let before: Vec<_> = services.iter().map(|s| s.wait_up()).collect();
    let mut wait = Background::start(program("s6-svwait").args(["-r", "-t20000"]).args(&dirs));
    until("a subscriber", || std::fs::read_dir(dirs[1].join("event")).unwrap().count() == 2);
    for (service, &pid) in services.iter().zip(&before) {
        common::kill(pid, 9);
        until("it is up again", || service.wait_up() != pid);
    }
    assert_eq!(wait.code(), 0);
}

#[test]
fn a_permanent_failure_is_the_exit_code_of_svc() {
    let s = Service::new("exit 1").finish("exit 125").file("notification-fd", "3").file("down", "").supervise();
    let outcome = finish(program("s6-svc").args(["-uwU", "-T20000"]).arg(s.service.dir()));
    assert_eq!(outcome.code, 1);
}

#[test]
fn svscanctl_finds_new_services_and_ends_the_tree() {
    let mut scanned = Scandir::new().scan(&[]);
    scanned.scandir.service("late", "exec sleep 1000");
    let dir = scanned.scandir.scratch.path("");
    let control = |letters: &str| finish(program("s6-svscanctl").arg(letters).arg(&dir)).code;
    assert_eq!(control("-a"), 0);
    let pid = scanned.wait_up("late");
    assert_eq!(control("-t"), 0);
    assert_eq!(scanned.scanner.code(), 0);
    assert!(!is_alive(pid));
    assert_eq!(control("-a"), 100);
}
