//! s6-setsid: a session, a process group, the foreground of a terminal (spec/logging-and-chainloaders.md 12).

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;
use nix::unistd::{getpgrp, setpgid, setsid, tcsetpgrp};

use crate::cli::{Args, Long, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::sys::signal::{SigSet, Signal};
use crate::sys::{Errno, Pid, fd};

/// Leaves its session or process group, then executes the rest of its command line.
pub const PROGRAM: Program =
    Program { name: "s6-setsid", usage: "s6-setsid [ -s | -b | -f | -g ] [ -i | -I | -q ] [ -d ctty ] prog...", run };

/// What only long options say.
const GROUP: char = '\u{100}';
const FOREGROUND: char = '\u{101}';
const GRAB: char = '\u{102}';

const LONG: &[Long] = &[
    ("session", 's'),
    ("background-process-group", 'b'),
    ("foreground-process-group", 'f'),
    ("foreground-process-group-grab", 'g'),
    ("process-group", GROUP),
    ("foreground", FOREGROUND),
    ("grab", GRAB),
    ("strict", 'i'),
    ("no-strict", 'I'),
    ("quiet", 'q'),
    ("ctty", 'd'),
];

/// What is asked for. Nothing but `group` is a new session.
#[derive(Default)]
struct Wanted {
    /// A new process group in the session as it is.
    group: bool,
    /// That group in the foreground of the terminal.
    foreground: bool,
    /// Even if this process is in the background of it.
    grab: bool,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut wanted = Wanted::default();
    let (mut strict, mut quiet, mut terminal) = (false, false, None);
    let mut options = Options::long(args, "d", LONG);
    while let Some((letter, value)) = options.next()? {
        match letter {
            's' => wanted = Wanted::default(),
            'b' => wanted = Wanted { group: true, ..Wanted::default() },
            'f' => wanted = Wanted { group: true, foreground: true, grab: false },
            'g' => wanted = Wanted { group: true, foreground: true, grab: true },
            GROUP => wanted.group = true,
            FOREGROUND => wanted.foreground = true,
            GRAB => wanted.grab = true,
            'i' => strict = true,
            'I' => strict = false,
            'q' => quiet = true,
            'd' => terminal = Some(value.u32()?),
            letter => return Err(options.unknown(letter)),
        }
    }
    let program = options.operands();
    if program.is_empty() {
        return Err(Die::usage());
    }
    let tolerate = |step: Result<(), Die>| match step {
        Err(die) if strict => Err(die),
        Err(die) if !quiet => {
            die.warn();
            Ok(())
        }
        _ => Ok(()),
    };
    if !wanted.group {
        tolerate(setsid().map(drop).or_die("make a new session", ""))?;
    } else {
        tolerate(setpgid(Pid::from_raw(0), Pid::from_raw(0)).or_die("make a new process group", ""))?;
        if wanted.foreground {
            tolerate(match terminal {
                None => {
                    let tty = fd::open_file(c"/dev/tty", OFlag::O_RDWR, 0).or_die("open", "/dev/tty")?;
                    to_foreground(tty.as_fd(), wanted.grab)
                }
                Some(number) => i32::try_from(number)
                    .map_err(|_| Errno::EBADF)
                    .and_then(fd::borrow)
                    .or_die("use the descriptor of", "-d")
                    .and_then(|tty| to_foreground(tty, wanted.grab)),
            })?;
        }
    }
    Ok(Exec::operands(program).into())
}

/// A process of the background that asks for this is stopped by SIGTTOU, unless it has that blocked.
fn to_foreground(terminal: BorrowedFd<'_>, grab: bool) -> Result<(), Die> {
    let before = SigSet::thread_get_mask().or_die("get the signal mask", "")?;
    if grab {
        SigSet::from_iter([Signal::SIGTTOU]).thread_block().or_die("block", "SIGTTOU")?;
    }
    let done = tcsetpgrp(terminal, getpgrp());
    before.thread_set_mask().or_die("restore the signal mask", "")?;
    done.or_die("take the foreground of the terminal", "")
}
