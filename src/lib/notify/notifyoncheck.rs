//! s6-notifyoncheck: run a daemon, and say that it is ready when a check succeeds (spec/events-and-fdholding.md 5)

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::cli::{Args, Long, Options, Value, argv};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::events::subscription::Subscription;
use crate::notify::checks::{Action, Checks, Event, Outcome, Settings};
use crate::notify::helper;
use crate::servicedir::control;
use crate::sys::cptr::CPtr;
use crate::sys::fork::{self, Parent, Side};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::wait::{self, Which};
use crate::sys::{Errno, Pid, fd};
use crate::{die, text, warn};

/// Becomes the daemon; the checks are made by a helper.
pub const PROGRAM: Program = Program {
    name: "s6-notifyoncheck",
    usage: "s6-notifyoncheck [ -d ] [ -3 fd ] [ -s initialsleep ] [ -T globaltimeout ] [ -t localtimeout ] \
            [ -w waitingtime ] [ -n tries ] [ -c \"checkprog...\" ] prog...",
    run,
};

const LONG: &[Long] = &[
    ("doublefork", 'd'),
    ("notification-fd", '3'),
    ("initial-sleep", 's'),
    ("global-timeout", 'T'),
    ("local-timeout", 't'),
    ("waiting-time", 'w'),
    ("tries", 'n'),
    ("check-program", 'c'),
];

/// The letter in ./event for the death of the service.
const DIED: u8 = b'd';

fn run(args: Args) -> Result<Exit, Die> {
    let mut parent = Parent::Maker;
    let (mut notification, mut check) = (None, None);
    let (mut sleep, mut global, mut local, mut waiting, mut tries) = (None, None, None, None, None);
    let mut options = Options::long(args, "3sTtwnc", LONG);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => parent = Parent::Nobody,
            '3' => notification = Some(value),
            's' => sleep = Some(value),
            'T' => global = Some(value),
            't' => local = Some(value),
            'w' => waiting = Some(value),
            'n' => tries = Some(value),
            'c' => check = Some(value.into_cstring()),
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    if operands.is_empty() {
        return Err(Die::usage());
    }
    let notification = helper::notification_fd(notification.as_ref())?;
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let number = |value: Option<Value>, default| value.map_or(Ok(default), |value| value.u32());
    let settings = Settings {
        initial_sleep: Duration::from_millis(number(sleep, 10)?.into()),
        global_limit: text::limit(number(global, 0)?),
        local_limit: text::limit(number(local, 0)?),
        waiting_time: Duration::from_millis(number(waiting, 1000)?.into()),
        tries: Some(number(tries, 7)?).filter(|tries| *tries > 0),
    };
    match control::is_running(c".", "supervise") {
        Ok(true) => {}
        Ok(false) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
            return Err(die!(100, "the current directory is not that of a supervised service"));
        }
        failure => failure.or_die("look at", "./supervise/lock").map(drop)?,
    }
    let command = match &check {
        None => argv([c"./data/check"]),
        Some(script) => argv([c"execlineb", c"-Pc", script]),
    };
    let (reader, writer) = fd::pipe().or_die("make", "a pipe")?;
    match fork::split(parent).or_die("start", "the helper")? {
        Side::Helper => helper::live(|| make_checks(settings, notification, &command, writer)),
        Side::Maker => drop((notification, writer)),
    }
    if fd::read(&reader, &mut [0]).or_die("wait for", "the helper")? == 0 {
        return Err(die!(111, "the helper was unable to start"));
    }
    Ok(Exec::operands(operands).into())
}

/// A check that runs.
struct Running(Option<Pid>);

impl Running {
    fn kill(&mut self) {
        if let Some(pid) = self.0.take() {
            let _ = signal::kill(pid, Signal::SIGTERM as i32);
        }
    }
}

/// What the helper does. When it listens for the death of the service, it writes a byte to `listening`.
fn make_checks(
    settings: Settings,
    (notification, number): (OwnedFd, RawFd),
    command: &[CPtr<'_>],
    listening: OwnedFd,
) -> Result<(), Die> {
    let mut checks = Checks::new(settings, Instant::now());
    signal::neutralise(Signal::SIGPIPE).or_die("trap", "signals")?;
    signal::trap(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).or_die("trap", "signals")?;
    let mut event_dir = Subscription::new(c"./event").or_die("subscribe to", "./event")?;
    fd::write_all(&listening, b"\n").or_die("write to", "the service")?;
    drop(listening);
    let mut running = Running(None);
    let mut event = Event::Tick;
    loop {
        match checks.step(event, Instant::now()) {
            Action::Wait => event = next_event(&mut event_dir, &mut running, checks.deadline())?,
            Action::Kill => {
                running.kill();
                event = Event::Tick;
            }
            Action::Start => {
                let redirects = [Redirect::new(notification.as_fd(), number)];
                event = match (Spawn { redirects: &redirects, ..Spawn::new(command) }.start()) {
                    Ok(pid) => {
                        running = Running(Some(pid));
                        Event::Tick
                    }
                    Err(errno) => {
                        let name = command.first().and_then(|p| p.get()).unwrap_or_default();
                        warn!(errno => "unable to spawn ", name);
                        Event::NotStarted
                    }
                };
            }
            Action::End(outcome) => {
                running.kill();
                if outcome == Outcome::Ready {
                    let _ = fd::write(notification, b"\n");
                }
                return match outcome {
                    Outcome::Ready => Ok(()),
                    Outcome::Failed => Err(Die::silent(1)),
                    Outcome::Died => Err(Die::silent(2)),
                    Outcome::TimedOut => Err(Die::silent(3)),
                };
            }
        }
    }
}

/// Waits until something happens. A signal to end is as good as the death of the service.
fn next_event(event_dir: &mut Subscription, running: &mut Running, deadline: Option<Instant>) -> Result<Event, Die> {
    let mut polled = [PollFd::new(event_dir.as_fd(), poll::IN)];
    poll::wait(&mut polled, deadline).or_die("wait for", "events")?;
    while let Some(number) = signal::take() {
        if number != Signal::SIGCHLD as i32 {
            return Ok(Event::Died);
        }
    }
    let mut letters = [0; 256];
    while let Ok(count @ 1..) = event_dir.read(&mut letters) {
        if letters[..count].contains(&DIED) {
            return Ok(Event::Died);
        }
    }
    while let Some((pid, status)) = wait::reap(Which::Any) {
        if running.0 == Some(pid) {
            running.0 = None;
            return Ok(Event::Ended { success: status.code() == Some(0) });
        }
    }
    Ok(Event::Tick)
}
