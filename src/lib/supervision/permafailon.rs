//! s6-permafailon: in a finish script, gives a service up that died too often (spec/supervision.md 11).

use std::time::Duration;

use nix::fcntl::OFlag;

use crate::cli::Args;
use crate::error::{Die, Exec, Exit, OK, Program, USAGE};
use crate::servicedir::tally::{self, Death};
use crate::sys::{Errno, fd};
use crate::tai::Tai64n;
use crate::text::{decimal, parse_signal, parse_u32};
use crate::{die, info, warn};

/// Exits 125, which a finish script hands on, if enough recent deaths match; else becomes another program.
pub const PROGRAM: Program =
    Program { name: "s6-permafailon", usage: "s6-permafailon secs deathcount events prog...", run };

/// The exit code of a finish script that tells the supervisor not to restart the service.
const PERMANENT_FAILURE: u8 = 125;

const TALLY: &std::ffi::CStr = c"supervise/death_tally";

fn run(args: Args) -> Result<Exit, Die> {
    let words = args.operands();
    let (Some(seconds), Some(count), Some(list)) = (words.get(0), words.get(1), words.get(2)) else {
        return Err(Die::usage());
    };
    let seconds = parse_u32(seconds.to_bytes()).ok_or_else(Die::usage)?;
    let count = parse_u32(count.to_bytes()).filter(|&n| n > 0).ok_or_else(Die::usage)?;
    let count = (count as usize).min(tally::MOST);
    let events = Events::parse(list.to_bytes())?;

    let since = Duration::from_secs(seconds.into());
    let now = Tai64n::now();
    let matching = recent_deaths().iter().filter(|d| d.stamp.after(since) >= now && events.contain(d)).count();
    if matching >= count {
        let seconds = decimal(seconds);
        info!("permanent failure: ", decimal(matching as u64), " deaths in ", seconds, " seconds match ", list);
        return Ok(Exit::Code(PERMANENT_FAILURE));
    }
    match words.from(3) {
        program if program.is_empty() => Ok(OK),
        program => Ok(Exec::operands(program).into()),
    }
}

/// The recorded deaths of the service in the current directory; none, with a warning, if they cannot be read.
fn recent_deaths() -> Vec<Death> {
    let read = fd::open_file(TALLY, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)
        .and_then(|file| tally::read_newest(&file, tally::MOST)?.ok_or(Errno::EPROTO));
    read.unwrap_or_else(|errno| {
        warn!(errno => "unable to read ", TALLY);
        Vec::new()
    })
}

/// A set of ways to die.
#[derive(Debug)]
struct Events {
    codes: [bool; 256],
    signals: [bool; 256],
}

impl Events {
    /// From exit codes, intervals of them, and signal names, with separators after each.
    fn parse(list: &[u8]) -> Result<Events, Die> {
        let is_separator = |byte: &u8| b",; \n\r\t".contains(byte);
        let mut events = Events { codes: [false; 256], signals: [false; 256] };
        if list.first().is_some_and(is_separator) {
            return Err(die!(USAGE, "the list of events begins with a separator"));
        }
        for word in list.split(is_separator).filter(|word| !word.is_empty()) {
            events.add(word).ok_or_else(|| {
                die!(USAGE, "neither an exit code, an interval of exit codes nor a signal name: ", word)
            })?;
        }
        Ok(events)
    }

    fn add(&mut self, word: &[u8]) -> Option<()> {
        if !word[0].is_ascii_digit() {
            let signal = parse_signal(word)?;
            self.signals[usize::try_from(signal).ok()?] = true;
            return Some(());
        }
        let code = |word| parse_u32(word).filter(|&code| code < 256).map(|code| code as usize);
        let mut ends = word.splitn(2, |&b| b == b'-');
        let first = code(ends.next()?)?;
        let last = ends.next().map_or(Some(first), code)?;
        if last < first {
            return None;
        }
        self.codes[first..=last].fill(true);
        Some(())
    }

    /// Whether the death is in the set. One by a signal also has an exit code: 128 + signal.
    fn contain(&self, death: &Death) -> bool {
        self.codes[usize::from(death.code)] || (death.signal != 0 && self.signals[usize::from(death.signal)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(list: &str, code: u8, signal: u8) -> Option<bool> {
        let death = Death { stamp: Tai64n::default(), code, signal };
        Events::parse(list.as_bytes()).ok().map(|events| events.contain(&death))
    }

    #[test]
    fn lists_name_codes_intervals_and_signals() {
        for (list, code, signal, want) in [
            ("1", 1, 0, Some(true)),
            ("0-255", 7, 0, Some(true)),
            ("3;9-11, ,\n200", 200, 0, Some(true)),
            ("3;9-11, ,\n200", 12, 0, Some(false)),
            ("15", 143, 15, Some(false)),
            ("143", 143, 15, Some(true)),
            ("sig15", 143, 15, Some(true)),
            ("9,tErM", 143, 15, Some(true)),
            ("", 0, 0, Some(false)),
            ("1,", 1, 0, Some(true)),
            (",1", 1, 0, None),
            ("256", 0, 0, None),
            ("5-3", 0, 0, None),
            ("5-", 0, 0, None),
            ("-5", 0, 0, None),
            ("1-2-3", 0, 0, None),
            ("1x", 0, 0, None),
            ("SIG0", 0, 0, None),
            ("1\u{b}2", 0, 0, None),
            ("bogus", 0, 0, None),
        ] {
            assert_eq!(matches(list, code, signal), want, "{list:?}");
        }
    }
}
