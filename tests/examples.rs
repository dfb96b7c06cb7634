//! The examples do what their READMEs say: every directory of servicedir-examples/ is run from a copy.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::service::{Scandir, Scanned};
use common::{eventually, finish, skip, text};
use s6::servicedir::control;
use s6::servicedir::status::Status;

/// What the last line of a README promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Up,
    Ready,
    Down,
}

#[derive(Debug)]
struct Example {
    name: String,
    source: PathBuf,
    promise: Promise,
}

impl Example {
    fn read(source: PathBuf) -> Self {
        let name = source.file_name().unwrap().to_str().unwrap().to_owned();
        let readme = text(source.join("README"));
        let lines: Vec<&str> = readme.lines().collect();
        assert_eq!(lines.len(), 3, "{name}/README has three lines");
        let promise = match lines[2] {
            line if line.starts_with("It comes up") => Promise::Up,
            line if line.starts_with("It becomes ready") => Promise::Ready,
            line if line.starts_with("It stays down") => Promise::Down,
            line => panic!("{name}/README ends with {line:?}: comes up, becomes ready or stays down?"),
        };
        Example { name, source, promise }
    }

    /// Whether all that its file data/needs names is here; said if not.
    fn can_run(&self) -> bool {
        let lacking =
            text(self.source.join("data/needs")).lines().map(str::to_owned).find(|need| match need.as_str() {
                "root" => !nix::unistd::geteuid().is_root(),
                program => !is_installed(program),
            });
        if let Some(need) = &lacking {
            skip(&format!("the example {} needs {need}", self.name));
        }
        lacking.is_none()
    }

    fn keeps_its_promise(&self, status: &Status) -> bool {
        match self.promise {
            Promise::Up => status.is_up(),
            Promise::Ready => status.is_up() && status.ready,
            Promise::Down => is_down(status),
        }
    }
}

/// Down for good, and done with finish.
fn is_down(status: &Status) -> bool {
    status.pid == 0 && !status.wanted_up
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    std::env::split_paths(&path).chain([common::bin_dir()]).any(|dir| dir.join(program).exists())
}

fn examples() -> Vec<Example> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("servicedir-examples");
    std::fs::read_dir(all).unwrap().map(|entry| Example::read(entry.unwrap().path())).collect()
}

/// A tree whose messages are shown when the test fails.
struct Told(Scanned);

impl Told {
    /// Waits until the status of a service is as wanted.
    fn wait(&self, what: &str, name: &str, wanted: impl Fn(&Status) -> bool) {
        eventually(&format!("{name}: {what}"), || Status::read(&self.0.service(name)).ok().filter(&wanted));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the tree said:\n{}", self.0.errors());
        }
    }
}

#[test]
fn every_example_does_what_its_readme_says_and_leaves_nothing_behind() {
    s6::sys::process::become_subreaper().unwrap();
    let scandir = Scandir::new();
    let examples: Vec<Example> = examples().into_iter().filter(Example::can_run).collect();
    for example in &examples {
        let copied = finish(Command::new("cp").arg("-R").args([&example.source, &scandir.scratch.path(&example.name)]));
        assert_eq!(copied.code, 0, "{}", copied.err);
    }

    let mut tree = Told(scandir.scan(&[]));
    for example in &examples {
        tree.wait("does what it says", &example.name, |status| example.keeps_its_promise(status));
    }
    for example in &examples {
        control::send(&tree.0.service(&example.name), "supervise", b"d").unwrap();
    }
    for example in &examples {
        tree.wait("goes down", &example.name, is_down);
    }
    assert_eq!(tree.0.end(), 0);
    let left = s6::sys::process::descendants(&[]);
    let left: Vec<String> = left.iter().map(|e| text(format!("/proc/{}/cmdline", e.pid)).replace('\0', " ")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
