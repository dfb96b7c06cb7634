//! What the end-to-end tests share: the programs under test, scratch directories, waiting for a condition.
//!
//! A test waits with a deadline, never for a guessed time, and ends by pid what it started. `S6_TEST_BIN` names
//! another directory of programs to run the same tests against.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod daemons;
pub mod fake;
pub mod holder;
pub mod service;
pub mod user;

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The directory of the programs under test.
pub fn bin_dir() -> PathBuf {
    match std::env::var_os("S6_TEST_BIN") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_BIN_EXE_s6-svok")).parent().unwrap().to_owned(),
    }
}

/// A program under test, with the others first in PATH.
pub fn program(name: &str) -> Command {
    with_path(Command::new(bin_dir().join(name)))
}

/// A program of Debian's s6, its own kin first in PATH; `None`, said on stderr, where it is not installed.
pub fn original(name: &str) -> Option<Command> {
    let path = Path::new("/usr/bin").join(name);
    if !path.exists() {
        skip(&format!("{} is not installed (apt-get install s6)", path.display()));
        return None;
    }
    Some(Command::new(path))
}

/// Says, past the test harness that swallows the output of what passes, that a test is skipped, and why. In CI,
/// where nothing may be missing, it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}, and CI skips nothing");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Any command with the programs under test first in PATH.
pub fn with_path(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut first = bin_dir().into_os_string();
    first.push(":");
    first.push(path);
    command.env("PATH", first);
    command
}

/// What a finished program said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a program under test to its end. The code of a death by signal is 128 + signal.
pub fn run<A: AsRef<OsStr>>(name: &str, args: &[A]) -> Outcome {
    finish(program(name).args(args))
}

/// Runs a command to its end with no input.
pub fn finish(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output().expect("the program under test starts");
    Outcome {
        code: code(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An exit status as one number.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A process in the background, killed by pid when dropped.
#[derive(Debug)]
pub struct Background(pub Child);

impl Background {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Background(command.spawn().expect("the program under test starts"))
    }

    pub fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    pub fn signal(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    /// The exit code, within the deadline of [`eventually`].
    pub fn code(&mut self) -> i32 {
        code(eventually("the process ends", || self.0.try_wait().unwrap()))
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process. None has the number 0: that would be this test and all its relatives.
pub fn kill(pid: i32, signal: i32) {
    assert!(pid > 0, "a signal for process {pid}");
    s6::sys::signal::kill(s6::sys::Pid::from_raw(pid), signal).ok();
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    s6::sys::process::look_up(s6::sys::Pid::from_raw(pid)).is_some_and(|entry| entry.alive)
}

/// Waits until `condition` gives something, at most 20 s; `what` is for the message of the failure.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// As [`eventually`], for a plain condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// A temporary directory, short enough for socket paths, removed when dropped.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Scratch(tempfile::Builder::new().prefix("s6-").tempdir().unwrap())
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, making the directories above it.
    pub fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Writes an executable file.
    pub fn script(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The text of a file, empty if it is not there.
pub fn text(path: impl AsRef<Path>) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
