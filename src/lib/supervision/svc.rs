//! s6-svc: sends commands to supervisors, and may wait for their effect (spec/supervision.md 6).

use std::ffi::{CStr, CString};

use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, Program, SYSTEM, USAGE};
use crate::servicedir::control::{self, Failure};
use crate::servicedir::files;
use crate::sys::env::Env;
use crate::sys::signal::Signal;
use crate::text::{decimal, parse_signal};
use crate::{die, warn};

/// Writes its option letters to the control fifos of service directories.
pub const PROGRAM: Program = Program {
    name: "s6-svc",
    usage: "s6-svc [ -wu | -wU | -wd | -wD | -wr | -wR ] [ -T timeout ] [ -s signal | -abqhkti12pcyrlPCK ] \
            [ -oduDUxOQF ] servicedirs...",
    run,
};

/// Commands that one call may send.
const MOST: usize = 62;

/// Every command; F, which empties the descriptor store, is an extension (spec/sd-notify-and-fdstore.md 4.3).
const COMMANDS: &str = "abqhkti12pcyrlPCKoduDUxOQF";

/// Nobody listens.
const NOT_LISTENING: u8 = 102;
/// There is a `supervise` directory without a control fifo.
const BROKEN: u8 = 1;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "wTs");
    let mut commands = Vec::with_capacity(MOST);
    let (mut wait, mut timeout) = (None, 0);
    while let Some((letter, value)) = options.next()? {
        let command = match letter {
            'w' => {
                let state = value.bytes().first().copied();
                wait = Some(state.filter(|state| b"dDuUrR".contains(state)).ok_or_else(Die::usage)?);
                continue;
            }
            'T' => {
                timeout = value.u32()?;
                continue;
            }
            's' => command_for(value.bytes())?,
            letter if COMMANDS.contains(letter) => letter as u8,
            other => return Err(options.unknown(other)),
        };
        if commands.len() == MOST {
            return Err(die!(USAGE, "too many commands"));
        }
        commands.push(command);
    }
    let dirs = options.operands();
    if dirs.get(0).is_none_or(CStr::is_empty) {
        return Err(Die::usage());
    }
    match wait {
        None => Ok(Exit::Code(send_to_all(dirs, &commands))),
        Some(state) => Ok(waiting_command(dirs, &commands, state, timeout)),
    }
}

/// The command that sends a signal.
fn command_for(signal: &[u8]) -> Result<u8, Die> {
    let number = parse_signal(signal).ok_or_else(|| die!(USAGE, "no such signal: ", signal))?;
    match Signal::try_from(number) {
        Ok(Signal::SIGALRM) => Ok(b'a'),
        Ok(Signal::SIGABRT) => Ok(b'b'),
        Ok(Signal::SIGQUIT) => Ok(b'q'),
        Ok(Signal::SIGHUP) => Ok(b'h'),
        Ok(Signal::SIGKILL) => Ok(b'k'),
        Ok(Signal::SIGTERM) => Ok(b't'),
        Ok(Signal::SIGINT) => Ok(b'i'),
        Ok(Signal::SIGUSR1) => Ok(b'1'),
        Ok(Signal::SIGUSR2) => Ok(b'2'),
        Ok(Signal::SIGSTOP) => Ok(b'p'),
        Ok(Signal::SIGCONT) => Ok(b'c'),
        Ok(Signal::SIGWINCH) => Ok(b'y'),
        _ => Err(die!(USAGE, "no command sends this signal: ", signal)),
    }
}

/// Sends the commands to every service, whatever happens with the others; the exit code is that of the last failure.
fn send_to_all(dirs: Args, commands: &[u8]) -> u8 {
    let mut code = 0;
    for dir in dirs.iter() {
        code = match control::send(dir, "supervise", commands) {
            Ok(()) => continue,
            Err(Failure::NotListening) => {
                warn!("unable to control ", dir, ": no s6-supervise is listening");
                NOT_LISTENING
            }
            Err(Failure::Broken) => {
                warn!("unable to control ", dir, ": supervise/control is not there");
                BROKEN
            }
            Err(Failure::System(errno)) => {
                warn!(errno => "unable to control ", dir);
                SYSTEM
            }
        };
    }
    code
}

/// Becomes the program that waits for the services; if there are commands, it runs s6-svc again once it listens.
fn waiting_command(dirs: Args, commands: &[u8], mut state: u8, timeout: u32) -> Exit {
    if state.is_ascii_uppercase() && state != b'D' && !dirs.get(0).is_some_and(notifies_readiness) {
        warn!(
            dirs.get(0).unwrap_or(c""),
            " has no notification-fd and no notify-socket: waiting without regard to readiness"
        );
        state.make_ascii_lowercase();
    }
    let word = |text: &[u8]| CString::new(text).unwrap_or_default();
    let mut argv = vec![if commands.is_empty() { c"s6-svwait" } else { c"s6-svlisten" }.to_owned()];
    argv.push(word(&[b'-', state]));
    if timeout != 0 {
        argv.extend([c"-t".to_owned(), decimal(timeout).as_c_str().to_owned()]);
    }
    argv.push(c"--".to_owned());
    if commands.is_empty() {
        argv.extend(dirs.iter().map(CStr::to_owned));
    } else {
        argv.extend(dirs.iter().map(|dir| match dir.to_bytes().first() {
            None | Some(b' ') => word(&[b" ", dir.to_bytes()].concat()),
            Some(_) => dir.to_owned(),
        }));
        argv.extend([c"".to_owned(), c"s6-svc".to_owned(), word(&[b"-", commands].concat()), c"--".to_owned()]);
        argv.extend(dirs.iter().map(CStr::to_owned));
    }
    let mut env = Env::inherited();
    env.unset(b"EXECLINE_STRICT");
    Exec::command(argv).with_env(env).into()
}

fn notifies_readiness(dir: &CStr) -> bool {
    let ways = ["notification-fd", "notify-socket", "data/s6-rs/notify-socket"];
    ways.iter().any(|file| files::exists(&files::path(dir, file)))
}
