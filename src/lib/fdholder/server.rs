//! The shell around the sessions: sockets, signals, deadlines.
//!
//! What a client can cost is a slot: its input is bounded by the longest request that it may send now, its output
//! is one message, and it is not read while it does not take its answer.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use crate::error::{Die, OrDie};
use crate::fdholder::held::{Holdings, Shared};
use crate::fdholder::protocol;
use crate::fdholder::rights::Rulebook;
use crate::fdholder::session::{Answer, Mistake, Session};
use crate::local::access::Rules;
use crate::sys::fd::{self, STDIN};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, peer, socket};
use crate::tai::Tai64n;
use crate::unixmessage::{Inbox, MAX_FDS, Message, Outbox};
use crate::warn;

/// Messages for one client before others have their turn.
const TURN: usize = 16;
/// How long no connection is taken after the system had no room for one.
const RESPITE: Duration = Duration::from_secs(1);
/// As far as a wait for a limit goes.
const FAR: Duration = Duration::from_secs(1 << 31);

/// What a server is told on its command line.
#[derive(Debug)]
pub struct Settings {
    /// Whether to warn about rules.
    pub verbose: bool,
    /// The most clients at a time.
    pub clients: usize,
    /// The most descriptors.
    pub descriptors: usize,
    /// How long a client may take to say something, or to take an answer.
    pub patience: Option<Duration>,
    /// How long clients may take to finish after SIGTERM.
    pub farewell: Option<Duration>,
}

/// A client is dropped, for whatever reason: it left, made a mistake, or its socket failed.
struct Gone;

impl From<Errno> for Gone {
    fn from(_: Errno) -> Self {
        Gone
    }
}

impl From<Mistake> for Gone {
    fn from(_: Mistake) -> Self {
        Gone
    }
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    session: Session,
    inbox: Inbox,
    outbox: Outbox<Shared<OwnedFd>>,
    /// What is left to send of a dump.
    dump: IntoIter<Shared<OwnedFd>>,
    /// Its turn was over before its requests were.
    interrupted: bool,
    deadline: Option<Instant>,
}

impl Client {
    /// Whether nothing is on its way, in or out.
    fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.inbox.is_empty() && !self.interrupted
    }

    /// What to wait for: one that has not taken its answer is not read.
    fn poll(&self) -> PollFd {
        let writes = self.interrupted || !self.outbox.is_empty();
        PollFd::new(self.socket.as_fd(), if writes { poll::OUT } else { poll::IN })
    }

    /// Reads, if that is what it waits for, and works.
    fn wake(&mut self, holdings: &mut Holdings<OwnedFd>, patience: Option<Duration>) -> Result<(), Gone> {
        let unread = !self.outbox.is_empty();
        if !unread && !self.interrupted {
            match self.inbox.fill(&self.socket) {
                Ok(0) => return Err(Gone),
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        let answered = self.work(holdings)?;
        if answered || unread && self.outbox.is_empty() {
            self.deadline = None;
        }
        if !self.is_idle() && self.deadline.is_none() {
            self.deadline = patience.map(|patience| Instant::now() + patience);
        }
        Ok(())
    }

    /// Answers what is there and sends what can be sent; whether there was something to answer.
    fn work(&mut self, holdings: &mut Holdings<OwnedFd>) -> Result<bool, Gone> {
        let mut answered = false;
        for _ in 0..TURN {
            self.interrupted = false;
            if !self.outbox.flush(&self.socket)? {
                return Ok(answered);
            }
            if self.dump.len() > 0 {
                self.continue_dump()?;
            } else {
                let limits = self.session.limits();
                let Some(Message { body, fds }) = self.inbox.take(limits)? else { return Ok(answered) };
                holdings.expire(Tai64n::now());
                let answer = self.session.answer(holdings, body, fds)?;
                self.put(answer)?;
            }
            answered = true;
        }
        self.interrupted = true;
        Ok(answered)
    }

    fn put(&mut self, answer: Answer<OwnedFd>) -> Result<(), Errno> {
        match answer {
            Answer::Code(code) => self.outbox.put(&[&[code]], []),
            Answer::Body(body) => self.outbox.put(&[&body], []),
            Answer::Descriptor(shared) => self.outbox.put(&[&[0]], [shared]),
            Answer::Dump(all) => {
                let total = all.len() as u32;
                self.dump = all.into_iter();
                self.outbox.put(&[&[0], &protocol::messages(total).to_be_bytes(), &total.to_be_bytes()], [])
            }
        }
    }

    fn continue_dump(&mut self) -> Result<(), Errno> {
        let part: Vec<_> = self.dump.by_ref().take(MAX_FDS).collect();
        let mut body = Vec::new();
        let fits = part.iter().try_for_each(|shared| protocol::put_entry(&mut body, &shared.0));
        debug_assert!(fits.is_some(), "every name that is held can be sent");
        self.outbox.put(&[&body], part)
    }
}

/// A server on its standard input.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    rules: Rulebook,
    holdings: Holdings<OwnedFd>,
    clients: Vec<Client>,
    /// When to take connections again.
    respite: Option<Instant>,
    /// Whether SIGTERM came.
    quitting: bool,
    /// When clients that have not finished are left alone.
    farewell: Option<Instant>,
}

impl Server {
    /// Nothing held, nobody connected.
    pub fn new(settings: Settings, rules: Rules) -> Self {
        Server {
            holdings: Holdings::new(settings.descriptors),
            rules: Rulebook::new(rules, settings.verbose),
            settings,
            clients: Vec::new(),
            respite: None,
            quitting: false,
            farewell: None,
        }
    }

    /// Serves until SIGTERM. `reopen` is what SIGHUP does to the rules. The exit code tells what is lost: 1 for
    /// descriptors, 2 for connected clients, 3 for both.
    pub fn serve(mut self, reopen: impl Fn() -> Option<Rules>) -> Result<u8, Die> {
        let mut polled = Vec::new();
        loop {
            while let Some(number) = signal::take() {
                if number == Signal::SIGTERM as i32 {
                    self.quit()?;
                } else if let Some(rules) = reopen() {
                    self.rules = Rulebook::new(rules, self.settings.verbose);
                }
            }
            self.holdings.expire(Tai64n::now());
            polled.clear();
            polled.extend(self.clients.iter().map(Client::poll));
            polled.push(if self.listens() { PollFd::new(STDIN, poll::IN) } else { PollFd::none() });
            let finished = self.quitting && self.clients.iter().all(Client::is_idle);
            let deadline = if finished { Some(Instant::now()) } else { self.deadline() };
            poll::wait(&mut polled, deadline).or_die("wait for", "clients")?;
            let now = Instant::now();
            let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
            if finished && !polled.iter().any(PollFd::ready) || is_over(self.farewell) {
                return Ok(u8::from(!self.holdings.is_empty()) | u8::from(!self.clients.is_empty()) << 1);
            }
            if is_over(self.respite) {
                self.respite = None;
            }
            let mut ready = polled.iter().map(PollFd::ready);
            self.clients.retain_mut(|client| {
                let ready = ready.next().unwrap_or(false);
                let stays = !ready || client.wake(&mut self.holdings, self.settings.patience).is_ok();
                stays && !is_over(client.deadline)
            });
            if ready.next().unwrap_or(false) {
                self.accept(now)?;
            }
        }
    }

    fn listens(&self) -> bool {
        !self.quitting && self.respite.is_none() && self.clients.len() < self.settings.clients
    }

    /// The nearest moment at which something is to be done.
    fn deadline(&self) -> Option<Instant> {
        let limit = self.holdings.next_limit().map(|limit| Instant::now() + Tai64n::now().until(limit).min(FAR));
        let clients = self.clients.iter().filter_map(|client| client.deadline);
        clients.chain(limit).chain(self.respite).chain(self.farewell).min()
    }

    /// Takes no more connections, and those that wait for one are told so.
    fn quit(&mut self) -> Result<(), Die> {
        self.quitting = true;
        self.farewell = self.farewell.or(self.settings.farewell.map(|farewell| Instant::now() + farewell));
        fd::to_dev_null(0).or_die("close", "the socket")
    }

    fn accept(&mut self, now: Instant) -> Result<(), Die> {
        let socket = match socket::accept(STDIN) {
            Ok(socket) => socket,
            Err(Errno::EAGAIN | Errno::ECONNABORTED) => return Ok(()),
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => {
                self.respite = Some(now + RESPITE);
                if self.settings.verbose {
                    warn!(errno => "unable to accept a connection, trying again in a second");
                }
                return Ok(());
            }
            Err(errno) => return Err(errno).or_die("accept", "a connection"),
        };
        let Some(rights) = peer::credentials(&socket).ok().and_then(|peer| self.rules.judge(peer)) else {
            return Ok(());
        };
        let mut client = Client {
            socket,
            session: Session::new(rights),
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            dump: Vec::new().into_iter(),
            interrupted: false,
            deadline: self.settings.patience.map(|patience| now + patience),
        };
        // Most clients have sent their request by now.
        if client.wake(&mut self.holdings, self.settings.patience).is_ok() {
            self.clients.push(client);
        }
        Ok(())
    }
}
