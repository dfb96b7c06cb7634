//! The script of s6-log: its command line after the options (spec/logging-and-chainloaders.md 15.1).

use std::ffi::CStr;
use std::time::Duration;

use crate::die;
use crate::error::{Die, USAGE};
use crate::text::{decimal, parse_u32, parse_u64};

/// A script: what to do with a line. It borrows the words of the command line.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Script<'a> {
    /// What is applied to each line, in order.
    pub rules: Vec<Rule>,
    /// The directives that have the regular expressions of the rules.
    pub patterns: Vec<Word<'a>>,
    /// What the rules can do.
    pub actions: Vec<Action<'a>>,
    /// Whether there were selections after the last action. They are not among the rules.
    pub pointless_end: bool,
}

/// A step of the selection of a line, which begins as selected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Select it if it matches the pattern of that number (`+`).
    Select(usize),
    /// Deselect it if it matches the pattern of that number (`-`).
    Deselect(usize),
    /// Select it if nothing was done with it so far, else deselect it (`f`).
    Unclaimed,
    /// If it is selected, do the action of that number.
    Act(usize),
}

/// An action on a line.
#[derive(PartialEq, Eq, Debug)]
pub struct Action<'a> {
    /// Whether a TAI64N label comes first (`t`).
    pub label: bool,
    /// Whether the local time comes next (`T`).
    pub time: bool,
    /// What comes then, followed by a space if it is not empty (`p`).
    pub prefix: &'a [u8],
    /// Where it goes.
    pub target: Target<'a>,
}

/// Where a line goes.
#[derive(PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// To standard output (`1`).
    Output,
    /// To standard error (`2`), cut to that many bytes; 0 is whole.
    Alert(usize),
    /// Into a file (`=`) that holds one line of exactly that size; 0 is any size.
    Status(&'a CStr, usize),
    /// To a directory.
    Logdir(Parameters<'a>),
}

/// Everything about a logdir.
#[derive(PartialEq, Eq, Debug)]
pub struct Parameters<'a> {
    /// The directory.
    pub path: &'a CStr,
    /// Archives that are kept (`n`).
    pub archives: u32,
    /// Bytes of all archives; 0 is any number (`S`).
    pub total: u64,
    /// Size of `current` at which it is rotated (`s`), less the tolerance (`l`): from here on, at the end of a line.
    pub threshold: u64,
    /// Time between attempts at what failed (`r`).
    pub retry: Duration,
    /// Time between rotations (`R`).
    pub period: Option<Duration>,
    /// What archives are made by.
    pub processor: Option<Processor<'a>>,
}

/// A program that an archive is filtered through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processor<'a> {
    /// An execline command line (`!`).
    Execline(&'a CStr),
    /// A shell command line (`?`).
    Shell(&'a CStr),
}

/// A directive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word<'a> {
    /// Where it stands in the script, from 1.
    position: usize,
    text: &'a CStr,
}

impl<'a> Word<'a> {
    /// What follows the letter that says what it is.
    pub fn argument(self) -> &'a CStr {
        let bytes = self.text.to_bytes_with_nul();
        bytes.get(1..).and_then(|rest| CStr::from_bytes_with_nul(rest).ok()).unwrap_or(c"")
    }

    /// The refusal of the directive.
    pub fn refuse(self, reason: &[u8]) -> Die {
        let position = decimal(self.position as u64);
        die!(USAGE, "syntax error at directive: ", self.text, " (word ", position, " of the script): ", reason)
    }

    fn unknown(self) -> Die {
        let position = decimal(self.position as u64);
        die!(USAGE, "unrecognized directive: ", self.text, " (word ", position, " of the script)")
    }
}

/// Limits of `s`.
const SIZES: std::ops::RangeInclusive<u32> = 4096..=268_435_455;

/// What the control directives so far have set.
struct Controls<'a> {
    archives: u32,
    size: u32,
    total: u64,
    tolerance: u32,
    retry: Duration,
    period: Option<Duration>,
    alert: u32,
    status: u32,
    prefix: &'a [u8],
    processor: Option<Processor<'a>>,
    label: bool,
    time: bool,
}

impl Default for Controls<'_> {
    fn default() -> Self {
        Controls {
            archives: 10,
            size: 99_999,
            total: 0,
            tolerance: 2000,
            retry: Duration::from_secs(2),
            period: None,
            alert: 200,
            status: 1001,
            prefix: b"",
            processor: None,
            label: false,
            time: false,
        }
    }
}

/// Reads a script. Nothing is opened or created.
pub fn parse<'a>(words: impl Iterator<Item = &'a CStr>) -> Result<Script<'a>, Die> {
    let mut script = Script::default();
    let mut controls = Controls::default();
    let mut selections_at_end = 0;
    for (i, text) in words.enumerate() {
        let word = Word { position: i + 1, text };
        if let Some(rule) = selection(&mut script.patterns, word) {
            script.rules.push(rule);
            selections_at_end += 1;
        } else if !controls.set(word)? {
            let target = controls.target(word)?;
            script.check_unique(&target, word)?;
            script.rules.push(Rule::Act(script.actions.len()));
            // One by one: a logger has few, and keeps no room for more.
            script.actions.reserve_exact(1);
            script.actions.push(controls.action(target));
            selections_at_end = 0;
        }
    }
    if script.actions.is_empty() {
        return Err(die!(USAGE, "the script does nothing with a line: it has no 1, 2, =file or directory"));
    }
    script.rules.truncate(script.rules.len() - selections_at_end);
    script.pointless_end = selections_at_end > 0;
    Ok(script)
}

fn selection<'a>(patterns: &mut Vec<Word<'a>>, word: Word<'a>) -> Option<Rule> {
    let rule = match word.text.to_bytes() {
        b"f" => return Some(Rule::Unclaimed),
        [b'+', ..] => Rule::Select(patterns.len()),
        [b'-', ..] => Rule::Deselect(patterns.len()),
        _ => return None,
    };
    patterns.push(word);
    Some(rule)
}

impl<'a> Controls<'a> {
    /// Takes a control directive; false for any other.
    fn set(&mut self, word: Word<'a>) -> Result<bool, Die> {
        let Some(letter) = word.text.to_bytes().first() else { return Err(word.unknown()) };
        let command = word.argument();
        let argument = command.to_bytes();
        let number = || parse_u32(argument).ok_or_else(|| word.refuse(b"not a number of 0 to 4294967295"));
        match letter {
            b'n' => self.archives = number()?,
            b's' => self.size = number()?.clamp(*SIZES.start(), *SIZES.end()),
            b'S' => self.total = parse_u64(argument).ok_or_else(|| word.refuse(b"not a 64-bit number"))?,
            b'l' => {
                self.tolerance = number()?;
                if self.tolerance > self.size / 2 {
                    return Err(word.refuse(b"more than half the size that s gives to a file"));
                }
            }
            b'r' => self.retry = Duration::from_millis(number()?.into()),
            b'R' => self.period = Some(number()?).filter(|&n| n > 0).map(|n| Duration::from_secs(n.into())),
            b'E' => self.alert = number()?,
            b'^' => self.status = number()?,
            b'p' => self.prefix = argument,
            b'!' => self.processor = Some(Processor::Execline(command)).filter(|_| !argument.is_empty()),
            b'?' => self.processor = Some(Processor::Shell(command)).filter(|_| !argument.is_empty()),
            b't' | b'T' if !argument.is_empty() => return Err(word.refuse(b"more than one letter")),
            b't' => self.label = true,
            b'T' => self.time = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn target(&self, word: Word<'a>) -> Result<Target<'a>, Die> {
        match word.text.to_bytes() {
            b"1" => Ok(Target::Output),
            b"2" => Ok(Target::Alert(self.alert as usize)),
            [b'1' | b'2' | b'f', _, ..] => Err(word.refuse(b"more than one letter")),
            b"=" => Err(word.refuse(b"no file")),
            [b'=', ..] => Ok(Target::Status(word.argument(), self.status as usize)),
            [b'/' | b'.', ..] => Ok(Target::Logdir(Parameters {
                path: word.text,
                archives: self.archives,
                total: self.total,
                threshold: self.size.saturating_sub(self.tolerance).into(),
                retry: self.retry,
                period: self.period,
                processor: self.processor,
            })),
            _ => Err(word.unknown()),
        }
    }

    /// The action on a target, with what is said for the next action only.
    fn action(&mut self, target: Target<'a>) -> Action<'a> {
        Action {
            label: std::mem::take(&mut self.label),
            time: std::mem::take(&mut self.time),
            prefix: self.prefix,
            target,
        }
    }
}

impl<'a> Script<'a> {
    /// Two loggers on one logdir rotate it away under each other's feet, also in one process.
    fn check_unique(&self, target: &Target<'a>, word: Word<'a>) -> Result<(), Die> {
        let path = |target: &Target<'a>| match target {
            Target::Logdir(parameters) => Some(parameters.path),
            _ => None,
        };
        let taken = path(target).is_some() && self.actions.iter().any(|a| path(&a.target) == path(target));
        if taken { Err(word.refuse(b"this directory is in the script already")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn script(words: &[&str]) -> Result<Script<'static>, Die> {
        let words: Vec<CString> = words.iter().map(|w| CString::new(*w).unwrap()).collect();
        parse(words.leak().iter().map(CString::as_c_str))
    }

    fn logdirs(words: &[&str]) -> Vec<Parameters<'static>> {
        let targets = script(words).unwrap().actions.into_iter().map(|action| action.target);
        targets.filter_map(|t| if let Target::Logdir(parameters) = t { Some(parameters) } else { None }).collect()
    }

    #[test]
    fn bad_words_are_refused_with_place_and_reason() {
        for (words, want) in [
            (&["1", "x"][..], &b"unrecognized directive: x (word 2 of the script)"[..]),
            (&["", "1"], b"unrecognized directive:  (word 1 of the script)"),
            (&["N", "1"], b"unrecognized directive: N (word 1 of the script)"),
            (&["n5x"], b"syntax error at directive: n5x (word 1 of the script): not a number of 0 to 4294967295"),
            (&["tt"], b"syntax error at directive: tt (word 1 of the script): more than one letter"),
            (&["1x"], b"syntax error at directive: 1x (word 1 of the script): more than one letter"),
            (&["="], b"syntax error at directive: = (word 1 of the script): no file"),
            (
                &["./a", "1", "./a"],
                b"syntax error at directive: ./a (word 3 of the script): this directory is in the script already",
            ),
            (&["n5"], b"the script does nothing with a line: it has no 1, 2, =file or directory"),
        ] {
            assert_eq!(script(words), Err(Die::new(USAGE, want.to_vec(), None)), "{words:?}");
        }
        for word in
            ["n", "n-1", "n99999999999", "S", "Sx", "rx", "Rx", "Ex", "^x", "lx", "l50000", "fx", "TT", "2x", "Q"]
        {
            assert_eq!(script(&[word, "1"]).unwrap_err().code(), USAGE, "{word}");
        }
    }

    #[test]
    fn controls_hold_for_all_actions_that_follow() {
        let dirs =
            logdirs(&["./a", "n3", "s10000", "l0", "S7", "r5", "R60", "?x", "./b", "./c", "!y", "./d", "!", "./e"]);
        let of = |i: usize| &dirs[i];
        assert_eq!((of(0).archives, of(0).threshold, of(0).period), (10, 97_999, None));
        assert_eq!((of(1).archives, of(1).threshold, of(1).total), (3, 10_000, 7));
        assert_eq!((of(1).retry, of(1).period), (Duration::from_millis(5), Some(Duration::from_secs(60))));
        assert_eq!(of(2).processor, Some(Processor::Shell(c"x")));
        assert_eq!(of(3).processor, Some(Processor::Execline(c"y")));
        assert_eq!(of(4).processor, None);
    }

    #[test]
    fn stamps_are_for_one_action_and_prefixes_for_all() {
        let script = script(&["t", "T", "pX", "1", "2", "p", "1"]).unwrap();
        let found: Vec<_> = script.actions.iter().map(|a| (a.label, a.time, a.prefix)).collect();
        assert_eq!(found, [(true, true, &b"X"[..]), (false, false, b"X"), (false, false, b"")]);
    }

    #[test]
    fn sizes_and_tolerances_are_checked_in_order() {
        assert_eq!(logdirs(&["s1", "l0", "./a"])[0].threshold, 4096);
        assert_eq!(logdirs(&["s4294967295", "l0", "./a"])[0].threshold, 268_435_455);
        assert_eq!(logdirs(&["s8192", "l4000", "s4096", "./a"])[0].threshold, 96);
        assert!(script(&["s4096", "l2049", "1"]).is_err());
        assert!(script(&["s4096", "l2048", "1"]).is_ok());
    }

    #[test]
    fn selections_after_the_last_action_are_left_out() {
        let script = script(&["+a", "1", "-b", "f", "2", "+c"]).unwrap();
        let want = [Rule::Select(0), Rule::Act(0), Rule::Deselect(1), Rule::Unclaimed, Rule::Act(1)];
        assert_eq!(script.rules, want);
        assert!(script.pointless_end);
    }
}
