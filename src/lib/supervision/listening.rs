//! What s6-svwait, s6-svlisten and s6-svlisten1 share: options, the subscriptions, the wait (spec/supervision.md 9).

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::unistd::Gid;

use super::waiting::{Target, Waiting, Wish};
use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OK, OrDie, TIMEOUT};
use crate::events::fifodir::{self, Access};
use crate::events::ftrig;
use crate::events::subscription::Subscription;
use crate::servicedir::files;
use crate::servicedir::status::Status;
use crate::sys::Errno;
use crate::sys::poll::{self, PollFd};

/// Letters that are taken from one service before others have their turn.
const TURN: usize = 64;

/// How long a supervisor that was just started may take to say so.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a command line asks for.
#[derive(Debug)]
pub struct Request {
    /// What is waited for.
    pub wish: Wish,
    /// When the wait fails.
    pub deadline: Option<Instant>,
    /// The words after the options.
    pub operands: Args,
}

/// Reads the options of the three programs. `takes`: the letters that this one has. `restart`: what a service meets
/// first when `-r` or `-R` waits for its restart.
pub fn options(args: Args, takes: &str, restart: Target) -> Result<Request, Die> {
    let mut options = Options::classic(args, "t");
    let mut wish = Wish { first: None, last: Target::Up, any: false };
    let mut deadline = None;
    while let Some((letter, value)) = options.next()? {
        match letter {
            _ if !takes.contains(letter) => return Err(options.unknown(letter)),
            'u' => wish = Wish { first: None, last: Target::Up, ..wish },
            'U' => wish = Wish { first: None, last: Target::UpReady, ..wish },
            'd' => wish = Wish { first: None, last: Target::Down, ..wish },
            'D' => wish = Wish { first: None, last: Target::DownReady, ..wish },
            'r' => wish = Wish { first: Some(restart), last: Target::Up, ..wish },
            'R' => wish = Wish { first: Some(restart), last: Target::UpReady, ..wish },
            'a' => wish.any = false,
            'o' => wish.any = true,
            't' => deadline = ftrig::deadline(&value)?,
            other => return Err(options.unknown(other)),
        }
    }
    Ok(Request { wish, deadline, operands: options.operands() })
}

/// Subscriptions to the events of services, and what is known of them.
#[derive(Debug)]
pub struct Listener {
    subscriptions: Vec<Subscription>,
    waiting: Waiting,
    deadline: Option<Instant>,
}

impl Listener {
    /// Subscribes to the events of all services, then looks at their status, so that no change is missed between.
    pub fn new(dirs: &[&CStr], request: &Request) -> Result<Listener, Die> {
        ftrig::prepare()?;
        let subscriptions = dirs.iter().map(|dir| subscribe(dir)).collect::<Result<Vec<_>, Die>>()?;
        let mut waiting = Waiting::new(request.wish, dirs.len());
        let patience = Instant::now() + PATIENCE;
        let patience = request.deadline.map_or(patience, |deadline| deadline.min(patience));
        for (dir, subscription) in dirs.iter().zip(&subscriptions) {
            let status = match Status::read(dir) {
                // Its supervisor may just begin: then it will say so when there is a status.
                Err(Errno::ENOENT) => {
                    let _ = poll::until_ready(subscription, poll::IN, Some(patience));
                    Status::read(dir)
                }
                other => other,
            };
            let status = status.or_die("read the status of", dir)?;
            waiting.add(status.is_up(), status.ready);
        }
        Ok(Listener { subscriptions, waiting, deadline: request.deadline })
    }

    /// Waits for the verdict, the deadline, or a signal that ends the program.
    pub fn wait(mut self) -> Result<Exit, Die> {
        let mut fds: Vec<PollFd> = self.subscriptions.iter().map(|s| PollFd::new(s.as_fd(), poll::IN)).collect();
        loop {
            match self.waiting.verdict() {
                None => {}
                Some(0) => return Ok(OK),
                Some(failed) => {
                    let code = failed.min(u8::MAX.into()) as u8;
                    return Err(die!(code, "a service failed permanently or lost its supervisor"));
                }
            }
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(die!(TIMEOUT, "timed out while waiting for services"));
            }
            poll::wait(&mut fds, self.deadline).or_die("poll", "")?;
            if let Some(number) = ftrig::take_signal() {
                return Ok(Exit::Signal(number));
            }
            self.read(&fds).or_die("read from", "fifo")?;
        }
    }

    /// Takes letters from the services that sent some, until the verdict is there.
    fn read(&mut self, fds: &[PollFd]) -> Result<(), Errno> {
        for index in (0..fds.len()).filter(|&index| fds[index].readable()) {
            let mut letters = [0; TURN];
            let length = match self.subscriptions[index].read(&mut letters) {
                Err(Errno::EAGAIN) => continue,
                other => other?,
            };
            for &letter in &letters[..length] {
                self.waiting.take(index, letter);
                if self.waiting.verdict().is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Subscribes to the events of a service, making its `event` directory if it is not there yet.
fn subscribe(dir: &CStr) -> Result<Subscription, Die> {
    let event = files::path(dir, "event");
    let subscription = Subscription::new(&event).or_else(|errno| match errno {
        Errno::ENOENT => {
            let _ = fifodir::make(&event, Access::Group(Gid::effective()), false);
            Subscription::new(&event)
        }
        errno => Err(errno),
    });
    subscription.or_die("subscribe to the events of", dir)
}
