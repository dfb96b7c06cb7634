//! Service and scan directories under supervision, for the end-to-end tests.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use s6::events::subscription::Subscription;
use s6::servicedir::control;
use s6::servicedir::status::Status;

use super::{Background, Scratch, eventually, program, text};

/// A path as a C string.
pub fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

/// A service directory under construction.
#[derive(Debug)]
pub struct Service {
    pub scratch: Scratch,
    name: PathBuf,
}

impl Service {
    /// With this run script (`#!/bin/sh` is put in front).
    pub fn new(run: &str) -> Self {
        let service = Service { scratch: Scratch::new(), name: "service".into() };
        service.run(run);
        service
    }

    /// A service that runs until it is told to end.
    pub fn sleeper() -> Self {
        Service::new("exec sleep 1000")
    }

    pub fn run(&self, text: &str) {
        self.scratch.script(self.name.join("run"), format!("#!/bin/sh\n{text}\n"));
    }

    pub fn finish(self, text: &str) -> Self {
        self.scratch.script(self.name.join("finish"), format!("#!/bin/sh\n{text}\n"));
        self
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        self.scratch.write(self.name.join(name), text);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(self.name.join(name))
    }

    pub fn dir(&self) -> PathBuf {
        self.scratch.path(&self.name)
    }

    /// Starts s6-supervise on it.
    pub fn supervise(self) -> Supervised {
        self.supervise_with(&mut program("s6-supervise"))
    }

    /// Starts a given s6-supervise on it; messages go to the file `stderr` beside the directory.
    pub fn supervise_with(self, command: &mut Command) -> Supervised {
        let event = self.path("event");
        if !event.exists() {
            s6::events::fifodir::make(
                &c(&event),
                s6::events::fifodir::Access::Group(nix::unistd::Gid::effective()),
                false,
            )
            .unwrap();
        }
        let listener = Listener::new(&event);
        let errors = std::fs::File::options().create(true).append(true).open(self.scratch.path("stderr")).unwrap();
        let supervisor = Background::start(
            command
                .current_dir(self.scratch.path(""))
                .arg(&self.name)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(errors),
        );
        let supervised = Supervised { service: self, supervisor, listener };
        let dir = supervised.dir();
        // It listens before it writes its first status, which clients need.
        eventually("the supervisor listens", || control::send(&dir, "supervise", b"").ok());
        eventually("there is a status", || Status::read(&dir).ok());
        supervised
    }
}

/// Collects the letters of a fifodir.
#[derive(Debug)]
pub struct Listener {
    subscription: Subscription,
    letters: String,
}

impl Listener {
    pub fn new(event: &Path) -> Self {
        Listener { subscription: Subscription::new(&c(event)).unwrap(), letters: String::new() }
    }

    /// All letters so far.
    pub fn letters(&mut self) -> &str {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = self.subscription.read(&mut buffer) {
            self.letters.extend(buffer[..count].iter().map(|&b| b as char));
        }
        &self.letters
    }

    /// Waits until the letters begin with `wanted`; other letters in their place are a failure.
    pub fn expect(&mut self, wanted: &str) {
        eventually(&format!("letters {wanted}"), || (self.letters().len() >= wanted.len()).then_some(()));
        assert_eq!(&self.letters[..wanted.len()], wanted);
    }

    /// Waits until the letters end with `wanted`.
    pub fn expect_end(&mut self, wanted: &str) {
        eventually(&format!("letters that end with {wanted}"), || self.letters().ends_with(wanted).then_some(()));
    }
}

/// A service under supervision.
#[derive(Debug)]
pub struct Supervised {
    pub service: Service,
    pub supervisor: Background,
    pub listener: Listener,
}

impl Supervised {
    pub fn dir(&self) -> CString {
        c(self.service.dir())
    }

    pub fn status(&self) -> Status {
        Status::read(&self.dir()).unwrap()
    }

    /// Waits for a status.
    pub fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || Status::read(&self.dir()).ok().filter(&condition))
    }

    /// Waits until the service is up; its process.
    pub fn wait_up(&self) -> i32 {
        self.wait("the service is up", Status::is_up).pid as i32
    }

    pub fn wait_down(&self) -> Status {
        self.wait("the service is down", |s| s.pid == 0 && !s.paused)
    }

    /// Writes command letters.
    pub fn command(&self, letters: &str) {
        control::send(&self.dir(), "supervise", letters.as_bytes()).unwrap();
    }

    /// What the supervisor and the service said on stderr.
    pub fn errors(&self) -> String {
        text(self.service.scratch.path("stderr"))
    }

    /// Number of descriptors that the supervisor has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.supervisor.pid())).unwrap().count()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Ok(status) = Status::read(&self.dir())
            && status.pid > 1
            && self.supervisor.is_running()
        {
            let _ = self.supervisor.0.kill();
            let _ = self.supervisor.0.wait();
            super::kill(status.pid as i32, 9);
        }
    }
}

/// A scan directory.
#[derive(Debug)]
pub struct Scandir {
    pub scratch: Scratch,
}

impl Scandir {
    pub fn new() -> Self {
        Scandir { scratch: Scratch::new() }
    }

    /// Adds a service with this run script.
    pub fn service(&self, name: &str, run: &str) -> PathBuf {
        self.scratch.script(format!("{name}/run"), format!("#!/bin/sh\n{run}\n"));
        self.scratch.path(name)
    }

    /// Starts s6-svscan on it with these options.
    pub fn scan(self, options: &[&str]) -> Scanned {
        self.scan_with(program("s6-svscan").args(options))
    }

    pub fn scan_with(self, command: &mut Command) -> Scanned {
        let errors = std::fs::File::create(self.scratch.path(".stderr")).unwrap();
        let scanner = Background::start(
            command.arg(self.scratch.path("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors),
        );
        let scanned = Scanned { scandir: self, scanner };
        let dir = scanned.dir();
        eventually("the scanner listens", || control::send(&dir, ".s6-svscan", b"").ok());
        scanned
    }
}

/// A scan directory under supervision.
#[derive(Debug)]
pub struct Scanned {
    pub scandir: Scandir,
    pub scanner: Background,
}

impl Scanned {
    pub fn dir(&self) -> CString {
        c(self.scandir.scratch.path(""))
    }

    pub fn service(&self, name: &str) -> CString {
        c(self.scandir.scratch.path(name))
    }

    pub fn command(&self, letters: &str) {
        control::send(&self.dir(), ".s6-svscan", letters.as_bytes()).unwrap();
    }

    /// Waits until the service is up; its process.
    pub fn wait_up(&self, name: &str) -> i32 {
        let dir = self.service(name);
        eventually(&format!("{name} is up"), || Status::read(&dir).ok().filter(Status::is_up)).pid as i32
    }

    /// Whether a supervisor runs on it.
    pub fn is_supervised(&self, name: &str) -> bool {
        is_supervised(&self.service(name))
    }

    pub fn errors(&self) -> String {
        text(self.scandir.scratch.path(".stderr"))
    }

    /// Ends the tree in order.
    pub fn end(&mut self) -> i32 {
        self.command("t");
        self.scanner.code()
    }
}

impl Drop for Scanned {
    fn drop(&mut self) {
        if self.scanner.is_running() && control::send(&self.dir(), ".s6-svscan", b"q").is_ok() {
            super::until("the tree ends", || !self.scanner.is_running());
        }
    }
}

/// Whether a supervisor runs on a service directory.
pub fn is_supervised(dir: &CStr) -> bool {
    control::is_running(dir, "supervise").unwrap_or(false)
}

/// The supervisor of a service directory: the holder of its lock.
pub fn supervisor_of(dir: &CStr) -> Option<i32> {
    let lock =
        std::fs::File::open(Path::new(std::ffi::OsStr::from_bytes(dir.to_bytes())).join("supervise/lock")).ok()?;
    let mut request = libc::flock { l_type: libc::F_RDLCK as _, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_GETLK(&mut request)).ok()?;
    (request.l_type != libc::F_UNLCK as libc::c_short).then_some(request.l_pid)
}
