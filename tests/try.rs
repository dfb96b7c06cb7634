//! The README's first command: a tree in the foreground, until Ctrl-C.

mod common;

use std::fs::File;
use std::process::{Command, Stdio};

use common::{Background, Scratch, bin_dir, eventually, text, until};

/// The last row of a service in the table, without the time.
fn row(table: &str, service: &str) -> Option<String> {
    let rows = table.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
    rows.rev().find(|row| row.starts_with(&format!("{service} ")))
}

/// The script, ended in order also when the test fails.
struct Try(Background);

impl Drop for Try {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.signal(2);
            until("package/try ends", || !self.0.is_running());
        }
    }
}

#[test]
fn package_try_shows_what_happens_and_leaves_nothing_behind() {
    s6::sys::process::become_subreaper().unwrap();
    let scratch = Scratch::new();
    let temporary = scratch.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let out = scratch.path("out");
    let mut script = Try(Background::start(
        Command::new("sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/package/try"))
            .env("TRY_BIN", bin_dir())
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(scratch.path("err")).unwrap()),
    ));

    let pid = eventually("the table says that plain is up", || {
        row(&text(&out), "plain")?.strip_prefix("plain up ")?.parse::<i32>().ok()
    });
    until("readiness is ready", || row(&text(&out), "readiness").is_some_and(|row| row.contains("up, ready ")));
    until("down-service is down", || row(&text(&out), "down-service").is_some_and(|row| row == "down-service down"));
    common::kill(pid, 9);
    until("the table says that plain was killed", || text(&out).contains("down, SIGKILL, will start"));
    until("and is up again", || row(&text(&out), "plain").is_some_and(|row| row.starts_with("plain up ")));

    script.0.signal(2);
    assert_eq!(script.0.code(), 0, "{}", text(scratch.path("err")));
    assert_eq!(text(scratch.path("err")), "");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "its directory is removed");
    assert_eq!(s6::sys::process::descendants(&[]), [], "its processes are gone");
}
