//! Telling the supervisor that a program is ready: a newline on the descriptor that its option names, then the end
//! of it (spec/logging-and-chainloaders.md 1.8).

use std::os::fd::{OwnedFd, RawFd};

use crate::die;
use crate::error::{Die, USAGE};
use crate::sys::fd;
use crate::text::decimal;

/// The promise of a newline. Dropped, as when the start fails, it only closes the descriptor.
#[derive(Debug)]
pub struct Readiness(OwnedFd);

impl Readiness {
    /// Takes descriptor `number` over. One below 3, or not open, is refused with exit code 100. To be called once.
    pub fn on(number: u32) -> Result<Self, Die> {
        if number <= 2 {
            return Err(die!(USAGE, "notification fd must be 3 or more"));
        }
        match RawFd::try_from(number).map(fd::inherited) {
            Ok(Ok(fd)) => Ok(Readiness(fd)),
            _ => Err(die!(USAGE, "invalid notification fd: descriptor ", decimal(number), " is not open")),
        }
    }

    /// Writes the newline. That nobody reads it is no failure of ours; SIGPIPE must not kill the caller.
    pub fn announce(self) {
        let _ = fd::write(&self.0, b"\n");
    }
}
