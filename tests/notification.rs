//! The programs around readiness: a check, systemd's socket, a newline, and any of them made from another.

mod common;

use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::service::{Service, c};
use common::{Background, Scratch, eventually, finish, is_alive, program, run, skip, text, until, with_path};
use s6::sys::fd;
use s6::sys::poll::{self, PollFd};

/// Runs a script for sh whose descriptor 5 is the write end of a pipe; returns it with the read end.
fn with_notification(script: &str, dir: &Path) -> (Background, File) {
    let (reader, writer) = fd::pipe().unwrap();
    let mut shell = with_path(Command::new("sh"));
    let script = format!("exec 5>&1 >&2; {script}");
    shell.args(["-c", &script]).current_dir(dir).stdin(Stdio::null()).stdout(writer);
    shell.stderr(File::options().create(true).append(true).open(dir.join("stderr")).unwrap());
    (Background::start(&mut shell), reader.into())
}

/// All that comes through a pipe until nobody can write any more.
fn all(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

/// The processes whose command line contains a word.
fn processes(word: &str) -> Vec<i32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid| text(format!("/proc/{pid}/cmdline")).contains(word)).filter(|pid| is_alive(*pid)).collect()
}

/// The live children of a process.
fn children(pid: i32) -> usize {
    text(format!("/proc/{pid}/task/{pid}/children")).split_whitespace().count()
}

/// Which program a process runs.
fn name_of(pid: i32) -> String {
    text(format!("/proc/{pid}/comm")).trim_end().to_owned()
}

// ---- s6-notify-fd-from-socket

/// A daemon that writes the address of its socket to the file `address`, and then does nothing.
const NOTIFIED: &str =
    "exec s6-notify-fd-from-socket -3 5 sh -c 'echo \"$NOTIFY_SOCKET\" >new; mv new address; exec sleep 1000'";

fn address(scratch: &Scratch) -> SocketAddr {
    let name = eventually("the address", || Some(text(scratch.path("address"))).filter(|text| !text.is_empty()));
    let name = name.trim_end().strip_prefix('@').expect("an abstract address");
    assert!(name.len() == 5 && name.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
    SocketAddr::from_abstract_name(name).unwrap()
}

#[test]
fn ready_on_a_socket_is_a_newline_on_the_descriptor() {
    for messages in [
        &["READY=1\n"][..],
        &["READY=1"],
        &["STATUS=loading\nREADY=1\nMAINPID=1"],
        &["", "STATUS=almost\n", "NOTREADY=1", "READY=0\n", "READY=1"],
    ] {
        let scratch = Scratch::new();
        let (mut daemon, reader) = with_notification(NOTIFIED, &scratch.path(""));
        let address = address(&scratch);
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect_addr(&address).unwrap();
        for message in messages {
            sender.send(message.as_bytes()).unwrap();
        }
        assert_eq!(all(reader), "\n", "{messages:?}");
        assert!(daemon.is_running());
    }
}

#[test]
fn the_daemon_has_neither_socket_nor_descriptor() {
    let scratch = Scratch::new();
    let list = |file: &str| format!("ls /proc/self/fd > {file}");
    finish(with_path(Command::new("sh")).current_dir(scratch.path("")).args(["-c", &list("without")]));
    let script = format!("exec s6-notify-fd-from-socket -3 5 sh -c '{}'", list("with"));
    let (mut daemon, _reader) = with_notification(&script, &scratch.path(""));
    assert_eq!(daemon.code(), 0);
    assert_eq!(text(scratch.path("with")), text(scratch.path("without")));
}

#[test]
fn the_listener_ends_when_nobody_is_left_to_be_told() {
    let scratch = Scratch::new();
    let (_daemon, reader) = with_notification(NOTIFIED, &scratch.path(""));
    let address = address(&scratch);
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect_addr(&address).unwrap();
    drop(reader);
    until("the socket is gone", || sender.send(b"STATUS=still here").is_err());
}

#[test]
fn the_listener_keeps_none_of_the_daemons_pipes_and_ends_with_it() {
    let scratch = Scratch::new();
    let mut daemon = with_path(Command::new("sh"));
    let script = "exec 5>>other; exec s6-notify-fd-from-socket -3 5 sh -c 'echo hello; exec sleep 1000 >/dev/null'";
    daemon.args(["-c", script]).current_dir(scratch.path("")).stdin(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Background::start(daemon.stdout(Stdio::piped()));
    let mut text = String::new();
    daemon.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n", "and then the end of the pipe, while the listener waits");
    let listeners = || processes("s6-notify-fd-from-socket\0-3\x005\0sh\0-c\0echo hello;");
    assert_eq!(listeners().len(), 1, "a file is never hung up");
    daemon.signal(9);
    until("it is gone", || listeners().is_empty());
}

#[test]
fn the_last_words_of_the_daemon_count() {
    for _ in 0..20 {
        let scratch = Scratch::new();
        let script = "exec s6-notify-fd-from-socket -3 5 s6-sdnotify --ready";
        let (mut daemon, reader) = with_notification(script, &scratch.path(""));
        assert_eq!((all(reader).as_str(), daemon.code()), ("\n", 0), "{}", text(scratch.path("stderr")));
    }
}

#[test]
fn a_time_limit_ends_the_listener_and_not_the_daemon() {
    let scratch = Scratch::new();
    let script = "exec s6-notify-fd-from-socket --timeout=30 --notification-fd=5 sleep 1000";
    let (mut daemon, reader) = with_notification(script, &scratch.path(""));
    assert_eq!(all(reader), "");
    assert!(daemon.is_running());
    until("a message", || text(scratch.path("stderr")).starts_with("s6-notify-fd-from-socket: fatal: "));
}

#[test]
fn the_listener_is_a_child_only_if_asked() {
    for (option, want) in [("", 0), ("-f", 1), ("--no-doublefork", 1), ("-f --doublefork", 0)] {
        let scratch = Scratch::new();
        let script = format!("exec s6-notify-fd-from-socket -3 5 {option} sleep 1000");
        let (daemon, reader) = with_notification(&script, &scratch.path(""));
        until("the daemon runs", || name_of(daemon.pid()) == "sleep");
        assert_eq!(children(daemon.pid()), want, "{option}");
        drop(reader);
    }
}

#[test]
fn a_helper_can_be_made_where_the_death_of_children_is_ignored() {
    if finish(Command::new("env").args(["--ignore-signal=CHLD", "true"])).code != 0 {
        return skip("env cannot ignore signals here");
    }
    let scratch = Scratch::new();
    let script = "exec env --ignore-signal=CHLD s6-notify-fd-from-socket -3 5 s6-sdnotify --no-block --ready";
    let (mut daemon, reader) = with_notification(script, &scratch.path(""));
    assert_eq!((all(reader).as_str(), daemon.code()), ("\n", 0), "{}", text(scratch.path("stderr")));
}

#[test]
fn forking_twice_has_no_letter() {
    for (name, option) in [("s6-notify-fd-from-socket", "-d"), ("s6-notify-socket-from-fd", "-D")] {
        let outcome = run(name, &[option, "true"]);
        assert_eq!(outcome.code, 100, "{name}: {}", outcome.err);
    }
}

#[test]
fn the_descriptor_is_named_by_a_file() {
    let scratch = Scratch::new();
    for (file, want) in [(None, 111), (Some("x\n"), 100), (Some("200\n"), 111)] {
        if let Some(file) = file {
            scratch.write("notification-fd", file);
        }
        for name in ["s6-notify-fd-from-socket", "s6-notifyoncheck"] {
            let outcome = finish(program(name).arg("true").current_dir(scratch.path("")));
            assert_eq!(outcome.code, want, "{name}: {}", outcome.err);
            assert!(outcome.err.starts_with(&format!("{name}: fatal: ")), "{}", outcome.err);
        }
    }
    for name in ["s6-notify-fd-from-socket", "s6-notify-socket-from-fd", "s6-notifyoncheck"] {
        assert_eq!(run::<&str>(name, &[]).code, 100);
        assert_eq!(run(name, &["--bogus", "true"]).code, 100);
        assert_eq!(run(name, &["-D", "true"]).code, 100);
        assert_eq!(run(name, &["-t", "soon", "-3", "2", "true"]).code, 100);
    }
    assert_eq!(run("s6-notify-fd-from-socket", &["-d", "true"]).code, 100, "only --doublefork says it");
}

// ---- real daemons that tell systemd

/// Runs a daemon under s6-supervise until it is ready, then ends it; nothing is left.
fn becomes_ready(daemon: &str, configure: impl FnOnce(&Path) -> String) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let Some(file) = std::env::split_paths(&path).map(|dir| dir.join(daemon)).find(|file| file.exists()) else {
        return skip(&format!("{daemon} is not installed"));
    };
    let service = Service::new("").file("notification-fd", "5\n");
    let home = service.path("home");
    std::fs::create_dir(&home).unwrap();
    let arguments = configure(&home);
    service.run(&format!("exec 2>&1; exec s6-notify-fd-from-socket {} {arguments}", file.display()));
    let supervised = service.supervise();
    supervised.wait(&format!("{daemon} is ready"), |status| status.is_up() && status.ready);
    supervised.command("d");
    supervised.wait_down();
    until("nothing is left of it", || processes(home.to_str().unwrap()).is_empty());
}

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn redis_becomes_ready() {
    becomes_ready("redis-server", |home| {
        let home = home.display();
        format!("--port 0 --unixsocket {home}/s --supervised systemd --daemonize no --save '' --dir {home}")
    });
}

#[test]
fn haproxy_becomes_ready() {
    becomes_ready("haproxy", |home| {
        let (file, home) = (home.join("conf"), home.display());
        let text = format!(
            "defaults\n mode http\n timeout client 9s\n timeout server 9s\n timeout connect 9s\nfrontend f\n bind unix@{home}/s\n"
        );
        std::fs::write(&file, text).unwrap();
        format!("-Ws -f {}", file.display())
    });
}

#[test]
fn unbound_becomes_ready() {
    becomes_ready("unbound", |home| {
        let (file, home, port) = (home.join("conf"), home.display(), port());
        let text = format!(
            "server:\n interface: 127.0.0.1\n port: {port}\n chroot: \"\"\n username: \"\"\n directory: {home}\n pidfile: \"\"\n use-syslog: no\n"
        );
        std::fs::write(&file, text).unwrap();
        format!("-d -c {}", file.display())
    });
}

#[test]
fn sshd_becomes_ready() {
    becomes_ready("sshd", |home| {
        if nix::unistd::geteuid().is_root() {
            let _ = std::fs::create_dir("/run/sshd");
        }
        let key = home.join("key");
        let made = finish(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        assert_eq!(made.code, 0, "{}", made.err);
        let (key, home) = (key.display(), home.display());
        format!("-D -f /dev/null -h {key} -p {} -o ListenAddress=127.0.0.1 -o PidFile={home}/pid", port())
    });
}

// ---- s6-notify-socket-from-fd

/// A socket as systemd's: in the file system, or abstract.
fn manager(scratch: &Scratch, is_abstract: bool) -> (UnixDatagram, String) {
    let (manager, name) = if is_abstract {
        let name = format!("s6-rs-test-{}", scratch.path("").file_name().unwrap_or_default().display());
        (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}"))
    } else {
        let path = scratch.path("manager");
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned())
    };
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (manager, name)
}

/// The next message and what came with it.
fn message(manager: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let (mut buffer, mut fds) = ([0; 1000], Vec::new());
    let received = s6::sys::scm::receive(manager, &mut buffer, &mut fds).unwrap();
    (String::from_utf8(buffer[..received.length].to_vec()).unwrap(), fds)
}

fn notifier(manager: &str, args: &[&str]) -> Background {
    let mut command = program("s6-notify-socket-from-fd");
    Background::start(command.args(args).env("NOTIFY_SOCKET", manager).stdin(Stdio::null()))
}

#[test]
fn a_newline_becomes_a_message_with_the_pid_of_the_daemon() {
    for is_abstract in [false, true] {
        let scratch = Scratch::new();
        let (manager, name) = manager(&scratch, is_abstract);
        let daemon =
            notifier(&name, &["-f", "-d", "3", "sh", "-c", "printf 'almost, ' >&3; echo now >&3; exec sleep 1000"]);
        assert_eq!(message(&manager).0, format!("READY=1\nMAINPID={}\n", daemon.pid()));
        let (text, barrier) = message(&manager);
        assert_eq!((text.as_str(), barrier.len()), ("BARRIER=1\n", 1));
        until("the daemon runs", || name_of(daemon.pid()) == "sleep");
        assert_eq!(children(daemon.pid()), 1, "the helper waits until its message is read");
        drop(barrier);
        until("the helper is gone", || processes(&name).is_empty() && no_child_lives(daemon.pid()));
    }
}

#[test]
fn a_receiver_that_knows_enough_need_not_see_the_barrier() {
    let scratch = Scratch::new();
    let (manager, name) = manager(&scratch, false);
    // Room for one message, and not for the barrier.
    let other = UnixDatagram::unbound().unwrap();
    other.connect(&name).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"full").is_ok() {}
    manager.recv(&mut [0; 4]).unwrap();
    let mut notifier = program("s6-notify-socket-from-fd");
    notifier.args(["-f", "-d", "3", "sh", "-c", "echo >&3; exec sleep 1000"]).env("NOTIFY_SOCKET", &name);
    notifier.stdin(Stdio::null()).stderr(File::create(scratch.path("stderr")).unwrap());
    let daemon = Background::start(&mut notifier);
    until("the first message is there", || {
        let mut room = [PollFd::new(other.as_fd(), poll::OUT)];
        poll::look(&mut room).unwrap();
        !room[0].ready()
    });
    drop(manager);
    until("the helper is gone", || no_child_lives(daemon.pid()));
    assert_eq!(text(scratch.path("stderr")), "");
}

/// Whether a process has no child, or one that it has not reaped: a daemon may, while it is still a shell.
fn no_child_lives(pid: i32) -> bool {
    let children = text(format!("/proc/{pid}/task/{pid}/children"));
    children.split_whitespace().all(|child| !is_alive(child.parse().unwrap()))
}

#[test]
fn without_a_newline_nothing_is_said() {
    let scratch = Scratch::new();
    let (manager, name) = manager(&scratch, false);
    let mut daemon = notifier(&name, &["-d", "3", "sh", "-c", "printf 'not yet' >&3"]);
    assert_eq!(daemon.code(), 0);
    let other = notifier(&name, &["-d", "3", "sh", "-c", "echo >&3"]);
    assert_eq!(message(&manager).0, format!("READY=1\nMAINPID={}\n", other.pid()), "the first message is the other's");
}

#[test]
fn the_daemon_sees_the_socket_only_if_asked() {
    let scratch = Scratch::new();
    let (_manager, name) = manager(&scratch, false);
    let seen = |args: &[&str]| {
        let mut command = program("s6-notify-socket-from-fd");
        finish(command.args(args).args(["sh", "-c", "echo \"${NOTIFY_SOCKET-none}\""]).env("NOTIFY_SOCKET", &name)).out
    };
    assert_eq!(seen(&["-d", "3"]), "none\n");
    assert_eq!(seen(&["-d", "3", "-k"]), format!("{name}\n"));
    assert_eq!(seen(&["-d", "3", "--keep-environment"]), format!("{name}\n"));
}

#[test]
fn without_a_socket_the_daemon_is_just_executed() {
    let mut command = program("s6-notify-socket-from-fd");
    command.args(["-d", "7", "sh", "-c", "test -e /proc/self/fd/7 || echo closed"]).env_remove("NOTIFY_SOCKET");
    assert_eq!(finish(&mut command).out, "closed\n");
}

#[test]
fn a_newline_goes_through_both_and_comes_out_as_one() {
    let scratch = Scratch::new();
    let script =
        "exec s6-notify-fd-from-socket -3 5 s6-notify-socket-from-fd -d 6 sh -c 'echo ready >&6; exec sleep 1000'";
    let (_daemon, reader) = with_notification(script, &scratch.path(""));
    assert_eq!(all(reader), "\n");
}

// ---- s6-notifyoncheck

/// A service that is ready when its check says so.
fn checked(options: &str, check: &str) -> Service {
    let service = Service::new(&format!("exec s6-notifyoncheck {options} sleep 1000"));
    service.scratch.script("service/data/check", format!("#!/bin/sh\n{check}\n"));
    service.file("notification-fd", "5\n")
}

#[test]
fn a_service_is_ready_when_its_check_succeeds() {
    let s = checked("-w 10", "echo try >> tries; test \"$(wc -l < tries)\" -ge 3").supervise();
    s.wait("ready", |status| status.is_up() && status.ready);
    assert_eq!(text(s.service.path("tries")), "try\n".repeat(3));
    until("the helper has left ./event to us", || std::fs::read_dir(s.service.path("event")).unwrap().count() == 1);
}

#[test]
fn a_service_whose_check_always_fails_stays_up_and_is_never_ready() {
    let mut s = checked("-w 1 -n 4", "echo try >> tries; exit 1").supervise();
    let pid = s.wait_up();
    until("all tries are used up", || text(s.service.path("tries")) == "try\n".repeat(4));
    until("the helper is gone", || no_child_lives(pid));
    assert!(is_alive(pid));
    assert_eq!(s.listener.letters(), "su");
}

#[test]
fn a_check_that_hangs_is_killed_and_the_next_one_counts() {
    let s = checked("-t 200 -w 1", "echo $$ >> tries; test \"$(wc -l < tries)\" -ge 2 || exec sleep 1000").supervise();
    s.wait("ready", |status| status.is_up() && status.ready);
    let tries = text(s.service.path("tries"));
    let first: i32 = tries.lines().next().unwrap().parse().unwrap();
    until("the check that hung is dead", || !is_alive(first));
}

#[test]
fn the_death_of_the_service_ends_the_check() {
    let mut s = checked("-d", "echo $$ > pid.new; mv pid.new pid; exec sleep 1000").supervise();
    let check: i32 = eventually("the check runs", || text(s.service.path("pid")).trim().parse().ok());
    s.command("d");
    s.wait_down();
    until("the check is dead", || !is_alive(check));
    assert_eq!(s.listener.letters(), "sudD");
    until("the helper has left ./event to us", || std::fs::read_dir(s.service.path("event")).unwrap().count() == 1);
}

#[test]
fn the_whole_may_have_a_limit() {
    let s = checked("-T 200 -n 0 -w 1", "exit 1").supervise();
    let pid = s.wait_up();
    until("the helper is gone", || name_of(pid) == "sleep" && no_child_lives(pid));
    assert!(!s.status().ready && is_alive(pid));
}

#[test]
fn a_check_can_be_a_command_line() {
    if finish(Command::new("sh").args(["-c", "command -v execlineb"])).code != 0 {
        return skip("execline is not installed");
    }
    let s = checked("-c 'touch checked'", "exit 1").supervise();
    s.wait("ready", |status| status.is_up() && status.ready);
    assert!(s.service.path("checked").exists());
}

#[test]
fn a_check_that_does_not_exist_is_a_failure_with_a_warning() {
    let service = Service::new("exec s6-notifyoncheck -n 2 -w 1 sleep 1000").file("notification-fd", "5\n");
    let s = service.supervise();
    until("two warnings", || {
        s.errors().matches("s6-notifyoncheck: warning: unable to spawn ./data/check").count() == 2
    });
    assert!(is_alive(s.wait_up()));
}

#[test]
fn outside_of_a_supervised_service_it_refuses() {
    let scratch = Scratch::new();
    let start = || finish(program("s6-notifyoncheck").args(["-3", "0", "true"]).current_dir(scratch.path("")));
    assert_eq!(start().code, 100);
    assert!(start().err.contains("the current directory is not that of a supervised service"), "{}", start().err);
    scratch.write("supervise/lock", "");
    assert_eq!(start().code, 100, "not locked");
    let lock = File::options().write(true).open(scratch.path("supervise/lock")).unwrap();
    // The lock must be another process's.
    drop(lock);
    let holder =
        with_path(Command::new("s6-setlock")).arg(scratch.path("supervise/lock")).args(["sleep", "1000"]).spawn();
    let _holder = Background(holder.unwrap());
    until("it gets further", || start().code == 111);
    assert!(start().err.contains("./event"), "{}", start().err);
    s6::events::fifodir::make(&c(scratch.path("event")), s6::events::fifodir::Access::Public, false).unwrap();
    assert_eq!(start().code, 0);
}
