//! s6-svstat: prints the state of a service (spec/supervision.md 8), and what the service says of itself, if it
//! notifies (spec/sd-notify-and-fdstore.md 4.3).

use std::ffi::CStr;

use nix::unistd::getpgid;

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OK, OrDie, Program, USAGE};
use crate::notify::report;
use crate::servicedir::status::Status;
use crate::servicedir::{control, files};
use crate::sys::{Errno, Pid, fd};
use crate::tai::Tai64n;
use crate::text::{decimal, parse_u64, quote_utf8, signal_name};

/// Prints a summary, or the fields asked for.
pub const PROGRAM: Program =
    Program { name: "s6-svstat", usage: "s6-svstat [ -uwNrpgest | -o field,field... ] [ -n ] servicedir", run };

/// Fields that one call may ask for.
const MOST: usize = 16;

/// The exit code when no supervisor is running.
const NOT_SUPERVISED: u8 = 1;

/// What there is to know of a service.
struct View<'a> {
    dir: &'a CStr,
    status: Status,
    now: Tai64n,
    /// What the service says of itself; empty if it is none that notifies.
    report: Vec<u8>,
}

/// One thing to print: its name for `-o`, the option that stands for it, and what it prints.
struct Field {
    name: &'static str,
    letter: Option<char>,
    print: fn(&View<'_>, &mut Vec<u8>),
}

const FIELDS: &[Field] = &[
    Field { name: "up", letter: Some('u'), print: |view, out| truth(out, view.status.is_up()) },
    Field { name: "wantedup", letter: Some('w'), print: |view, out| truth(out, view.status.wanted_up) },
    Field { name: "normallyup", letter: Some('N'), print: |view, out| truth(out, view.is_normally_up()) },
    Field { name: "ready", letter: Some('r'), print: |view, out| truth(out, view.has_process() && view.status.ready) },
    Field { name: "paused", letter: None, print: |view, out| truth(out, view.has_process() && view.status.paused) },
    Field { name: "pid", letter: Some('p'), print: |view, out| number(out, view.pid()) },
    Field { name: "pgid", letter: Some('g'), print: |view, out| number(out, view.pgid()) },
    Field { name: "exitcode", letter: Some('e'), print: |view, out| number(out, view.exit_code()) },
    Field {
        name: "signal",
        letter: Some('s'),
        print: |view, out| match view.signal() {
            Some(signal) => put(out, &signal_name(signal.into())),
            None => put(out, "NA"),
        },
    },
    Field { name: "signum", letter: None, print: |view, out| number(out, view.signal()) },
    Field { name: "updownsince", letter: None, print: |view, out| out.extend(view.status.stamp.text()) },
    Field { name: "readysince", letter: None, print: |view, out| out.extend(view.status.readystamp.text()) },
    Field { name: "updownfor", letter: Some('t'), print: |view, out| number(out, Some(view.since(view.status.stamp))) },
    Field { name: "readyfor", letter: None, print: |view, out| number(out, Some(view.since(view.status.readystamp))) },
    Field { name: "notifystate", letter: None, print: |view, out| word(out, view.said("STATE")) },
    Field { name: "statustext", letter: None, print: |view, out| quoted(out, view.said("STATUS")) },
    Field { name: "errno", letter: None, print: |view, out| number(out, view.said("ERRNO").and_then(parse_u64)) },
    Field { name: "buserror", letter: None, print: |view, out| quoted(out, view.said("BUSERROR")) },
    Field { name: "varlinkerror", letter: None, print: |view, out| quoted(out, view.said("VARLINKERROR")) },
    Field { name: "nfds", letter: None, print: |view, out| number(out, view.stored(0)) },
    Field { name: "maxfds", letter: None, print: |view, out| number(out, view.stored(1)) },
    Field {
        name: "watchdog",
        letter: None,
        print: |view, out| number(out, view.said("WATCHDOG_USEC").and_then(parse_u64)),
    },
    Field { name: "result", letter: None, print: |view, out| word(out, view.said("RESULT")) },
];

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "o");
    let mut fields: Vec<&Field> = Vec::with_capacity(MOST);
    let mut numeric = false;
    while let Some((letter, value)) = options.next()? {
        match letter {
            'n' => numeric = true,
            'o' => {
                let list = value.bytes();
                let list = list.strip_suffix(b",").filter(|list| !list.is_empty()).unwrap_or(list);
                for name in list.split(|&b| b == b',').filter(|_| !list.is_empty()) {
                    let field = FIELDS.iter().find(|field| field.name.as_bytes() == name);
                    fields.push(field.ok_or_else(|| die!(USAGE, "no such field: ", name))?);
                }
            }
            letter => {
                let field = FIELDS.iter().find(|field| field.letter == Some(letter));
                fields.push(field.ok_or_else(|| options.unknown(letter))?);
            }
        }
    }
    if fields.len() > MOST {
        return Err(die!(USAGE, "too many fields"));
    }
    let dir = options.operands().get(0).ok_or_else(Die::usage)?;
    match control::is_running(dir, "supervise") {
        Ok(true) => {}
        Ok(false) | Err(Errno::ENOENT) => return Err(die!(NOT_SUPERVISED, "no s6-supervise is running for ", dir)),
        failure => return failure.or_die("look at the lock of", dir).map(|_| OK),
    }
    let status = Status::read(dir).or_die("read the status of", dir)?;
    let view = View { dir, status, now: Tai64n::now(), report: report::read(dir) };
    let mut out = Vec::with_capacity(256);
    match &fields[..] {
        [] => view.summarise(numeric, &mut out),
        [first, others @ ..] => {
            (first.print)(&view, &mut out);
            for field in others {
                out.push(b' ');
                (field.print)(&view, &mut out);
            }
        }
    }
    out.push(b'\n');
    fd::write_all(fd::STDOUT, &out).or_die("write to", "stdout")?;
    Ok(OK)
}

impl View<'_> {
    fn has_process(&self) -> bool {
        self.status.pid != 0
    }

    fn is_normally_up(&self) -> bool {
        !files::exists(&files::path(self.dir, "down"))
    }

    /// The process of run.
    fn pid(&self) -> Option<u64> {
        self.status.is_up().then_some(self.status.pid)
    }

    /// Its process group: its own, unless it is one that notifies and has named another process.
    fn pgid(&self) -> Option<u64> {
        let pid = self.pid()?;
        let group = || getpgid(Some(Pid::from_raw(pid.try_into().ok()?))).ok()?.as_raw().try_into().ok();
        Some(if self.report.is_empty() { pid } else { group().unwrap_or(pid) })
    }

    /// Whether the last run has ended and none has begun since.
    fn is_dead(&self) -> bool {
        !self.status.is_up() && !self.status.is_never_started()
    }

    fn exit_code(&self) -> Option<u8> {
        self.status.wait_status.code().filter(|_| self.is_dead())
    }

    fn signal(&self) -> Option<u8> {
        self.status.wait_status.signal().filter(|_| self.is_dead())
    }

    /// What the service says under a key.
    fn said(&self, key: &str) -> Option<&[u8]> {
        report::value(&self.report, key)
    }

    /// The first or second number of how many descriptors are stored, and may be.
    fn stored(&self, index: usize) -> Option<u64> {
        parse_u64(self.said("FDSTORE")?.split(|&b| b == b'/').nth(index)?)
    }

    /// Whole seconds since `moment`; none since a moment to come.
    fn since(&self, moment: Tai64n) -> u64 {
        moment.until(self.now).as_secs()
    }

    /// One line for a person. `numeric`: the signal by number.
    fn summarise(&self, numeric: bool, out: &mut Vec<u8>) {
        let status = &self.status;
        if let Some(pid) = self.pid() {
            put(out, "up (pid ");
            number(out, Some(pid));
            put(out, " pgid ");
            number(out, self.pgid());
            put(out, ") ");
        } else if let Some(signal) = self.signal() {
            put(out, "down (signal ");
            match numeric {
                true => number(out, Some(signal)),
                false => put(out, &signal_name(signal.into())),
            }
            put(out, ") ");
        } else if status.is_never_started() {
            put(out, "down (not started yet) ");
        } else {
            put(out, "down (exitcode ");
            number(out, self.exit_code());
            put(out, ") ");
        }
        if !status.is_never_started() {
            number(out, Some(self.since(status.stamp)));
            put(out, " seconds");
        }
        let (up, normally_up) = (status.is_up(), self.is_normally_up());
        let parts = [
            (up && !normally_up, ", normally down"),
            (!up && normally_up, ", normally up"),
            (up && status.paused, ", paused"),
            (up && !status.wanted_up, ", want down"),
            (!up && status.wanted_up, ", want up"),
        ];
        parts.iter().filter(|(applies, _)| *applies).for_each(|(_, text)| put(out, text));
        if status.ready && !status.finishing && !status.is_never_started() {
            put(out, ", ready ");
            number(out, Some(self.since(status.readystamp)));
            put(out, " seconds");
        }
        if let Some(state) = self.said("STATE") {
            put(out, ", notify ");
            word(out, Some(state));
        }
        if let Some(text) = self.said("STATUS") {
            put(out, ", status ");
            quoted(out, Some(text));
        }
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn truth(out: &mut Vec<u8>, value: bool) {
    put(out, if value { "true" } else { "false" });
}

/// One word, or NA where there is none.
fn word(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.extend_from_slice(value.unwrap_or(b"NA"));
}

/// Text in quotes, fit for a terminal.
fn quoted(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.extend(quote_utf8(value.unwrap_or_default()));
}

/// A number, or -1 where there is none.
fn number(out: &mut Vec<u8>, value: Option<impl Into<u64>>) {
    match value {
        Some(value) => out.extend_from_slice(decimal(value).as_bytes()),
        None => put(out, "-1"),
    }
}
