//! Daemons that fork themselves into the background (spec/forking-daemons.md): what s6-background-watch and
//! s6-supervise, in a service directory with a `pidfile`, have in common.
//!
//! The *parent* is the process first started, *main* the long-running daemon that stays when the parent has exited,
//! a *member* any process that descends from this one. The life of such a service:
//!
//! 1. [`process::become_subreaper`](crate::sys::process::become_subreaper), so that orphans come here;
//! 2. [`Search::prepare`], which removes the old pid file, then the parent is spawned;
//! 3. the parent exits 0: [`Search::parent_exited`], then [`Search::look`] until main is found;
//! 4. main ends: with code 0, still wanted and with members left it may have forked again to reload
//!    ([`Search::main_exited`]), else it is a death;
//! 5. [`Clearance`] ends what main left behind.
//!
//! Throughout, every child is reaped, and each that is neither the parent nor main is told to [`Search::reaped`].

mod clearance;
mod pid_file;
mod search;

pub use clearance::{Clearance, PATIENCE, Step, patience};
pub use pid_file::remove;
pub use search::{Failure, Limit, Outcome, Search};

use crate::servicedir::files;
use crate::sys::wait::has_children;
use crate::sys::{Pid, process};

/// What descends from this process and lives.
pub fn living() -> Vec<Pid> {
    match has_children() {
        true => process::descendants(&[]).iter().map(|entry| entry.pid).collect(),
        false => Vec::new(),
    }
}

/// Whether the user wants what main leaves behind kept. To be asked in the service directory.
pub fn keep_members() -> bool {
    files::extension(c"flag-keep-members", c"data/s6-rs/flag-keep-members").is_some()
}

/// Whether a signal asks a daemon to end, so that what ends after it has not forked again to reload.
pub fn asks_to_end(number: i32) -> bool {
    matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT)
}
