//! s6-log: lines from standard input, selected by a script, to rotated directories and elsewhere
//! (spec/logging-and-chainloaders.md 15).
//!
//! One turn of the loop waits, takes signals, reads once, and puts away what was read: whole lines are cut and selected
//! where they lie in the input buffer, and written from there if nothing stands in front of them.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};

use super::human::Human;
use super::lines::Lines;
use super::logdir::Logdir;
use super::outlet::Outlet;
use super::script::{self, Action, Script, Target};
use super::select::{BATCH, Selector};
use crate::cli::{Args, Options};
use crate::error::{self, Die, Exit, OK, OrDie, Program};
use crate::readiness::Readiness;
use crate::servicedir::files::replace;
use crate::sys::calendar::Zone;
use crate::sys::fd::Nonblocking;
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, fd};
use crate::tai::Tai64n;
use crate::warn;

/// Logs standard input as its script says.
pub const PROGRAM: Program = Program {
    name: "s6-log",
    usage: "s6-log [ -d notif ] [ -q | -v ] [ -b ] [ -p ] [ -l linelimit ] [ -t lastlinetimeout ] [ -- ] directives...",
    run,
};

/// The least length at which lines are split.
const LEAST_LIMIT: u32 = 48;
/// Bytes that are read at once from a quiet input.
const SMALL: usize = 2048;
/// The buffer for those: here, it is in a page that the program has in any case.
static BUFFER: Mutex<[u8; SMALL]> = Mutex::new([0; SMALL]);
/// How long the buffers stay large after the last large read.
const CALM: Duration = Duration::from_secs(1);

struct Settings {
    /// Warnings are given from 1 on.
    verbosity: u32,
    /// Do not read while anything waits to be written.
    block: bool,
    ignore_term: bool,
    line_limit: u32,
    last_line: Option<Duration>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut settings = Settings {
        verbosity: 1,
        block: false,
        ignore_term: false,
        line_limit: 8192,
        last_line: Some(Duration::from_secs(2)),
    };
    let mut notify = None;
    let mut options = Options::classic(args, "dlt");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => notify = Some(value.u32()?),
            'q' => settings.verbosity = settings.verbosity.saturating_sub(1),
            'v' => settings.verbosity += 1,
            'b' => settings.block = true,
            'p' => settings.ignore_term = true,
            'l' => settings.line_limit = value.u32()?,
            't' => settings.last_line = value.limit()?,
            letter => return Err(options.unknown(letter)),
        }
    }
    let words = options.operands();
    if words.is_empty() {
        return Err(Die::usage());
    }
    // Everything that can be wrong with the script is found before anything is created.
    let mut script = script::parse(words.iter())?;
    let selector = Selector::new(&mut script)?;
    let readiness = notify.map(Readiness::on).transpose()?;
    if script.pointless_end && settings.verbosity > 0 {
        warn!("selections after the last action of the script are ignored");
    }
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let mut small = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut logger = Logger::new(settings, script, selector, &mut *small)?;
    signal::neutralise(Signal::SIGPIPE).or_die("catch", "SIGPIPE")?;
    signal::trap(&[Signal::SIGTERM, Signal::SIGHUP, Signal::SIGALRM, Signal::SIGCHLD]).or_die("trap", "signals")?;
    let _stdin = Nonblocking::new(fd::STDIN).or_die("make nonblocking", "standard input")?;
    let _stdout = logger.output.is_some().then(|| Nonblocking::new(fd::STDOUT));
    if let Some(readiness) = readiness {
        readiness.announce();
    }
    logger.run()
}

/// An action and what it needs of this process.
struct Destination<'a> {
    label: bool,
    time: bool,
    prefix: &'a [u8],
    /// What comes in front of each line of a batch.
    decoration: Vec<u8>,
    sink: Sink<'a>,
}

enum Sink<'a> {
    Output,
    Alert { most: usize },
    Status { path: &'a CStr, new: CString, size: usize, latest: Option<Range<usize>> },
    Logdir(usize),
}

/// Where lines come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// The end of the line that was begun is waited for, until then.
    LastLine(Option<Instant>),
    Ended,
}

struct Logger<'a> {
    settings: Settings,
    selector: Selector,
    lines: Lines<'a>,
    input: Input,
    destinations: Vec<Destination<'a>>,
    /// For standard output, if any action goes there and it can be written to.
    output: Option<Outlet>,
    logdirs: Vec<Logdir<'a>>,
    /// For actions with local time. Others do not pay for the zone.
    human: Option<Human>,
    /// When large buffers have not been needed for long enough.
    calm: Option<Instant>,
    /// When the last wait ended.
    now: Instant,
}

impl<'a> Logger<'a> {
    fn new(settings: Settings, script: Script<'a>, selector: Selector, small: &'a mut [u8]) -> Result<Self, Die> {
        let mask = umask(Mode::empty());
        umask(mask);
        let mode = 0o666 & !(mask.bits() as u32);
        let limit = match settings.line_limit {
            0 => 0,
            limit => limit.max(LEAST_LIMIT) as usize,
        };
        let logdirs = script.actions.iter().filter(|action| matches!(action.target, Target::Logdir(_))).count();
        let mut logger = Logger {
            selector,
            lines: Lines::new(small, limit),
            settings,
            input: Input::Open,
            destinations: Vec::with_capacity(script.actions.len()),
            output: None,
            logdirs: Vec::with_capacity(logdirs),
            human: script.actions.iter().any(|action| action.time).then(|| Human::new(Zone::Local)),
            calm: None,
            now: Instant::now(),
        };
        for Action { label, time, prefix, target } in script.actions {
            let sink = match target {
                Target::Output => {
                    logger.output = Some(Outlet::default());
                    Sink::Output
                }
                Target::Alert(most) => Sink::Alert { most },
                Target::Status(path, size) => {
                    let new = CString::new([path.to_bytes(), b".new"].concat()).unwrap_or_default();
                    Sink::Status { path, new, size, latest: None }
                }
                Target::Logdir(parameters) => {
                    let warnings = logger.settings.verbosity > 0;
                    logger.logdirs.push(Logdir::open(parameters, mode, warnings, logger.now)?);
                    Sink::Logdir(logger.logdirs.len() - 1)
                }
            };
            let mut destination = Destination { label, time, prefix, decoration: Vec::new(), sink };
            destination.decorate(Tai64n::default(), &mut logger.human);
            logger.destinations.push(destination);
        }
        Ok(logger)
    }

    fn run(&mut self) -> Result<Exit, Die> {
        loop {
            self.pass_deadlines();
            if self.has_ended() {
                return Ok(OK);
            }
            let may_read = self.input != Input::Ended && !(self.settings.block && self.is_stuck());
            let output = self.output.as_ref().filter(|outlet| !outlet.is_empty());
            let mut fds = [
                PollFd::maybe(may_read.then_some(fd::STDIN), poll::IN),
                PollFd::maybe(output.map(|_| fd::STDOUT), poll::OUT),
            ];
            poll::wait(&mut fds, self.deadline()).or_die("poll", "")?;
            self.now = Instant::now();
            while let Some(number) = signal::take() {
                self.signal(number);
            }
            if fds[0].readable() {
                self.read();
            }
            if fds[1].writable() {
                write_output(&mut self.output, b"");
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let last_line = match self.input {
            Input::LastLine(at) => at,
            _ => None,
        };
        self.logdirs.iter().map(Logdir::deadline).chain([last_line, self.calm]).flatten().min()
    }

    fn pass_deadlines(&mut self) {
        let now = self.now;
        if matches!(self.input, Input::LastLine(Some(at)) if at <= now) {
            self.end_input();
        }
        for logdir in &mut self.logdirs {
            logdir.advance(b"", now);
        }
        if self.calm.is_some_and(|at| at <= now) {
            self.calm = None;
            self.lines.shrink();
            self.outlets().for_each(Outlet::shrink);
        }
    }

    fn outlets(&mut self) -> impl Iterator<Item = &mut Outlet> {
        self.logdirs.iter_mut().map(|logdir| &mut logdir.outlet).chain(&mut self.output)
    }

    fn is_stuck(&self) -> bool {
        self.logdirs.iter().any(Logdir::is_stuck) || self.output.as_ref().is_some_and(|outlet| !outlet.is_empty())
    }

    fn has_ended(&self) -> bool {
        self.input == Input::Ended
            && self.logdirs.iter().all(Logdir::has_ended)
            && self.output.as_ref().is_none_or(Outlet::is_empty)
    }

    fn signal(&mut self, number: i32) {
        let now = self.now;
        match Signal::try_from(number) {
            Ok(Signal::SIGTERM) if self.settings.ignore_term => {}
            Ok(Signal::SIGTERM | Signal::SIGHUP) if self.input == Input::Open => {
                if self.lines.has_partial() {
                    self.input = Input::LastLine(self.settings.last_line.map(|limit| now + limit));
                } else {
                    self.end_input();
                }
            }
            Ok(Signal::SIGALRM) => self.logdirs.iter_mut().for_each(Logdir::rotate),
            Ok(Signal::SIGCHLD) => self.logdirs.iter_mut().for_each(|logdir| logdir.reap(now)),
            _ => {}
        }
    }

    fn read(&mut self) {
        let got = match self.input {
            Input::Open => self.lines.read(fd::STDIN),
            // Whoever reads on gets all that comes after this line.
            Input::LastLine(_) => self.lines.read_byte(fd::STDIN),
            Input::Ended => return,
        };
        match got {
            Ok(0) => self.end_input(),
            Ok(_) if matches!(self.input, Input::LastLine(_)) && self.lines.is_too_long() => {
                if self.settings.verbosity > 0 {
                    warn!("the last line is longer than the limit, its rest is left unread");
                }
                self.end_input();
            }
            Ok(bytes) => {
                let had_lines = self.put_away();
                let is_large = self.lines.is_large() || self.outlets().any(|outlet| outlet.is_large());
                if is_large && (bytes > SMALL || self.calm.is_none()) {
                    self.calm = Some(self.now + CALM);
                }
                if had_lines && matches!(self.input, Input::LastLine(_)) {
                    self.end_input();
                }
            }
            Err(Errno::EAGAIN) => {}
            Err(errno) => {
                if self.settings.verbosity > 0 {
                    warn!(errno => "unable to read standard input, taken as its end");
                }
                self.end_input();
            }
        }
    }

    /// Nothing more is read. A line that was begun is one.
    fn end_input(&mut self) {
        self.input = Input::Ended;
        self.lines.end();
        self.put_away();
        self.logdirs.iter_mut().for_each(Logdir::end);
    }

    /// Brings all complete lines on their way; whether there were any.
    fn put_away(&mut self) -> bool {
        let mut ranges = [const { 0..0 }; BATCH];
        let mut is_decorated = false;
        loop {
            let found = self.lines.find(&mut ranges);
            if found == 0 {
                break;
            }
            if !std::mem::replace(&mut is_decorated, true) {
                self.decorate();
            }
            let Logger { selector, lines, destinations, output, logdirs, .. } = self;
            let text = lines.text();
            selector.select(text, &ranges[..found], |line, action| {
                let Destination { decoration, sink, .. } = &mut destinations[action];
                let outlet = match sink {
                    Sink::Output => output.as_mut(),
                    Sink::Logdir(number) => Some(&mut logdirs[*number].outlet),
                    Sink::Alert { most } => return alert(decoration, &text[line.clone()], *most),
                    Sink::Status { latest, .. } => {
                        *latest = Some(line.clone());
                        return;
                    }
                };
                match outlet {
                    Some(outlet) if decoration.is_empty() => outlet.push(text, line),
                    Some(outlet) => outlet.push_decorated(text, decoration, line),
                    None => {}
                }
            });
        }
        if is_decorated {
            self.flush();
        }
        is_decorated
    }

    /// One moment for all lines of a batch: they came together.
    fn decorate(&mut self) {
        if self.destinations.iter().any(|d| d.label || d.time) {
            let now = Tai64n::now();
            self.destinations.iter_mut().for_each(|destination| destination.decorate(now, &mut self.human));
        }
    }

    /// Writes what can be written, keeps the rest, and forgets the input.
    fn flush(&mut self) {
        let now = self.now;
        let text = self.lines.text();
        for logdir in &mut self.logdirs {
            logdir.advance(text, now);
            logdir.outlet.settle(text);
        }
        for Destination { decoration, sink, .. } in &mut self.destinations {
            if let Sink::Status { path, new, size, latest } = sink
                && let Some(line) = latest.take()
                && let Err(errno) = replace(path, new, &status(decoration, &text[line], *size))
                && self.settings.verbosity > 0
            {
                warn!(errno => "unable to replace ", *path);
            }
        }
        write_output(&mut self.output, text);
        self.lines.forget();
    }
}

impl Destination<'_> {
    fn decorate(&mut self, now: Tai64n, human: &mut Option<Human>) {
        self.decoration.clear();
        if self.label {
            self.decoration.extend_from_slice(&now.text());
            self.decoration.push(b' ');
        }
        if self.time
            && let Some(human) = human
        {
            self.decoration.extend_from_slice(human.text(now).unwrap_or(b"unknown time"));
            self.decoration.extend_from_slice(b"  ");
        }
        if !self.prefix.is_empty() {
            self.decoration.extend_from_slice(self.prefix);
            self.decoration.push(b' ');
        }
    }
}

/// Writes to standard output what it takes. If it fails for good there is none any more; this is said even to those
/// who want no warnings.
fn write_output(output: &mut Option<Outlet>, text: &[u8]) {
    let Some(outlet) = output else { return };
    while !outlet.is_empty() {
        match fd::write(fd::STDOUT, outlet.front(text)) {
            Ok(bytes) => outlet.advance(bytes),
            Err(Errno::EAGAIN) => break,
            Err(errno) => {
                warn!(errno => "unable to write to standard output, which is left out from now on");
                // Closed, for whoever is at the other end, without making room for another file at its number.
                let _ = fd::to_dev_null(1);
                *output = None;
                return;
            }
        }
    }
    outlet.settle(text);
}

/// Writes a line to standard error, its text cut to `most` bytes if it is more than three bytes longer.
fn alert(decoration: &[u8], line: &[u8], most: usize) {
    let (line, rest) = if most > 0 && line.len() > most + 3 { (&line[..most], &b"..."[..]) } else { (line, &b""[..]) };
    let name = error::program().name.as_bytes();
    let text = [name, b": alert: ", decoration, line, rest, b"\n"].concat();
    // Standard error may share what standard output was made: nonblocking. Nothing of an alert is lost for that.
    let _ = fd::write_before(fd::STDERR, &text, None);
}

/// The contents of a status file: cut, or filled up with newlines, to the size, if it is not 0.
fn status(decoration: &[u8], line: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = [decoration, line, b"\n"].concat();
    if size > 0 {
        bytes.resize(size, b'\n');
    }
    bytes
}
