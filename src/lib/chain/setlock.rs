//! s6-setlock: takes a lock that lasts as long as the program it becomes (spec/logging-and-chainloaders.md 13).

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::fcntl::OFlag;

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::sys::lock::{self, Kind};
use crate::sys::{Errno, fd};

/// Locks a file, then becomes another program, whose process holds the lock.
pub const PROGRAM: Program = Program {
    name: "s6-setlock",
    usage: "s6-setlock [ -r | -w ] [ -n | -N ] [ -t timeout ] [ -d fd ] lockfile prog...",
    run,
};

/// The exit code when the lock was not obtained.
const BUSY: u8 = 1;

struct Wish {
    kind: Kind,
    patient: bool,
    limit: Option<Duration>,
    place: Option<RawFd>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "td");
    let mut wish = Wish { kind: Kind::Exclusive, patient: true, limit: None, place: None };
    while let Some((letter, value)) = options.next()? {
        match letter {
            'r' => wish.kind = Kind::Shared,
            'w' => wish.kind = Kind::Exclusive,
            'n' => wish.patient = false,
            'N' => wish.patient = true,
            't' => wish.limit = value.limit()?,
            // A number that no descriptor can have is as bad as one that is too high: EBADF, not wrong usage.
            'd' => wish.place = Some(value.u32()?.try_into().unwrap_or(-1)),
            other => return Err(options.unknown(other)),
        }
    }
    let words = options.operands();
    let (Some(file), program) = (words.get(0), words.from(1)) else { return Err(Die::usage()) };
    if program.is_empty() {
        return Err(Die::usage());
    }
    // The lock would vanish if any descriptor of the file were closed after it was taken: first move, then lock.
    let place =
        settle(open(file, wish.kind).or_die("open", file)?, wish.place).or_die("move lock descriptor of", file)?;
    if obtain(place, &wish).or_die("lock", file)? {
        Ok(Exec::operands(program).into())
    } else if wish.patient {
        Err(die!(BUSY, "timed out while waiting for the lock of ", file))
    } else {
        Err(die!(BUSY, "unable to lock ", file, ": another process holds it"))
    }
}

/// Opens the lock file, made if it is not there, never truncated. A directory can be locked for reading.
fn open(file: &CStr, kind: Kind) -> Result<OwnedFd, Errno> {
    const MODE: u32 = 0o666;
    match kind {
        Kind::Exclusive => fd::open_file(file, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, MODE),
        Kind::Shared => match fd::open_file(file, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Err(Errno::ENOENT) => fd::open_file(file, OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, MODE),
            other => other,
        },
    }
}

/// Puts the descriptor where the program is to find it, or leaves it where it is, open across exec in both cases.
fn settle(file: OwnedFd, place: Option<RawFd>) -> Result<BorrowedFd<'static>, Errno> {
    let place = match place {
        Some(place) => fd::hand_over(file, place).map(|()| place)?,
        None => fd::leak_to_exec(file)?,
    };
    fd::borrow(place)
}

/// Whether the lock was obtained.
fn obtain(file: BorrowedFd<'_>, wish: &Wish) -> Result<bool, Errno> {
    match wish.limit {
        _ if !wish.patient => lock::try_lock(file, wish.kind),
        Some(limit) => lock::lock_within(file, wish.kind, limit),
        None => fd::retry(|| lock::lock(file, wish.kind)).map(|()| true),
    }
}
