//! Our programs and those of Debian's s6 on the same directories, in both directions.

mod common;

use common::service::{Scandir, Service, Supervised};
use common::{Outcome, finish, original, program, until};
use s6::servicedir::status::Status;

/// Which implementation a program is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Ours,
    Original,
}

/// A program of one side; `None` where Debian's is not installed.
fn on(side: Side, name: &str) -> Option<std::process::Command> {
    match side {
        Side::Ours => Some(program(name)),
        Side::Original => original(name),
    }
}

fn ask(side: Side, name: &str, args: &[&str], s: &Supervised) -> Outcome {
    finish(on(side, name).unwrap().args(args).arg(s.service.dir()))
}

/// Whole lives of a service, controlled by one side and supervised by the other.
fn lifecycle(supervisor: Side, client: Side) {
    let service = Service::new("echo >&5; exec sleep 1000").file("notification-fd", "5\n");
    let Some(mut command) = on(supervisor, "s6-supervise") else { return };
    if on(client, "s6-svc").is_none() {
        return;
    }
    let s = service.supervise_with(&mut command);
    assert_eq!(ask(client, "s6-svwait", &["-U", "-t20000"], &s).code, 0);
    assert_eq!(ask(client, "s6-svok", &[], &s).code, 0);
    let line = ask(client, "s6-svstat", &[], &s).out;
    let pid = s.wait_up();
    assert!(line.starts_with(&format!("up (pid {pid}")), "{line}");
    assert_eq!(ask(client, "s6-svstat", &["-o", "up,ready,pid"], &s).out, format!("true true {pid}\n"));

    // Down, waiting for the event; then up and ready the same way.
    assert_eq!(ask(client, "s6-svc", &["-wD", "-T20000", "-d"], &s).code, 0);
    assert!(ask(client, "s6-svstat", &[], &s).out.starts_with("down (signal SIGTERM)"));
    assert_eq!(ask(client, "s6-svc", &["-wU", "-T20000", "-u"], &s).code, 0);
    let second = s.wait_up();
    assert_eq!(ask(client, "s6-svc", &["-wR", "-T20000", "-r"], &s).code, 0);
    until("a third instance", || s.wait_up() != second);
    let deaths = ask(client, "s6-svdt", &[], &s).out;
    assert_eq!(deaths.lines().filter(|line| line.ends_with(" signal SIGTERM")).count(), 2, "{deaths}");

    assert_eq!(ask(client, "s6-svc", &["-xd"], &s).code, 0);
    until("it is gone", || ask(client, "s6-svok", &[], &s).code == 1);
    drop(s);
}

#[test]
fn clients_of_debian_control_our_supervisor() {
    lifecycle(Side::Ours, Side::Original);
}

#[test]
fn our_clients_control_the_supervisor_of_debian() {
    lifecycle(Side::Original, Side::Ours);
}

#[test]
fn ours_control_ours() {
    lifecycle(Side::Ours, Side::Ours);
}

/// A tree of one side with supervisors of the other, controlled by either.
fn tree(scanner: Side, supervisor: Side) {
    let (Some(mut scan), Some(supervise)) = (on(scanner, "s6-svscan"), on(supervisor, "s6-supervise")) else { return };
    let scandir = Scandir::new();
    scandir.service("one", "while :; do echo line; sleep 0.1; done");
    let log = scandir.scratch.path("log");
    scandir.service("one/log", &format!("exec cat > {}", log.display()));
    // The scanner looks for s6-supervise in PATH: a directory in which there is only the wanted one.
    let wrapper = format!("#!/bin/sh\nexec {} \"$@\"\n", supervise.get_program().to_str().unwrap());
    scandir.scratch.script(".bin/s6-supervise", wrapper);
    let path = format!("{}:{}", scandir.scratch.path(".bin").display(), std::env::var("PATH").unwrap());
    let mut scanned = scandir.scan_with(scan.env("PATH", path));
    scanned.wait_up("one");
    until("lines arrive", || common::text(&log).lines().count() > 3);
    scanned.scandir.service("two", "exec sleep 1000");
    for client in [Side::Original, Side::Ours] {
        let control = |options: &str| {
            let dir = scanned.scandir.scratch.path("");
            assert_eq!(finish(on(client, "s6-svscanctl").unwrap().arg(options).arg(dir)).code, 0);
        };
        control("-a");
        scanned.wait_up("two");
        std::fs::rename(scanned.scandir.scratch.path("two"), scanned.scandir.scratch.path(".two")).unwrap();
        control("-an");
        until("two is gone", || Status::read(&scanned.service(".two")).is_ok_and(|s| s.pid == 0));
        until("its supervisor is gone", || !scanned.is_supervised(".two"));
        std::fs::rename(scanned.scandir.scratch.path(".two"), scanned.scandir.scratch.path("two")).unwrap();
    }
    assert_eq!(scanned.end(), 0);
}

#[test]
fn our_scanner_runs_the_supervisors_of_debian() {
    tree(Side::Ours, Side::Original);
}

#[test]
fn the_scanner_of_debian_runs_our_supervisors() {
    tree(Side::Original, Side::Ours);
}
