//! s6-ftrigrd: subscribes to fifodirs for a program of the C suite, which spawns it (spec/events-and-fdholding.md 2)
//!
//! Our own programs subscribe in process and have no need of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::cli::Args;
use crate::die;
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::events::fifodir;
use crate::events::ftrigr::{self, CHANNEL, CLIENT_BANNER, Frames, Pending, Request, SERVER_BANNER};
use crate::events::matcher::{Matcher, TURN};
use crate::events::subscription::Subscription;
use crate::sys::fd::{self, STDIN, STDOUT};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, env};
use crate::text;

/// Exits 0 when its client closes the connection.
pub const PROGRAM: Program = Program { name: "s6-ftrigrd", usage: "s6-ftrigrd", run };

/// How long a client may take to say who it is.
const GREETING: Duration = Duration::from_secs(5);
/// How long a client that ends may take from closing one end of the connection to closing the next.
const ENDING: Duration = Duration::from_millis(100);
/// Bytes of events that wait for the client before no more letters are read.
const MANY: usize = 65536;
/// Bytes of requests that are read at once.
const READ: usize = 4096;

/// One subscription of the client.
#[derive(Debug)]
struct Watch {
    id: u32,
    repeat: bool,
    deadline: Option<Instant>,
    subscription: Subscription,
    matcher: Matcher,
}

impl Watch {
    /// Reads what came, and says what matches.
    fn read(&mut self, events: &mut Pending) -> Result<(), Over> {
        let mut buffer = [0; TURN];
        let mut bytes = match self.subscription.read(&mut buffer) {
            Ok(count) => &buffer[..count],
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return self.fail(errno, events),
        };
        while !bytes.is_empty() {
            if let Some(matched) = self.matcher.take_chunk(&mut bytes) {
                events.put(&[&self.id.to_be_bytes(), &[0; 4], &matched]);
                if !self.repeat {
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    fn fail(&self, errno: Errno, events: &mut Pending) -> Result<(), Over> {
        events.put(&[&self.id.to_be_bytes(), &(errno as u32).to_be_bytes()]);
        Err(Over)
    }
}

/// The end of a subscription.
struct Over;

/// The client, and all that it has asked for. When dropped, no fifo is left.
struct Server {
    asynchronous: OwnedFd,
    greeted: bool,
    requests: Frames,
    answers: Pending,
    events: Pending,
    watches: Vec<Watch>,
}

fn run(_: Args) -> Result<Exit, Die> {
    let value = env::get(CHANNEL).ok_or_else(|| die!(111, "$", CHANNEL, " not set"))?;
    let number = ftrigr::channel(value.to_bytes()).ok_or_else(|| die!(111, "invalid $", CHANNEL))?;
    // A client that has no stderr may have it there.
    let asynchronous = fd::take(number).or_die("use descriptor", &text::decimal(number as u32))?;
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    for channel in [STDIN, STDOUT, asynchronous.as_fd()] {
        fd::set_nonblocking(channel, true).or_die("prepare", "the channels")?;
    }
    fifodir::ignore_vanishing_readers();
    signal::trap(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT]).or_die("trap", "signals")?;
    let mut server = Server {
        asynchronous,
        greeted: false,
        requests: Frames::default(),
        answers: Pending::default(),
        events: Pending::default(),
        watches: Vec::new(),
    };
    let ended_by = server.serve();
    drop(server);
    if let Some(number) = ended_by? {
        signal::untrap();
        signal::kill(nix::unistd::getpid(), number).or_die("end by", "signal")?;
    }
    Ok(OK)
}

impl Server {
    /// Serves until the client closes its end, or until a signal comes, which is returned.
    fn serve(&mut self) -> Result<Option<i32>, Die> {
        let greeting = Instant::now() + GREETING;
        let mut polled = Vec::new();
        loop {
            if let Some(number) = signal::take() {
                return Ok(Some(number));
            }
            let listens = self.answers.rest().is_empty();
            let reads = self.events.rest().len() < MANY;
            let wants_out = |pending: &Pending| if pending.rest().is_empty() { 0 } else { poll::OUT };
            polled.clear();
            polled.push(PollFd::new(STDIN, if listens { poll::IN } else { 0 }));
            polled.push(PollFd::new(STDOUT, wants_out(&self.answers)));
            polled.push(PollFd::new(self.asynchronous.as_fd(), wants_out(&self.events)));
            let fifo = |watch: &Watch| PollFd::maybe(reads.then_some(&watch.subscription), poll::IN);
            polled.extend(self.watches.iter().map(fifo));
            let deadline = if self.greeted { self.deadline() } else { Some(greeting) };
            poll::wait(&mut polled, deadline).or_die("wait for", "the client")?;
            let now = Instant::now();
            if !self.greeted && now >= greeting {
                return Err(die!(111, Errno::ETIMEDOUT => "unable to read the client's greeting"));
            }
            let [requests, answers, events, fifos @ ..] = &polled[..] else { continue };
            let mut ready = fifos.iter().map(PollFd::ready);
            self.watches.retain_mut(|watch| {
                let mut outcome = Ok(());
                if ready.next().unwrap_or(false) {
                    outcome = watch.read(&mut self.events);
                }
                if outcome.is_ok() && watch.deadline.is_some_and(|deadline| deadline <= now) {
                    outcome = watch.fail(Errno::ETIMEDOUT, &mut self.events);
                }
                outcome.is_ok()
            });
            if (listens && requests.readable() || requests.hung_up()) && self.read()? {
                return Ok(None);
            }
            if answers.hung_up() || events.hung_up() {
                return self.forsaken();
            }
            flush(&mut self.events, self.asynchronous.as_fd())?;
            flush(&mut self.answers, STDOUT)?;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.watches.iter().filter_map(|watch| watch.deadline).min()
    }

    /// Reads requests once and answers them; whether that was the end.
    fn read(&mut self) -> Result<bool, Die> {
        let mut buffer = [0; READ];
        match fd::read(STDIN, &mut buffer) {
            Ok(0) if !self.greeted => return Err(die!(111, Errno::EPIPE => "unable to read the client's greeting")),
            Ok(0) => return Ok(true),
            Ok(count) => self.requests.extend(&buffer[..count]),
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno).or_die("read from", "the client").map(|()| false),
        }
        while let Some(message) = self.requests.take().or_die("read from", "the client")? {
            if !self.greeted {
                if message != CLIENT_BANNER {
                    return Err(die!(111, Errno::EPROTO => "unable to understand the client's greeting"));
                }
                self.greeted = true;
                self.events.put(&[SERVER_BANNER]);
                self.answers.put(&[SERVER_BANNER]);
                continue;
            }
            let errno = match ftrigr::parse(message).ok_or_else(|| die!(100, "invalid client request"))? {
                Request::Subscribe { id, repeat, timeout, target } => match target.and_then(|(path, expression)| {
                    let matcher = Matcher::new(expression.to_bytes()).map_err(|invalid| invalid.errno)?;
                    Ok((matcher, Subscription::new(path)?))
                }) {
                    Ok((matcher, subscription)) => {
                        let deadline = text::limit(timeout).map(|limit| Instant::now() + limit);
                        self.watches.push(Watch { id, repeat, deadline, subscription, matcher });
                        0
                    }
                    Err(errno) => errno as u32,
                },
                Request::Cancel { id } => match self.watches.iter().position(|watch| watch.id == id) {
                    Some(place) => {
                        self.watches.remove(place);
                        0
                    }
                    None => Errno::EINVAL as u32,
                },
            };
            self.answers.put(&[&errno.to_be_bytes()]);
        }
        Ok(false)
    }

    /// Nobody reads one of our channels. That is an error, unless the client is just ending.
    fn forsaken(&mut self) -> Result<Option<i32>, Die> {
        let deadline = Instant::now() + ENDING;
        while Instant::now() < deadline {
            let mut polled = [PollFd::new(STDIN, poll::IN)];
            poll::wait(&mut polled, Some(deadline)).or_die("wait for", "the client")?;
            if polled[0].ready() && fd::read(STDIN, &mut [0; READ]) == Ok(0) {
                return Ok(None);
            }
        }
        Err(die!(111, Errno::EPIPE => "unable to write to the client"))
    }
}

/// Writes what can be written now.
fn flush(pending: &mut Pending, to: BorrowedFd<'_>) -> Result<(), Die> {
    while !pending.rest().is_empty() {
        match fd::write(to, pending.rest()) {
            Ok(count) => pending.advance(count),
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno).or_die("write to", "the client"),
        }
    }
    Ok(())
}
