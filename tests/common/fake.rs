//! A supervisor or scanner that does nothing but be there: a held lock, a status, a control fifo.

use std::ffi::CString;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use s6::events::fifodir;
use s6::servicedir::status::Status;
use s6::sys::lock::{Kind, try_lock};
use s6::tai::Tai64n;

use super::service::c;
use super::{Scratch, until};

/// As long as it lives, this process holds the lock and the control fifo.
#[derive(Debug)]
pub struct Fake {
    pub scratch: Scratch,
    subdir: &'static str,
    _lock: std::fs::File,
    control: std::fs::File,
}

impl Fake {
    /// In the place of s6-supervise, with this status.
    pub fn supervisor(status: Status) -> Fake {
        let fake = Fake::new("supervise");
        fake.set(status);
        fake
    }

    /// In the place of s6-svscan.
    pub fn scanner() -> Fake {
        Fake::new(".s6-svscan")
    }

    fn new(subdir: &'static str) -> Fake {
        let scratch = Scratch::new();
        std::fs::create_dir_all(scratch.path("dir").join(subdir)).unwrap();
        let at = |name: &str| scratch.path("dir").join(subdir).join(name);
        let lock = std::fs::File::create(at("lock")).unwrap();
        assert_eq!(try_lock(&lock, Kind::Exclusive), Ok(true));
        nix::unistd::mkfifo(&at("control"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let control = std::fs::File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(at("control"))
            .unwrap();
        Fake { scratch, subdir, _lock: lock, control }
    }

    pub fn path(&self) -> PathBuf {
        self.scratch.path("dir")
    }

    pub fn dir(&self) -> CString {
        c(self.path())
    }

    /// Writes the status.
    pub fn set(&self, status: Status) {
        std::fs::write(self.path().join(self.subdir).join("status"), status.pack()).unwrap();
    }

    /// The command letters that came.
    pub fn commands(&mut self) -> String {
        let mut buffer = [0; 1024];
        let length = self.control.read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Names in the event directory.
    pub fn subscribers(&self) -> usize {
        std::fs::read_dir(self.path().join("event")).map_or(0, |entries| {
            entries.filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("ftrig1"))).count()
        })
    }

    /// Waits until somebody listens to its events.
    pub fn wait_for_subscriber(&self) {
        until("a subscriber", || self.subscribers() > 0);
    }

    /// Sends letters to the subscribers.
    pub fn send(&self, letters: &str) {
        fifodir::notify(&c(self.path().join("event")), letters.as_bytes()).unwrap();
    }
}

/// A moment that lies so many seconds back, or, negative, ahead.
pub fn ago(seconds: i64) -> Tai64n {
    let length = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    Tai64n::from_system(if seconds < 0 { now + length } else { now - length })
}

/// Up since a moment to come, which counts as now.
pub fn up() -> Status {
    Status { pid: 1234, wanted_up: true, ..down() }
}

/// Down since a moment to come, which counts as now, after exit 0, and to stay down.
pub fn down() -> Status {
    Status { stamp: ago(-1000), readystamp: ago(-1000), ready: true, ..Status::default() }
}
