//! What the programs around a daemon's notification descriptor share (spec/events-and-fdholding.md 5).

use std::ffi::CStr;
use std::os::fd::{OwnedFd, RawFd};

use crate::cli::Value;
use crate::die;
use crate::error::{Die, OrDie};
use crate::servicedir::files::first_line;
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, entry, fd};
use crate::text::{self, decimal};

/// Where a service says which descriptor it notifies on.
const FILE: &CStr = c"./notification-fd";

/// The notification descriptor and its number: from the option, else from `./notification-fd`. The program that is
/// executed next does not get it.
pub fn notification_fd(option: Option<&Value>) -> Result<(OwnedFd, RawFd), Die> {
    let number = match option {
        Some(value) => value.u32()?,
        None => {
            let mut buffer = [0; 16];
            let text = fd::read_file(FILE, &mut buffer).or_die("read", FILE)?;
            text::parse_u32(first_line(text)).ok_or_else(|| die!(100, "invalid ", FILE))?
        }
    };
    let taken = number.try_into().map_err(|_| Errno::EBADF).and_then(fd::take);
    Ok((taken.or_die("use descriptor", &decimal(number))?, number as RawFd))
}

/// The life of a helper that does `work`: its last words, if it fails, are a message on stderr.
pub fn live(work: impl FnOnce() -> Result<(), Die>) -> ! {
    let code = work().err().map_or(0, |die| {
        die.print();
        die.code()
    });
    entry::end(code)
}

/// For a helper that only waits: a peer that vanishes is an error, and no pipe of the daemon is kept open.
pub fn leave_standard() -> Result<(), Die> {
    let leave = || {
        fd::to_dev_null(0)?;
        fd::to_dev_null(1)?;
        signal::neutralise(Signal::SIGPIPE)
    };
    leave().or_die("prepare", "the helper")
}
