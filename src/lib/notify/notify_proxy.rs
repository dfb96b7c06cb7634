//! s6-notify-proxy: run a daemon that speaks systemd's notification protocol under a supervisor that does not
//! (spec/sd-notify-and-fdstore.md 4.8).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::unistd::getpid;

use super::fdstore_restore::{self, LIMIT};
use super::grammar::{self, Access, Datagram, Message, Watchdog};
use super::helper;
use super::mirror::Mirror;
use super::receiver::{Buffer, Incoming, Receiver};
use super::report::{Circumstances, Report};
use super::store::{Entry, Store};
use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exec, Exit, OrDie, Program, USAGE};
use crate::servicedir::{control, files};
use crate::sys::env::Env;
use crate::sys::fork::{self, Parent, Side};
use crate::sys::poll::{self, PollFd};
use crate::sys::process::Watch;
use crate::sys::signal::{self, Signal};
use crate::sys::wait::{self, Which};
use crate::sys::{Errno, fd};
use crate::text::decimal;
use crate::warn;

/// Becomes the daemon; a helper listens.
pub const PROGRAM: Program = Program {
    name: "s6-notify-proxy",
    usage: "s6-notify-proxy [ -d fd ] [ -a access ] [ -m maxfds ] [ -H holdersocket -n name ] prog...",
    run,
};

/// Where what the daemon says is shown.
const REPORT: &CStr = c"data/notify";
const REPORT_NEW: &CStr = c"data/notify.new";
/// What brings down a daemon that does not work, as a command to its supervisor: SIGABRT.
const ABORT: &[u8] = b"b";
/// Messages that are read before anything else is looked at.
const TURN: usize = 64;
/// Messages that are read after the daemon has died: more than any queue holds.
const LAST_WORDS: usize = 4096;

fn run(args: Args) -> Result<Exit, Die> {
    let mut notification = None;
    let mut access = Access::default();
    let mut max = 0;
    let (mut holder, mut name) = (None, None);
    let mut options = Options::classic(args, "damHn");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => notification = Some(value),
            'a' => {
                let word = value.bytes();
                access = Access::parse(word).ok_or_else(|| die!(USAGE, "access is none, main, exec or all: ", word))?;
            }
            'm' => max = value.u32()?,
            'H' => holder = Some(value.into_cstring()),
            'n' => name = Some(value.into_cstring()),
            other => return Err(options.unknown(other)),
        }
    }
    let operands = options.operands();
    let held = match (holder, name) {
        (Some(holder), Some(name)) => Some((holder, name)),
        (None, None) => None,
        _ => return Err(Die::usage()),
    };
    if operands.is_empty() {
        return Err(Die::usage());
    }
    let pipe = match notification.is_some() || files::exists(c"notification-fd") {
        true => Some(helper::notification_fd(notification.as_ref())?.0),
        false => None,
    };
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let receiver = Receiver::anywhere().or_die("make", "a socket")?;
    let daemon = Watch::open(getpid()).or_die("watch", "the daemon to be")?;
    let mut found =
        held.as_ref().map_or(Vec::new(), |(holder, name)| fdstore_restore::recover(holder, name, Some(LIMIT)));
    if max > 0 {
        found.truncate(max as usize);
    }

    let mut env = Env::inherited();
    for variable in ["WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "MAINPID", "MAINPIDFDID"] {
        env.unset(variable.as_bytes());
    }
    env.set(b"NOTIFY_SOCKET", receiver.address().to_bytes());
    if max > 0 {
        env.set(b"FDSTORE", decimal(max).as_bytes());
    }
    match fork::split(Parent::Nobody).or_die("start", "the helper")? {
        Side::Helper => helper::live(|| Relay::new(receiver, daemon, pipe, access, max, held, found).live()),
        Side::Maker => drop((receiver, daemon, pipe)),
    }
    fdstore_restore::pass(found, &mut env).or_die("pass on", "the descriptors")?;
    Ok(Exec::operands(operands).with_env(env).into())
}

/// The helper: what it listens to, and what it knows of the daemon.
struct Relay {
    receiver: Receiver,
    daemon: Watch,
    /// Where the supervisor waits for a newline.
    pipe: Option<OwnedFd>,
    state: &'static str,
    report: Report,
    /// When the daemon must have said that it works.
    ping_by: Option<Instant>,
    store: Store,
    mirror: Option<Mirror>,
    fds: Vec<OwnedFd>,
    /// The report must be written.
    stale: bool,
    /// It could not be, and that was said.
    complained: bool,
}

impl Relay {
    fn new(
        receiver: Receiver,
        daemon: Watch,
        pipe: Option<OwnedFd>,
        access: Access,
        max: u32,
        held: Option<(CString, CString)>,
        found: Vec<Entry<OwnedFd>>,
    ) -> Self {
        let mut store = Store::default();
        store.set_max(max as usize);
        let mirror = held.map(|(holder, name)| Mirror::new(holder, name, &store));
        for entry in found {
            store.resume_at(entry.serial);
            store.add([entry.file], &entry.name, entry.poll);
        }
        let mut report = Report::default();
        report.clear(access, None);
        Relay {
            receiver,
            daemon,
            pipe,
            state: "starting",
            report,
            ping_by: None,
            store,
            mirror,
            fds: Vec::new(),
            stale: true,
            complained: false,
        }
    }

    /// Until the daemon is dead.
    fn live(mut self) -> Result<(), Die> {
        helper::leave_standard()?;
        signal::trap(&[Signal::SIGCHLD]).or_die("trap", "signals")?;
        let mut polled = Vec::new();
        loop {
            self.show();
            polled.clear();
            polled.push(PollFd::new(self.receiver.as_fd(), poll::IN));
            polled.push(PollFd::maybe(self.daemon.fd(), poll::IN));
            polled.extend(self.store.entries().iter().map(|entry| match entry.poll {
                true => PollFd::new(entry.file.as_fd(), 0),
                false => PollFd::none(),
            }));
            poll::wait(&mut polled, self.ping_by).or_die("wait for", "the daemon")?;
            let mut stored = polled[2..].iter();
            self.drop_from_store(|_| stored.next().is_some_and(PollFd::hung_up));
            if polled[0].readable() {
                self.read(TURN);
            }
            while signal::take().is_some() {
                self.reap();
            }
            if self.ping_by.is_some_and(|by| by <= Instant::now()) {
                self.abort();
            }
            if polled[1].ready() {
                return self.end();
            }
        }
    }

    /// The daemon is dead.
    fn end(mut self) -> Result<(), Die> {
        self.read(LAST_WORDS);
        self.state = "dead";
        self.stale = true;
        self.show();
        if let Some(mirror) = &mut self.mirror {
            mirror.finish(&self.store);
        }
        Ok(())
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = wait::reap(Which::Any) {
            if let Some(mirror) = &mut self.mirror {
                mirror.reaped(pid, status);
            }
        }
    }

    fn read(&mut self, most: usize) {
        let mut buffer: Buffer = [0; _];
        for _ in 0..most {
            match self.receiver.receive(&mut buffer, &mut self.fds) {
                Ok(Some(mut incoming)) => {
                    if self.admits(&mut incoming)
                        && let Some(Datagram::Message(message)) = grammar::parse(incoming.payload)
                    {
                        self.obey(&message);
                    }
                }
                Ok(None) | Err(Errno::ENOBUFS) => {}
                Err(_) => return,
            }
            if !self.fds.is_empty() {
                self.show();
                self.fds.clear();
            }
        }
    }

    fn admits(&self, incoming: &mut Incoming<'_>) -> bool {
        match self.report.access {
            Access::None => false,
            Access::Main | Access::Exec => incoming.sender.pid == self.daemon.pid(),
            Access::All => {
                incoming.sender.pid == self.daemon.pid() || incoming.is_from_descendant_of(self.daemon.pid())
            }
        }
    }

    fn obey(&mut self, message: &Message<'_>) {
        self.report.take(message);
        self.stale = true;
        match message.state {
            _ if self.state == "stopping" => {}
            None => {}
            Some(grammar::State::Stopping) => (self.state, self.ping_by) = ("stopping", None),
            Some(grammar::State::Ready | grammar::State::Reloaded(_)) => self.ready(),
            Some(grammar::State::Reloading(_)) if self.state == "ready" => self.state = "reloading",
            Some(grammar::State::Reloading(_)) => {}
        }
        if message.watchdog == Some(Watchdog::Trigger) {
            self.abort();
        } else if message.watchdog.is_some() || message.watchdog_interval.is_some() {
            self.wait_for_ping();
        }
        match message.store {
            None => {}
            Some(grammar::Store::Remove(name)) => self.drop_from_store(|entry| *entry.name == *name),
            Some(grammar::Store::Add { name, poll }) => {
                let added = self.store.add(self.fds.drain(..), name, poll);
                let entries = self.store.entries();
                for entry in &entries[entries.len() - added..] {
                    self.mirror.iter_mut().for_each(|mirror| mirror.stored(entry));
                }
            }
        }
    }

    fn ready(&mut self) {
        let first = self.state == "starting";
        self.state = "ready";
        if first {
            self.wait_for_ping();
        }
        if let Some(pipe) = self.pipe.take()
            && let Err(errno) = fd::write_all(&pipe, b"\n")
        {
            warn!(errno => "unable to tell the supervisor that the daemon is ready");
        }
    }

    fn wait_for_ping(&mut self) {
        if matches!(self.state, "ready" | "reloading") {
            self.ping_by = self.report.watchdog.map(|interval| Instant::now() + interval);
        }
    }

    /// The daemon does not work.
    fn abort(&mut self) {
        self.ping_by = None;
        self.report.watchdog = None;
        warn!("the daemon does not work: it did not say so in time, or said that it does not");
        if control::send(c".", "supervise", ABORT).is_err() {
            warn!("unable to tell its supervisor");
        }
    }

    fn drop_from_store(&mut self, mut condemned: impl FnMut(&Entry<OwnedFd>) -> bool) {
        let dropped = self.store.remove(|entry| {
            let goes = condemned(entry);
            self.mirror.iter_mut().filter(|_| goes).for_each(|mirror| mirror.dropped(entry));
            goes
        });
        self.stale |= dropped > 0;
    }

    /// Brings the file up to date, and the holder.
    fn show(&mut self) {
        if let Some(mirror) = &mut self.mirror {
            mirror.advance(&self.store);
        }
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let (stored, max) = (self.store.entries().len(), self.store.max());
        let mut text = Vec::new();
        self.report.render(Circumstances { state: self.state, result: "success", stored, max }, &mut text);
        if let Err(errno) = files::replace(REPORT, REPORT_NEW, &text)
            && !std::mem::replace(&mut self.complained, true)
        {
            warn!(errno => "unable to write ", REPORT);
        }
    }
}
