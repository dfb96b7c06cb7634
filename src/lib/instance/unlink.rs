//! Taking a service out of a live scan directory: s6-svunlink, and the first half of s6-instance-delete
//! (spec/local-services-and-instances.md 7.2).

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use nix::sys::stat::{lstat, stat};
use nix::unistd::unlink as remove_link;

use crate::cli::Value;
use crate::die;
use crate::error::{Die, OrDie, SYSTEM, USAGE};
use crate::events::fifodir::join;
use crate::events::subscription::Subscription;
use crate::instance::link::{self, SCANNER};
use crate::instance::tree::real_path;
use crate::servicedir::{control, files};
use crate::sys::{Errno, dir};

/// The letter of a supervisor that ends.
const ENDS: u8 = b'x';
/// How often the lock of a supervisor is looked at that has not said that it ends: it may have been killed.
const CHECK: Duration = Duration::from_secs(1);
/// The same after it has said so, which it does just before it ends.
const NEARLY_GONE: Duration = Duration::from_millis(2);
/// How often that is done before another supervisor must have come.
const MOST_LOOKS: u32 = 500;

/// The options of s6-svunlink and s6-instance-delete.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    no_wait: bool,
    limit: Option<Duration>,
}

impl Options {
    /// The letters with an argument.
    pub const WITH_VALUE: &'static str = "t";

    /// Takes an option; `false` if it is none of these.
    pub fn take(&mut self, letter: char, value: &Value) -> Result<bool, Die> {
        match letter {
            'X' => self.no_wait = true,
            't' => self.limit = value.limit()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// When the time is up, if it starts now.
    pub fn deadline(&self) -> Option<Instant> {
        self.limit.map(|limit| Instant::now() + limit)
    }
}

/// Removes `scandir/name` and waits until its supervisors have ended, or the time is up. To be called in one's
/// [`Turn`](super::turn::Turn) for the name.
pub fn unlink(scandir: &CStr, name: &CStr, options: &Options, deadline: Option<Instant>) -> Result<(), Die> {
    let path = join(scandir, name);
    if lstat(path.as_c_str()).is_ok_and(|found| dir::is_directory(&found)) {
        return Err(die!(USAGE, path, " is a directory, not a link"));
    }
    let mut ending = if options.no_wait { Ending::default() } else { Ending::prepare(&path)? };
    match remove_link(path.as_c_str()) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
        failure => failure.or_die("remove", &path)?,
    }
    match control::send(scandir, SCANNER, b"an") {
        Ok(()) => ending.wait(deadline),
        // Nobody ends the supervisors.
        Err(_) => Ok(()),
    }
}

/// Supervisors that are to end, by the real paths of their directories: the link goes away.
#[derive(Debug, Default)]
struct Ending {
    dirs: Vec<CString>,
    subscriptions: Vec<Subscription>,
}

impl Ending {
    /// Finds the supervisors of a service and its logger.
    fn prepare(path: &CStr) -> Result<Self, Die> {
        let service = match real_path(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Ending::default()),
            other => other.or_die("look at", path)?,
        };
        let log = files::path(&service, "log");
        let logged = match stat(log.as_c_str()) {
            Ok(found) if dir::is_directory(&found) => true,
            Ok(_) => return Err(die!(SYSTEM, log, " is not a directory")),
            Err(Errno::ENOENT) => false,
            failure => failure.or_die("look at", &log).map(|_| false)?,
        };
        let mut ending = Ending::default();
        for dir in [Some(service), logged.then_some(log)].into_iter().flatten() {
            // The subscription comes first: what happens after the look at the lock is heard.
            let event = files::path(&dir, "event");
            let subscription = Subscription::new(&event);
            if link::is_supervised(&dir).or_die("look at the supervisor of", &dir)? {
                ending.subscriptions.push(subscription.or_die("subscribe to", &event)?);
                ending.dirs.push(dir);
            }
        }
        if logged && ending.dirs.len() == 1 {
            return Err(die!(SYSTEM, Errno::EINVAL => "only one of ", path, " and its logger is supervised"));
        }
        Ok(ending)
    }

    /// The lock says whether a supervisor is there; its letter says when to look.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Die> {
        let mut heard = vec![false; self.dirs.len()];
        let mut looks = 0;
        while self.dirs.iter().any(|dir| link::is_supervised(dir) == Ok(true)) && looks < MOST_LOOKS {
            let now = Instant::now();
            if deadline.is_some_and(|d| now >= d) {
                return Ok(());
            }
            let all_heard = !heard.contains(&false);
            looks += u32::from(all_heard);
            let next = now + if all_heard { NEARLY_GONE } else { CHECK };
            link::listen(&mut self.subscriptions, ENDS, &mut heard, deadline.map_or(next, |d| d.min(next)))?;
        }
        Ok(())
    }
}
