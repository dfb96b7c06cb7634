//! s6-ipcserverd: one process per connection (spec/local-services-and-instances.md 2.3, 2.4).

use std::ffi::{CStr, CString};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use crate::cli::{Args, Options};
use crate::error::{self, Die, Exit, OrDie, Program, SYSTEM, USAGE};
use crate::sys::cptr::{self, CPtr};
use crate::sys::peer::{self, Peer};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::socket::{self, Accepted};
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::wait::{self, WaitStatus, Which};
use crate::sys::{Errno, Pid, env, fd};
use crate::text::decimal;
use crate::{die, info, warn};

/// Serves a listening socket on its standard input.
pub const PROGRAM: Program = Program {
    name: "s6-ipcserverd",
    usage: "s6-ipcserverd [ -v verbosity ] [ -1 ] [ -P | -p ] [ -c maxconn ] [ -C localmaxconn ] prog...",
    run,
};

/// Connections at a time unless told otherwise.
const DEFAULT_MOST: u32 = 40;
/// Connections at a time, at most.
const MOST: u32 = 16384;
/// How long the socket is left alone when no connection can be taken from it, for want of descriptors or memory:
/// it stays readable, and this program would do nothing but complain.
const PAUSE: Duration = Duration::from_secs(1);

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "vcC");
    let (mut verbosity, mut notify, mut credentials) = (1, false, true);
    let (mut most, mut most_per_uid) = (DEFAULT_MOST, DEFAULT_MOST);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'v' => verbosity = value.u32()?,
            '1' => notify = true,
            'P' => credentials = false,
            'p' => credentials = true,
            'c' => most = value.u32()?,
            'C' => most_per_uid = value.u32()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let program = options.operands();
    if program.get(0).is_none_or(CStr::is_empty) {
        return Err(Die::usage());
    }
    if !socket::is_socket(fd::STDIN) {
        return Err(die!(USAGE, "standard input is not a socket"));
    }
    if notify && !fd::is_open(1) {
        return Err(die!(USAGE, "standard output is not open, so there is no place for the readiness newline"));
    }
    let most = most.clamp(1, MOST);
    let most_per_uid = if credentials { most_per_uid.min(most) } else { most };
    Server {
        verbosity,
        credentials,
        program,
        base: base_environment(),
        connections: Connections::new(most, most_per_uid),
    }
    .serve(notify)
}

/// The live connections, and the limits on them.
#[derive(Debug)]
struct Connections {
    live: Vec<Connection>,
    most: u32,
    most_per_uid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    pid: Pid,
    /// Of the client, if credentials are looked up.
    uid: Option<u32>,
}

impl Connections {
    fn new(most: u32, most_per_uid: u32) -> Self {
        Connections { live: Vec::new(), most, most_per_uid }
    }

    fn count(&self) -> u32 {
        self.live.len() as u32
    }

    /// Whether clients have to wait in the kernel's queue.
    fn is_full(&self) -> bool {
        self.count() >= self.most
    }

    fn count_of(&self, uid: u32) -> u32 {
        self.live.iter().filter(|c| c.uid == Some(uid)).count() as u32
    }

    /// Whether one more client of a user with `count` connections is served.
    fn admits(&self, count: u32) -> bool {
        count < self.most_per_uid
    }

    fn began(&mut self, pid: Pid, uid: Option<u32>) {
        self.live.push(Connection { pid, uid });
    }

    /// Forgets the connection of a process that ended; `None` if it was not one of ours.
    fn ended(&mut self, pid: Pid) -> Option<Connection> {
        let index = self.live.iter().position(|c| c.pid == pid)?;
        Some(self.live.swap_remove(index))
    }

    fn pids(&self) -> impl Iterator<Item = Pid> {
        self.live.iter().map(|c| c.pid)
    }
}

/// The variables that are different for each connection.
const PER_CONNECTION: [&[u8]; 5] = [b"PROTO", b"IPCREMOTEEUID", b"IPCREMOTEEGID", b"IPCREMOTEPATH", b"IPCCONNNUM"];

/// The environment without them.
fn base_environment() -> Vec<CPtr<'static>> {
    let name = |entry: &'static CStr| entry.to_bytes().split(|&b| b == b'=').next().unwrap_or(b"");
    cptr::strings(env::environ_list()).filter(|entry| !PER_CONNECTION.contains(&name(entry))).map(CPtr::new).collect()
}

/// `NAME=value`.
fn variable(name: &str, value: &[u8]) -> CString {
    CString::new([name.as_bytes(), b"=", value].concat()).unwrap_or_default()
}

/// A number in a log line, or `?` where credentials are not looked up.
fn shown(number: Option<u32>) -> Vec<u8> {
    number.map_or_else(|| b"?".to_vec(), |n| decimal(n).as_bytes().to_vec())
}

struct Server {
    verbosity: u32,
    credentials: bool,
    /// What serves a connection.
    program: Args,
    base: Vec<CPtr<'static>>,
    connections: Connections,
}

impl Server {
    fn serve(mut self, notify: bool) -> Result<Exit, Die> {
        let setup = || {
            use Signal::*;
            fd::set_cloexec(0, true)?;
            // Several processes may serve this socket: what poll shows may be gone when it is asked for.
            fd::set_nonblocking(fd::STDIN, true)?;
            signal::neutralise(SIGPIPE)?;
            signal::trap(&[SIGCHLD, SIGTERM, SIGHUP, SIGQUIT, SIGABRT])?;
            fd::open_missing_standard()?;
            let null = fd::open_file(c"/dev/null", OFlag::O_RDWR, 0)?;
            if notify && let Err(errno) = fd::write_all(fd::STDOUT, b"\n") {
                self.warn(errno, "unable to write the readiness newline");
            }
            // In place of closing it: no connection lands on the number of a standard descriptor.
            fd::install(null.as_fd(), 1)
        };
        setup().or_die("set up", "the server")?;
        if self.verbosity >= 2 {
            info!("starting");
            self.log_status();
        }
        let mut pause: Option<Instant> = None;
        loop {
            let listening = !self.connections.is_full() && pause.is_none();
            let mut fds = [PollFd::maybe(listening.then_some(fd::STDIN), poll::IN)];
            poll::wait(&mut fds, pause).or_die("wait for", "connections")?;
            pause = pause.filter(|&end| Instant::now() < end);
            while let Some(number) = signal::take() {
                if self.handle(number) {
                    // What has ended by now is in the log, too.
                    self.reap();
                    if self.verbosity >= 2 {
                        info!("exiting");
                    }
                    return Ok(error::OK);
                }
            }
            if fds[0].hung_up() {
                return Err(die!(SYSTEM, "trouble with socket"));
            }
            if fds[0].readable() {
                match socket::accept_with_path(fd::STDIN) {
                    Ok(client) => self.connect(client),
                    Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => {}
                    Err(errno) => {
                        self.warn(errno, "unable to accept a connection");
                        pause = Some(Instant::now() + PAUSE);
                    }
                }
            }
        }
    }

    fn warn(&self, errno: Errno, what: &str) {
        if self.verbosity >= 1 {
            warn!(errno => what);
        }
    }

    /// Does what a signal asks for; whether the server is to end.
    fn handle(&mut self, number: i32) -> bool {
        let (signals, text, end): (&[Signal], _, _) = match Signal::try_from(number) {
            Ok(Signal::SIGTERM) => (&[], "received SIGTERM, quitting", true),
            Ok(Signal::SIGHUP) => (
                &[Signal::SIGTERM, Signal::SIGCONT],
                "received SIGHUP, sending SIGTERM+SIGCONT to all connections",
                false,
            ),
            Ok(Signal::SIGQUIT) => (
                &[Signal::SIGTERM, Signal::SIGCONT],
                "received SIGQUIT, sending SIGTERM+SIGCONT to all connections and quitting",
                true,
            ),
            Ok(Signal::SIGABRT) => {
                (&[Signal::SIGKILL], "received SIGABRT, sending SIGKILL to all connections and quitting", true)
            }
            _ => {
                self.reap();
                return false;
            }
        };
        if self.verbosity >= 2 {
            info!(text);
        }
        for &signal in signals {
            for pid in self.connections.pids() {
                let _ = signal::kill(pid, signal as i32);
            }
        }
        end
    }

    fn reap(&mut self) {
        while let Some((pid, status)) = wait::reap(Which::Any) {
            if let Some(connection) = self.connections.ended(pid)
                && self.verbosity >= 2
            {
                self.log_end(connection, status);
            }
        }
    }

    /// Starts a process for a connection, unless its client has too many already. Our copy is closed on return.
    fn connect(&mut self, client: Accepted) {
        let peer = match self.credentials.then(|| peer::credentials(&client.fd)).transpose() {
            Ok(peer) => peer,
            Err(errno) => return self.warn(errno, "unable to get the credentials of a client"),
        };
        let count = peer.map(|p| self.connections.count_of(p.uid));
        if !self.connections.admits(count.unwrap_or(0)) {
            return self.log_denied(peer, count);
        }
        match self.start(&client, peer, count) {
            Ok(pid) => {
                self.connections.began(pid, peer.map(|p| p.uid));
                if self.verbosity >= 2 {
                    self.log_allowed(peer, pid, count);
                }
            }
            Err(errno) if self.verbosity >= 1 => {
                warn!(errno => "unable to spawn ", self.program.get(0).unwrap_or_default());
            }
            Err(_) => {}
        }
    }

    fn start(&self, client: &Accepted, peer: Option<Peer>, count: Option<u32>) -> Result<Pid, Errno> {
        let number = |n: Option<u32>| n.map_or_else(Vec::new, |n| decimal(n).as_bytes().to_vec());
        let mut own = vec![
            c"PROTO=IPC".to_owned(),
            variable("IPCREMOTEPATH", client.path()),
            variable("IPCCONNNUM", &number(count)),
        ];
        if let Some(peer) = peer {
            own.push(variable("IPCREMOTEEUID", decimal(peer.uid).as_bytes()));
            own.push(variable("IPCREMOTEEGID", decimal(peer.gid).as_bytes()));
        }
        let env: Vec<CPtr<'_>> =
            self.base.iter().copied().chain(own.iter().map(|v| CPtr::new(v))).chain([CPtr::NULL]).collect();
        let connection = client.fd.as_fd();
        Spawn {
            env: &env,
            redirects: &[Redirect::new(connection, 0), Redirect::new(connection, 1)],
            ..Spawn::new(self.program.list())
        }
        .start()
    }

    fn log_status(&self) {
        info!("status: ", decimal(self.connections.count()), "/", decimal(self.connections.most));
    }

    fn log_allowed(&self, peer: Option<Peer>, pid: Pid, count: Option<u32>) {
        let (uid, gid) = (shown(peer.map(|p| p.uid)), shown(peer.map(|p| p.gid)));
        let (pid, count) = (decimal(pid.as_raw() as u32), shown(count.map(|c| c + 1)));
        info!("allow ", uid, ":", gid, " pid ", pid, " count ", count, "/", decimal(self.connections.most_per_uid));
        self.log_status();
    }

    /// Said at every verbosity: a client was turned away.
    fn log_denied(&self, peer: Option<Peer>, count: Option<u32>) {
        let (uid, gid) = (shown(peer.map(|p| p.uid)), shown(peer.map(|p| p.gid)));
        let limit = decimal(self.connections.most_per_uid);
        error::report(
            "info: ",
            &[&"deny ", &uid, &":", &gid, &" count ", &shown(count), &"/", &limit],
            Some(Errno::EAGAIN),
        );
    }

    fn log_end(&self, connection: Connection, status: WaitStatus) {
        let (pid, uid) = (decimal(connection.pid.as_raw() as u32), shown(connection.uid));
        match status.signal() {
            Some(signal) => info!("end pid ", pid, " uid ", uid, " signal ", decimal(signal)),
            None => info!("end pid ", pid, " uid ", uid, " exitcode ", decimal(status.code().unwrap_or(0))),
        }
        self.log_status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Event {
        Client(u32),
        End(prop::sample::Index),
        StrangerEnd,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..4u32).prop_map(Event::Client),
            3 => any::<prop::sample::Index>().prop_map(Event::End),
            1 => Just(Event::StrangerEnd),
        ]
    }

    proptest! {
        /// However clients come and go, neither limit is passed, nobody is turned away below the limit of its own
        /// user, and the counts are those of the processes that live.
        #[test]
        fn limits_hold(most in 1..6u32, most_per_uid in 0..6u32, events in prop::collection::vec(event(), 0..80)) {
            let mut connections = Connections::new(most, most_per_uid.min(most));
            let mut model: Vec<(i32, u32)> = Vec::new();
            let mut next = 100;
            for event in events {
                match event {
                    Event::Client(uid) if !connections.is_full() => {
                        let count = model.iter().filter(|c| c.1 == uid).count() as u32;
                        prop_assert_eq!(connections.count_of(uid), count);
                        prop_assert_eq!(connections.admits(count), count < most_per_uid.min(most));
                        if connections.admits(count) {
                            next += 1;
                            connections.began(Pid::from_raw(next), Some(uid));
                            model.push((next, uid));
                        }
                    }
                    Event::Client(_) => prop_assert_eq!(model.len() as u32, most),
                    Event::End(_) if model.is_empty() => {}
                    Event::End(which) => {
                        let (pid, uid) = model.remove(which.index(model.len()));
                        let pid = Pid::from_raw(pid);
                        prop_assert_eq!(connections.ended(pid), Some(Connection { pid, uid: Some(uid) }));
                    }
                    Event::StrangerEnd => prop_assert_eq!(connections.ended(Pid::from_raw(7)), None),
                }
                prop_assert_eq!(connections.count(), model.len() as u32);
                prop_assert!(connections.count() <= most);
            }
        }
    }
}
