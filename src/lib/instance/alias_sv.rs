//! s6-alias-sv: runit's sv (spec/local-services-and-instances.md 11.2).

use std::ffi::{CStr, CString};

use nix::sys::stat::stat;

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OrDie, Program, USAGE};
use crate::servicedir::files;
use crate::servicedir::status::Status;
use crate::sys::spawn::Spawn;
use crate::sys::{dir, env, fd, wait};
use crate::text::{decimal, parse_u32};
use crate::{cli, die, warn};

/// Commands services in the language of runit.
pub const PROGRAM: Program =
    Program { name: "s6-alias-sv", usage: "s6-alias-sv [ -v ] [ -w sec ] command services...", run };

/// How long is waited for a service, in seconds, unless told otherwise.
const DEFAULT_WAIT: u32 = 7;

/// One step of a command, for one service. The steps after one that fails are left out, but for the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// s6-svc with these commands.
    Send(&'static str),
    /// s6-svc that waits for a state.
    SendAndWait(&'static str, &'static str),
    /// Nothing more unless the service is wanted up and is up.
    IfUp,
    /// Waits until the service is as it is wanted.
    Check,
    /// Prints the status of the service and its logger.
    Status,
}

use Step::{Check, IfUp, Send, SendAndWait};

/// A command.
#[derive(Debug)]
struct Command {
    name: &'static str,
    /// Whether the beginning of its name is enough.
    may_be_short: bool,
    steps: &'static [Step],
    /// What `-v` makes of it: it waits, and shows the status.
    verbose: &'static [Step],
    warnings: &'static [&'static str],
}

/// A command of one word, of which any beginning will do.
const fn word(name: &'static str, steps: &'static [Step], verbose: &'static [Step]) -> Command {
    Command { name, may_be_short: true, steps, verbose, warnings: &[] }
}

/// A letter, or a word of the LSB, which always waits and shows the status.
const fn whole(name: &'static str, steps: &'static [Step], warnings: &'static [&'static str]) -> Command {
    Command { name, may_be_short: false, steps, verbose: steps, warnings }
}

const NO_LOGGER: &str = "the logger of the service, if any, is not told to end";
const NO_FORCE: &str = "force has no meaning: a service that must be killed has a file timeout-kill";
const LETTER: &str = "this command is taken as the one that is nearest to it";

// A restart is waited for by -wR: -wU would be content with the state before it.
const START: &[Step] = &[SendAndWait("-wU", "-u"), Step::Status];
const STOP: &[Step] = &[SendAndWait("-wD", "-d"), Step::Status];
const RESTART: &[Step] = &[SendAndWait("-wR", "-ru"), Step::Status];
const TRY_RESTART: &[Step] = &[IfUp, SendAndWait("-wR", "-r"), Step::Status];
const RELOAD: &[Step] = &[Send("-h"), Step::Status];
const SHUTDOWN: &[Step] = &[SendAndWait("-wD", "-d"), Send("-x"), Step::Status];
const EXIT: &[Step] = &[Send("-xd")];
const STATUS: &[Step] = &[Step::Status];

const COMMANDS: &[Command] = &[
    word("up", &[Send("-u")], START),
    word("down", &[Send("-d")], STOP),
    word("once", &[Send("-o")], &[SendAndWait("-wU", "-o"), Step::Status]),
    word("pause", &[Send("-p")], &[Send("-p"), Step::Status]),
    word("cont", &[Send("-c")], &[Send("-c"), Step::Status]),
    word("hup", &[Send("-h")], RELOAD),
    word("alarm", &[Send("-a")], &[Send("-a"), Step::Status]),
    word("interrupt", &[Send("-i")], &[Send("-i"), Step::Status]),
    word("quit", &[Send("-q")], &[Send("-q"), Step::Status]),
    word("kill", &[Send("-k")], &[Send("-k"), Step::Status]),
    word("term", &[Send("-t")], &[SendAndWait("-wR", "-r"), Step::Status]),
    Command { warnings: &[NO_LOGGER], ..word("exit", EXIT, SHUTDOWN) },
    word("status", STATUS, STATUS),
    Command { may_be_short: false, ..word("1", &[Send("-1")], &[Send("-1"), Step::Status]) },
    Command { may_be_short: false, ..word("2", &[Send("-2")], &[Send("-2"), Step::Status]) },
    Command { may_be_short: false, warnings: &[NO_LOGGER], ..word("x", EXIT, SHUTDOWN) },
    Command { may_be_short: false, warnings: &[LETTER], ..word("D", &[Send("-d")], STOP) },
    Command { may_be_short: false, warnings: &[LETTER, NO_LOGGER], ..word("E", EXIT, SHUTDOWN) },
    Command { may_be_short: false, warnings: &[LETTER, NO_LOGGER], ..word("X", EXIT, SHUTDOWN) },
    whole("T", TRY_RESTART, &[LETTER]),
    whole("start", START, &[]),
    whole("stop", STOP, &[]),
    whole("restart", RESTART, &[]),
    whole("reload", RELOAD, &[]),
    whole("try-restart", TRY_RESTART, &[]),
    whole("shutdown", SHUTDOWN, &[NO_LOGGER]),
    whole("check", &[Check, Step::Status], &[]),
    whole("force-reload", RELOAD, &[NO_FORCE]),
    whole("force-restart", RESTART, &[NO_FORCE]),
    whole("force-shutdown", SHUTDOWN, &[NO_FORCE, NO_LOGGER]),
    whole("force-stop", STOP, &[NO_FORCE]),
];

fn find(word: &[u8]) -> Option<&'static Command> {
    let is_called = |c: &&Command| {
        c.name.as_bytes() == word || (c.may_be_short && !word.is_empty() && c.name.as_bytes().starts_with(word))
    };
    COMMANDS.iter().find(is_called)
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "w");
    let (mut verbose, mut seconds) = (false, seconds_from_environment());
    while let Some((letter, value)) = options.next()? {
        match letter {
            'v' => verbose = true,
            'w' => seconds = value.u32()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(name), Some(_)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let command = find(name.to_bytes()).ok_or_else(|| die!(USAGE, "unknown command: ", name))?;
    for warning in command.warnings {
        warn!(name, ": ", *warning);
    }
    // No limit is what 0 means to the programs that wait.
    let milliseconds = seconds.saturating_mul(1000).max(1);
    let mut failed: u8 = 0;
    for word in operands.from(1).iter() {
        let service = Service { dir: directory_of(word), milliseconds };
        if !service.carry_out(if verbose { command.verbose } else { command.steps })? {
            failed = failed.saturating_add(1);
        }
    }
    Ok(Exit::Code(failed))
}

/// SVWAIT, if it makes sense.
fn seconds_from_environment() -> u32 {
    let Some(value) = env::get("SVWAIT") else { return DEFAULT_WAIT };
    parse_u32(value.to_bytes()).unwrap_or_else(|| {
        warn!("invalid $SVWAIT");
        DEFAULT_WAIT
    })
}

/// The service directory that a word means: a path, or a name in SVDIR.
fn directory_of(word: &CStr) -> CString {
    let bytes = word.to_bytes();
    let is_path = bytes.starts_with(b"/")
        || bytes.ends_with(b"/")
        || [&b"."[..], b".."].contains(&bytes)
        || bytes.starts_with(b"./")
        || bytes.starts_with(b"../");
    if !is_path {
        let base = env::get("SVDIR").unwrap_or(c"/run/service");
        let named = crate::events::fifodir::join(base, word);
        if is_directory(&named) {
            return named;
        }
    }
    word.to_owned()
}

fn is_directory(path: &CStr) -> bool {
    stat(path).is_ok_and(|found| dir::is_directory(&found))
}

struct Service {
    dir: CString,
    milliseconds: u32,
}

impl Service {
    /// Whether every step worked. A service that is not up is not restarted, which is no failure.
    fn carry_out(&self, steps: &[Step]) -> Result<bool, Die> {
        let mut good = true;
        for step in steps {
            let limit = decimal(self.milliseconds);
            good &= match step {
                Step::Status => self.show_status()?,
                _ if !good => continue,
                Send(commands) => run_program(&[b"s6-svc", commands.as_bytes(), b"--"], &self.dir)?,
                SendAndWait(state, commands) => {
                    let limit = [b"-T", limit.as_bytes()].concat();
                    run_program(&[b"s6-svc", state.as_bytes(), &limit, commands.as_bytes(), b"--"], &self.dir)?
                }
                IfUp => match Status::read(&self.dir) {
                    Ok(status) if status.wanted_up && status.is_up() => true,
                    Ok(_) => return Ok(true),
                    Err(_) => false,
                },
                Check => match Status::read(&self.dir) {
                    Ok(status) => {
                        let state: &[u8] = if status.wanted_up { b"-U" } else { b"-D" };
                        run_program(&[b"s6-svwait", state, b"-t", limit.as_bytes(), b"--"], &self.dir)?
                    }
                    Err(_) => false,
                },
            };
        }
        Ok(good)
    }

    fn show_status(&self) -> Result<bool, Die> {
        let mut good = show_status_of(&self.dir)?;
        let log = files::path(&self.dir, "log");
        if is_directory(&log) {
            good &= show_status_of(&log)?;
        }
        Ok(good)
    }
}

fn show_status_of(dir: &CStr) -> Result<bool, Die> {
    fd::write_all(fd::STDOUT, &[dir.to_bytes(), b": "].concat()).or_die("write to", "standard output")?;
    run_program(&[b"s6-svstat", b"--"], dir)
}

/// Runs a program on a service directory to its end; whether it exits 0.
fn run_program(words: &[&[u8]], dir: &CStr) -> Result<bool, Die> {
    let words: Vec<CString> = words.iter().map(|word| CString::new(*word).unwrap_or_default()).collect();
    let argv = cli::argv(words.iter().map(CString::as_c_str).chain([dir]));
    let spawn = Spawn::new(&argv);
    let child = spawn.start().or_die("spawn", spawn.file)?;
    Ok(wait::wait_for(child).or_die("wait for", spawn.file)?.code() == Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_of_words_are_commands_and_those_of_lsb_words_are_not() {
        for (word, name) in [
            ("u", Some("up")),
            ("sta", Some("status")),
            ("stat", Some("status")),
            ("start", Some("start")),
            ("c", Some("cont")),
            ("check", Some("check")),
            ("t", Some("term")),
            ("T", Some("T")),
            ("x", Some("x")),
            ("e", Some("exit")),
            ("1", Some("1")),
            ("resta", None),
            ("che", None),
            ("upp", None),
            ("", None),
        ] {
            assert_eq!(find(word.as_bytes()).map(|c| c.name), name, "{word}");
        }
    }
}
