//! s6-sdnotify says what it is told, byte for byte what systemd-notify says where that is installed.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use common::{Background, code, finish, program, run, skip, until};
use s6::notify::receiver::Receiver;
use s6::sys::Errno;

/// What a receiver sees of one message.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    text: String,
    fds: usize,
    uid: u32,
    /// This process, the program itself, or a number.
    sender: String,
}

/// Runs a program to its end and says what it sent, and its exit code.
fn messages(command: &mut Command, args: &[&str]) -> (Vec<Seen>, i32) {
    let receiver = Receiver::anywhere().unwrap();
    command.args(args).env("NOTIFY_SOCKET", OsStr::from_bytes(receiver.address().to_bytes()));
    let mut child = Background::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let (mut seen, mut status) = (Vec::new(), None);
    until("the program ends", || {
        status = status.or_else(|| child.0.try_wait().unwrap());
        let (mut buffer, mut fds) = ([0; s6::notify::grammar::MOST + 1], Vec::new());
        loop {
            let incoming = match receiver.receive(&mut buffer, &mut fds) {
                Ok(incoming) => incoming.expect("a message from somebody"),
                Err(Errno::EAGAIN) => break,
                Err(errno) => panic!("{errno}"),
            };
            let sender = match incoming.sender.pid.as_raw() {
                pid if pid == child.pid() => "itself".into(),
                pid if pid == std::process::id() as i32 => "its caller".into(),
                other => other.to_string(),
            };
            let text = String::from_utf8(incoming.payload.to_vec()).unwrap();
            let text = text.replace(&format!("={}", child.pid()), "=ITS PID");
            seen.push(Seen { text, fds: fds.len(), uid: incoming.sender.uid, sender });
            fds.clear(); // which ends the barrier
        }
        status.is_some()
    });
    (seen, code(status.unwrap()))
}

fn said(args: &[&str]) -> Vec<String> {
    let (seen, code) = messages(&mut program("s6-sdnotify"), args);
    assert_eq!(code, 0, "{args:?}");
    seen.into_iter().map(|message| message.text).collect()
}

#[test]
fn options_and_variables_make_one_message_and_a_barrier_follows() {
    assert_eq!(said(&["--ready"]), ["READY=1", "BARRIER=1"]);
    assert_eq!(said(&["--no-block", "X=1", "--status", "a b", "--stopping"]), ["STOPPING=1\nSTATUS=a b\nX=1"]);
    assert_eq!(said(&["--no-block", "--ready", "READY=0", "X=1", "Y=1", "X=2"]), ["READY=0\nX=2\nY=1"]);
    let reloading = &said(&["--no-block", "--reloading"])[0];
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
}

#[test]
fn descriptors_are_sent_under_a_name() {
    let (seen, _) = messages(&mut program("s6-sdnotify"), &["--fd=0", "--fd", "1", "--fdname=x y"]);
    assert_eq!((seen[0].text.as_str(), seen[0].fds), ("FDSTORE=1\nFDNAME=x y", 2));
    assert_eq!((seen[1].text.as_str(), seen[1].fds), ("BARRIER=1", 1));
}

#[test]
fn the_program_behind_the_semicolon_keeps_its_options() {
    let dir = common::Scratch::new();
    let file = dir.path("file");
    let script = format!("echo \"$0 $1\" > {}", file.display());
    assert_eq!(said(&["--exec", "--ready", ";", "sh", "-c", &script, "name", "--ready"]), ["READY=1", "BARRIER=1"]);
    assert_eq!(common::text(&file), "name --ready\n");
    assert_eq!(said(&["--no-block", "--ready", ";"]), ["READY=1\n;"]);
    assert_eq!(messages(&mut program("s6-sdnotify"), &["--exec", "--ready", ";", "/nonexistent"]).1, 127);
}

#[test]
fn failures_have_their_codes_and_wrong_usage_says_nothing() {
    for args in [
        &["--bogus"][..],
        &["-r"],
        &[],
        &["--status"],
        &["--exec", "--ready"],
        &["--exec", "--ready", ";"],
        &["--fdname=x", "--ready"],
        &["--fd=0", "--fdname=a:b"],
        &["--pid=abc"],
        &["--uid=there is no such user"],
    ] {
        assert_eq!(messages(&mut program("s6-sdnotify"), args), (vec![], 100), "{args:?}");
    }
    assert_eq!(messages(&mut program("s6-sdnotify"), &["--fd=99"]).1, 111);
    let without = finish(program("s6-sdnotify").arg("--ready").env_remove("NOTIFY_SOCKET"));
    assert_eq!(without.code, 1, "{}", without.err);
    let nowhere = finish(program("s6-sdnotify").arg("--ready").env("NOTIFY_SOCKET", "/nonexistent/socket"));
    assert_eq!(nowhere.code, 111, "{}", nowhere.err);
    let booted = std::path::Path::new("/run/systemd/system").is_dir();
    assert_eq!(run("s6-sdnotify", &["--booted"]).code, if booted { 0 } else { 1 });
}

#[test]
fn a_receiver_that_does_not_look_is_not_waited_for_for_ever() {
    let receiver = Receiver::anywhere().unwrap();
    let address = OsStr::from_bytes(receiver.address().to_bytes());
    let outcome = finish(program("s6-sdnotify").arg("--ready").env("NOTIFY_SOCKET", address));
    assert_eq!(outcome.code, 99, "{}", outcome.err);
}

/// Runs both with the same arguments, and compares all that arrives.
#[test]
fn it_says_what_systemd_notify_says() {
    let Ok(help) = Command::new("systemd-notify").arg("--help").output() else {
        return skip("systemd-notify is not installed");
    };
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let cases: &[&[&str]] = &[
        &["--ready"],
        &["--ready", "--status=hi", "FOO=bar"],
        &["FOO=bar", "--status", "two words", "--ready"],
        &["--ready", "READY=0"],
        &["--ready", "--status=a", "READY=2", "X=1"],
        &["--status=a", "--status=b"],
        &["--status=", "--ready"],
        &["--status=line\nline"],
        &["A=1", "B=2", "A=3"],
        &["FOO", "FOO", "B=1", "FOO"],
        &["--pid", "--ready"],
        &["--pid=auto"],
        &["--pid=self"],
        &["--pid=parent"],
        &["--pid=1"],
        &["--uid=nobody", "--ready"],
        &["--no-block", "--ready"],
        &["--stopping"],
        &["--reloading", "--stopping", "--ready"],
        &["--fd=0", "--fdname=x", "--ready"],
        &["--fd=0", "--fd", "1"],
        &["--fd=0", "--fdname=", "X=1"],
        &["--exec", "--ready", "FOO=1", ";", "true"],
        &["--ready", "--", "--foo", "X=1"],
    ];
    let knows = |word: &&str| {
        let option = word.split('=').next().unwrap();
        !option.starts_with("--") || option == "--" || option == "--foo" || help.contains(option)
    };
    let mut compared = 0;
    for args in cases.iter().filter(|args| args.iter().all(knows)) {
        let (theirs, code) = messages(&mut Command::new("systemd-notify"), args);
        let (mut ours, our_code) = messages(&mut program("s6-sdnotify"), args);
        // The inode of a pidfd came with 257, and two processes do not have the same; nor are they run at one time.
        let shorten = |text: &str| {
            let line = |line: &&str| !line.starts_with("MAINPIDFDID=") && !line.starts_with("MONOTONIC_USEC=");
            text.lines().filter(line).collect::<Vec<_>>().join("\n")
        };
        let mut theirs: Vec<Seen> =
            theirs.into_iter().filter(|message| !message.text.starts_with("EXIT_STATUS=")).collect();
        for message in ours.iter_mut().chain(&mut theirs) {
            message.text = shorten(&message.text);
            if message.text == "BARRIER=1" {
                message.sender.clear(); // before 257, the barrier came from the program itself
            }
        }
        assert_eq!((ours, our_code), (theirs, code), "{args:?}");
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} cases were compared");
}
