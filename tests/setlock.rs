//! s6-setlock: whose lock it is, and how long it lasts.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::service::c;
use common::{Background, Scratch, finish, original, program, run, text, until};
use nix::fcntl::OFlag;
use s6::sys::{fd, lock};

/// Whether some process holds the lock.
fn is_locked(path: &Path) -> bool {
    lock::is_locked(fd::open_file(&c(path), OFlag::O_RDONLY, 0).unwrap()).unwrap()
}

/// A process that holds the lock.
fn holder(command: &mut Command, options: &[&str], path: &Path) -> Background {
    let ready = path.with_extension("ready");
    let _ = std::fs::remove_file(&ready);
    let script = "touch \"$0\"; exec sleep 1000";
    let child = Background::start(command.args(options).arg(path).args(["sh", "-c", script]).arg(&ready));
    until("the lock is held", || ready.exists());
    child
}

fn setlock(options: &[&str], path: &Path) -> i32 {
    finish(program("s6-setlock").args(options).arg(path).arg("true")).code
}

#[test]
fn the_lock_lasts_as_long_as_the_program() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let mut holder = holder(&mut program("s6-setlock"), &[], &path);
    assert!(is_locked(&path));
    assert_eq!(setlock(&["-n"], &path), 1);
    assert_eq!(setlock(&["-t", "20"], &path), 1);
    assert_eq!(setlock(&["-n", "-N", "-t20"], &path), 1);
    holder.signal(15);
    holder.code();
    assert_eq!(setlock(&["-n"], &path), 0);
}

#[test]
fn the_lock_survives_the_move_to_its_descriptor() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    for place in ["3", "9", "0"] {
        let holder = holder(&mut program("s6-setlock"), &["-d", place], &path);
        assert!(is_locked(&path), "-d {place}");
        let open: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", holder.pid()))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target == path))
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        assert_eq!(open, [place]);
    }
}

#[test]
fn a_waiter_gets_the_lock_when_it_is_free() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    for options in [&[][..], &["-t", "20000"]] {
        let holder = holder(&mut program("s6-setlock"), &[], &path);
        let mut waiter = program("s6-setlock");
        waiter.args(options).arg(&path).args(["echo", "got it"]).stdout(Stdio::piped());
        let mut waiter = Background::start(&mut waiter);
        until("it waits", || text(format!("/proc/{}/stat", waiter.pid())).contains("(s6-setlock) S "));
        holder.signal(15);
        assert_eq!(waiter.code(), 0);
        assert_eq!(std::io::read_to_string(waiter.0.stdout.take().unwrap()).unwrap(), "got it\n");
    }
}

#[test]
fn the_alarm_of_a_limit_is_off_in_the_program() {
    let scratch = Scratch::new();
    // Only builtins look: a shell that is starting a program blocks signals meanwhile.
    let script = "trap 'echo alarm' ALRM
        while read -r name value; do case $name in SigBlk:|SigIgn:) echo $name $value ;; esac; done < /proc/$$/status
        sleep 0.1";
    let say = |options: &[&str]| {
        finish(program("s6-setlock").args(options).arg(scratch.path("lock")).args(["sh", "-c", script])).out
    };
    assert_eq!(say(&["-t", "30"]), say(&[]));
}

#[test]
fn readers_share_what_a_writer_has_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let reader = holder(&mut program("s6-setlock"), &["-r"], &path);
    assert_eq!(setlock(&["-rn"], &path), 0);
    assert_eq!(setlock(&["-n"], &path), 1);
    drop(reader);
    let _writer = holder(&mut program("s6-setlock"), &["-r", "-w"], &path);
    assert_eq!(setlock(&["-rn"], &path), 1);
}

#[test]
fn the_lock_file_is_made_and_never_emptied() {
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    assert_eq!(setlock(&["-r"], &path), 0);
    assert_eq!(text(&path), "");
    std::fs::write(&path, "keep").unwrap();
    assert_eq!((setlock(&[], &path), setlock(&["-r"], &path)), (0, 0));
    assert_eq!(text(&path), "keep");
    assert_eq!(setlock(&["-r"], &scratch.path("")), 0);
    for (options, name) in [
        (&[][..], ""),
        (&[], "missing/lock"),
        (&["-r"], "missing/lock"),
        (&["-d", "2147483647"], "l"),
        (&["-d", "4294967295"], "l"),
    ] {
        assert_eq!(setlock(options, &scratch.path(name)), 111, "{options:?} {name}");
    }
}

#[test]
fn setlock_refuses_wrong_usage() {
    for wrong in [&[][..], &["l"], &["-z", "l", "true"], &["-t", "x", "l", "true"], &["-d", "x", "l", "true"]] {
        assert_eq!(run("s6-setlock", wrong).code, 100, "{wrong:?}");
    }
    let scratch = Scratch::new();
    let lock = scratch.path("lock");
    assert_eq!(finish(program("s6-setlock").arg(&lock).arg("no-such-program-at-all")).code, 127);
    assert_eq!(finish(program("s6-setlock").arg(&lock).arg(&lock)).code, 126);
}

#[test]
fn both_implementations_exclude_each_other() {
    let Some(mut theirs) = original("s6-setlock") else { return };
    let scratch = Scratch::new();
    let path = scratch.path("lock");
    let held = holder(&mut theirs, &[], &path);
    assert_eq!(setlock(&["-n"], &path), 1);
    drop(held);
    let _held = holder(&mut program("s6-setlock"), &["-d", "5"], &path);
    assert_eq!(finish(original("s6-setlock").unwrap().arg("-n").arg(&path).arg("true")).code, 1);
}
