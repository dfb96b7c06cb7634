//! s6-svscan: keeps a supervisor on every service directory of a scan directory, and a pipe between each service and
//! its logger (spec/supervision.md 4). Runs as process 1 as well as anywhere.
//!
//! [`core`] knows the services; this file is the shell: it scans, starts, reaps, listens to signals and to the
//! control fifo. Commands only set what is wanted; each turn of the loop then does it in a fixed order, so that two
//! that come together cannot get into each other's way.

pub mod core;
mod deaths;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::stat::{Mode, stat, umask};
use nix::unistd::{AccessFlags, access, mkdir, unlink};

use self::core::{Forgotten, Found, Id, Role, Slot, Table, Whom};
use self::deaths::Deaths;
use super::supervise::setup;
use crate::cli::{Args, Long, Options};
use crate::error::{self, Die, Exit, OK, OrDie, Program};
use crate::events::fifodir;
use crate::servicedir::files;
use crate::sys::cptr::CPtr;
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::spawn::{self, Redirect, Spawn};
use crate::sys::{Pid, dir, exec, fd};
use crate::{die, info, start, text, warn};

/// Supervises a scan directory until told to end.
pub const PROGRAM: Program = Program {
    name: "s6-svscan",
    usage: "s6-svscan [ -d notif ] [ -X consoleholder ] [ -C services_max ] [ -L name_max ] [ -t rescan ] scandir",
    run,
};

const LONG: &[Long] =
    &[("services-max", 'C'), ("name-max", 'L'), ("timeout", 't'), ("notification-fd", 'd'), ("console-holder", 'X')];

const FINISH: &CStr = c".s6-svscan/finish";
const CRASH: &CStr = c".s6-svscan/crash";

/// Waits after a scan that could not do everything: an unreadable directory, an unreadable entry, no pipe, no room,
/// an old logger in the way.
const NO_DIRECTORY: Duration = Duration::from_secs(5);
const NO_ENTRY: Duration = Duration::from_secs(4);
const NO_PIPE: Duration = Duration::from_secs(3);
const NO_ROOM: Duration = Duration::from_secs(60);
const BLOCKED: Duration = Duration::from_secs(10);

/// The least number of a descriptor that there is one of for each service.
const MANY: RawFd = 64;

/// Command bytes that are read in one turn of the loop.
const COMMANDS: usize = 256;

struct Config {
    notification: Option<OwnedFd>,
    console: Option<OwnedFd>,
    services_max: usize,
    name_max: usize,
    rescan: Option<Duration>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "dXCLt", LONG);
    let (mut notification, mut console, mut services_max, mut name_max, mut rescan) = (None, None, 1000, 251, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'd' => notification = Some(value.u32()?),
            'X' => console = Some(value.u32()?),
            'C' => services_max = value.u32()?.clamp(4, 160_000) as usize,
            'L' => name_max = value.u32()?.clamp(11, 1019) as usize,
            't' => rescan = value.limit()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let scandir = options.operands().get(0).ok_or_else(Die::usage)?;
    if notification.is_some() && notification == console {
        return Err(die!(100, "the notification descriptor is closed soon, and cannot be the console holder"));
    }
    let config = Config {
        notification: notification.map(|n| inherited("notification", n)).transpose()?,
        console: console.map(|n| inherited("console holder", n)).transpose()?,
        services_max,
        name_max,
        rescan,
    };

    fd::open_missing_standard().or_die("open", "/dev/null")?;
    nix::unistd::chdir(scandir).or_die("enter the scan directory", scandir)?;
    let mut shell = Shell::begin(config)?;
    start::on_panic(|| {
        signal::untrap();
        exec::exec(&[CPtr::new(CRASH), CPtr::NULL], crate::sys::env::environ_list());
    });
    loop {
        match shell.turn() {
            Ok(None) => {}
            Ok(Some(end)) => return end,
            Err(die) => {
                die.warn();
                return Err(shell.crash());
            }
        }
    }
}

/// A descriptor that the parent left for us: 3 or more, and open.
fn inherited(what: &str, number: u32) -> Result<OwnedFd, Die> {
    if number < 3 {
        return Err(die!(100, "the ", what, " descriptor must be 3 or more"));
    }
    let number = i32::try_from(number).unwrap_or(-1);
    fd::inherited(number).or_die_with(100, "use the descriptor given for the", what)
}

/// How the scanner ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// When the last supervisor is gone.
    AfterAll,
    /// Now.
    AtOnce,
}

/// What commands and signals asked for, until it is done.
#[derive(Clone, Copy, Default)]
struct Wanted {
    reap: bool,
    scan: bool,
    /// Tell inactive services to end; true: loggers by SIGTERM too.
    prune: Option<bool>,
    /// End; true: loggers by SIGTERM too.
    end: Option<(End, bool)>,
}

impl Wanted {
    /// Notes what a control byte asks for; false if it means nothing.
    fn command(&mut self, byte: u8) -> bool {
        match byte {
            b'z' => self.reap = true,
            b'a' => self.scan = true,
            b'b' => self.end = Some((End::AtOnce, false)),
            b'h' => return self.command(b'a') && self.command(b'n'),
            b'i' | b't' => self.end = self.end.or(Some((End::AfterAll, false))),
            b'q' => self.end = self.end.or(Some((End::AfterAll, true))),
            b'n' => self.prune = Some(self.prune.unwrap_or(false)),
            b'N' => self.prune = Some(true),
            _ => return false,
        }
        true
    }
}

struct Shell {
    table: Table,
    deaths: Deaths,
    /// Where the numbers begin of descriptors that there is one of for each service, pipes and pidfds. A child never
    /// gets those, so that a start does not take longer the more there are. None where the kernel cannot do that.
    many: Option<RawFd>,
    /// Pipes by the slot of the logged service: (read end, write end).
    pipes: Vec<Option<(OwnedFd, OwnedFd)>>,
    wanted: Wanted,
    /// Set once, when the end was asked for.
    ending: Option<End>,
    /// A scan that could not do everything is due again.
    scan_again: Option<Instant>,
    control: OwnedFd,
    _writer: OwnedFd,
    _lock: OwnedFd,
    console: Option<OwnedFd>,
    name_max: usize,
    rescan: Option<Duration>,
}

impl Shell {
    fn begin(config: Config) -> Result<Shell, Die> {
        let before = umask(Mode::empty());
        let made = prepare();
        umask(before);
        let (lock, control, writer) = made?;
        // Whoever reads our messages, or the notification, may go away: that does not end us.
        fifodir::ignore_vanishing_readers();
        error::wait_for_no_reader();
        let mut trapped = vec![Signal::SIGCHLD, Signal::SIGALRM, Signal::SIGABRT];
        trapped.extend(SCRIPTS.iter().map(|&(signal, ..)| signal));
        signal::trap(&trapped).or_die("trap", "signals")?;
        remove_dangling_links()?;
        if let Some(notification) = config.notification
            && let Err(errno) = fd::write_all(&notification, b"\n")
        {
            warn!(errno => "unable to notify readiness");
        }
        let many = spawn::can_leave_behind().then(above_inherited);
        Ok(Shell {
            table: Table::new(config.services_max),
            deaths: Deaths::new(many),
            many,
            pipes: Vec::new(),
            wanted: Wanted { scan: true, ..Wanted::default() },
            ending: None,
            scan_again: None,
            control,
            _writer: writer,
            _lock: lock,
            console: config.console,
            name_max: config.name_max,
            rescan: config.rescan,
        })
    }

    /// One turn: do what is wanted, wait, note what comes. The end, if it has come.
    fn turn(&mut self) -> Result<Option<Result<Exit, Die>>, Die> {
        if std::mem::take(&mut self.wanted.reap) || self.deaths.deadline().is_some_and(|at| at <= Instant::now()) {
            self.reap();
        }
        if let Some((end, hard)) = self.wanted.end.take()
            && self.ending.is_none()
        {
            self.end(end, hard);
        }
        if let Some(end) = self.ending {
            if end == End::AtOnce || !self.table.any_running() {
                return Ok(Some(self.finish()));
            }
        } else {
            self.keep()?;
        }

        let keeping = match self.ending {
            Some(_) => [None, None],
            None => [self.table.deadline(), self.scan_again],
        };
        let deadline = keeping.into_iter().chain([self.deaths.deadline()]).flatten().min();
        let mut fds = [PollFd::new(self.control.as_fd(), poll::IN)];
        poll::wait(&mut fds, deadline).or_die("poll", "")?;
        while let Some(number) = signal::take() {
            self.signal(number);
        }
        if fds[0].readable() {
            self.read_commands()?;
        }
        Ok(None)
    }

    /// Scans, prunes and starts as wanted and as due.
    fn keep(&mut self) -> Result<(), Die> {
        let now = Instant::now();
        if std::mem::take(&mut self.wanted.scan) || self.scan_again.is_some_and(|at| at <= now) {
            let complete = self.scan(now);
            if !complete {
                // What it did not see may not be pruned; the next scan will tell.
                self.start_due();
                return Ok(());
            }
        }
        if let Some(hard) = self.wanted.prune.take() {
            self.send_end(Whom::Inactive, hard);
        }
        self.start_due();
        Ok(())
    }

    fn signal(&mut self, number: i32) {
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => self.wanted.reap = true,
            _ if self.ending.is_some() => {}
            Ok(Signal::SIGALRM) => self.wanted.scan = true,
            Ok(Signal::SIGABRT) => {
                self.wanted.command(b'b');
            }
            Ok(signal) => {
                let Some(&(_, script, command)) = SCRIPTS.iter().find(|(known, ..)| *known == signal) else { return };
                if !self.run_script(script)
                    && let Some(command) = command
                {
                    self.wanted.command(command);
                }
            }
            Err(_) => {}
        }
    }

    /// Starts the script of a signal, without waiting for it; false if there is none that can run.
    fn run_script(&mut self, script: &CStr) -> bool {
        if access(script, AccessFlags::X_OK).is_err() {
            return false;
        }
        match (Spawn { leave_behind: self.many, ..Spawn::new(&[CPtr::new(script), CPtr::NULL]) }).start() {
            Ok(pid) => self.deaths.watch(pid),
            Err(errno) => {
                warn!(errno => "unable to start ", script, files::obstacle(script, errno));
                return false;
            }
        }
        true
    }

    fn read_commands(&mut self) -> Result<(), Die> {
        let mut buffer = [0; COMMANDS];
        let count = match fd::read(&self.control, &mut buffer) {
            Ok(count) => count,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(die!(111, errno => "unable to read .s6-svscan/control")),
        };
        let unknown = buffer[..count].iter().filter(|&&byte| !self.wanted.command(byte)).count();
        if unknown != 0 {
            warn!("ignoring ", text::decimal(unknown as u64), " bytes on the control fifo that are no commands");
        }
        Ok(())
    }

    /// Takes every dead child, ours or not.
    fn reap(&mut self) {
        let now = Instant::now();
        let Shell { table, deaths, pipes, wanted, .. } = self;
        deaths.reap(now, |pid| {
            if let Some(forgotten) = table.died(now, pid.as_raw()) {
                drop_pipe(pipes, forgotten);
                wanted.scan |= table.is_blocked();
            }
        });
    }

    /// Looks at every entry. What is wrong with one is a warning and leaves out that one. False if something could
    /// not be seen, so that what was not found may still be there.
    fn scan(&mut self, now: Instant) -> bool {
        self.scan_again = self.rescan.map(|period| now + period);
        self.table.begin_scan();
        let mut complete = true;
        let listed = dir::for_each(c".", |name| {
            if !name.to_bytes().starts_with(b".") {
                complete &= self.entry(now, name);
            }
            Ok(())
        });
        if let Err(errno) = listed {
            warn!(errno => "unable to read the scan directory");
            self.again(now, NO_DIRECTORY);
            complete = false;
        }
        self.table.end_scan(complete, |forgotten| drop_pipe(&mut self.pipes, forgotten));
        complete
    }

    /// Takes one entry of the scan directory. False if it could not be seen for a reason that may pass.
    fn entry(&mut self, now: Instant, name: &CStr) -> bool {
        if name.to_bytes().len() > self.name_max {
            warn!("ignoring ", name, ": the name is longer than ", text::decimal(self.name_max as u64), " bytes");
            return true;
        }
        let id = match directory(name) {
            Ok(Some(id)) => id,
            Ok(None) => return true,
            Err(errno) => return self.unseen(now, name, errno),
        };
        let log_name = core::log_name(name);
        let log = match directory(&log_name) {
            Ok(log) => log,
            Err(Errno::ENOENT) => None,
            Err(errno) => return self.unseen(now, &log_name, errno),
        };
        match self.table.found(now, name, id, log) {
            Found::Known | Found::Added { pipe: None } => {}
            Found::Added { pipe: Some(slot) } => self.make_pipe(now, name, slot),
            Found::Blocked => {
                warn!("not starting ", name, " with its logger: an earlier logger of it still runs");
                self.again(now, BLOCKED);
            }
            Found::Full => {
                warn!("ignoring ", name, ": there are as many services as -C allows");
                self.again(now, NO_ROOM);
            }
            Found::NoMemory => {
                warn!(Errno::ENOMEM => "ignoring ", name);
                self.again(now, NO_DIRECTORY);
            }
        }
        true
    }

    /// An entry that cannot be looked at: for good (a dangling link, no permission) or for the moment.
    fn unseen(&mut self, now: Instant, name: &CStr, errno: Errno) -> bool {
        warn!(errno => "ignoring ", name);
        let for_good = matches!(errno, Errno::ENOENT | Errno::ELOOP | Errno::EACCES | Errno::ENAMETOOLONG);
        if !for_good {
            self.again(now, NO_ENTRY);
        }
        for_good
    }

    fn again(&mut self, now: Instant, after: Duration) {
        self.scan_again = Some(self.scan_again.map_or(now + after, |at| at.min(now + after)));
    }

    fn make_pipe(&mut self, now: Instant, name: &CStr, slot: Slot) {
        let missing = (slot + 1).saturating_sub(self.pipes.len());
        let made = match self.pipes.try_reserve(missing) {
            Ok(()) => fd::pipe().map(|(reader, writer)| (self.out_of_the_way(reader), self.out_of_the_way(writer))),
            Err(_) => Err(Errno::ENOMEM),
        };
        match made {
            Ok(pipe) => {
                self.pipes.resize_with(self.pipes.len().max(slot + 1), || None);
                self.pipes[slot] = Some(pipe);
            }
            Err(errno) => {
                warn!(errno => "ignoring ", name, ": unable to make the pipe to its logger");
                self.table.undo(slot);
                self.again(now, NO_PIPE);
            }
        }
    }

    /// Gives a descriptor a number among the many. If there is none, the watches on children make room.
    fn out_of_the_way(&mut self, fd: OwnedFd) -> OwnedFd {
        let Some(many) = self.many else { return fd };
        match fd::duplicate(&fd, many) {
            Ok(high) => high,
            Err(_) if self.deaths.give_up() => fd::duplicate(&fd, many).unwrap_or(fd),
            Err(_) => fd,
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        while let Some(slot) = self.table.next_due(now) {
            match self.start(slot) {
                Ok(pid) => {
                    self.table.started(Instant::now(), slot, pid.as_raw());
                    self.deaths.watch(pid);
                }
                Err(errno) => {
                    if let Some(service) = self.table.get(slot) {
                        warn!(errno => "unable to start s6-supervise for ", service.name(), ", trying again in 10 seconds");
                    }
                    self.table.start_failed(now, slot);
                }
            }
        }
    }

    fn start(&self, slot: Slot) -> Result<Pid, Errno> {
        let Some(service) = self.table.get(slot) else { return Err(Errno::ENOENT) };
        let pipe = |slot: Slot| self.pipes.get(slot).and_then(Option::as_ref);
        let end = match service.role() {
            Role::Logged { .. } => pipe(slot).map(|(_, writer)| (writer, 1)),
            Role::Logger { producer } => producer.and_then(pipe).map(|(reader, _)| (reader, 0)),
            Role::Plain => None,
        };
        // Below the many, if there is room, for the child gets all up to what it is to have.
        let low = end.and_then(|(end, _)| fd::duplicate(end, 3).ok());
        let redirect = end.map(|(end, to)| Redirect::new(low.as_ref().unwrap_or(end).as_fd(), to));
        let console = self.console().filter(|_| service.name() == core::CATCH_ALL);
        let console = console.map(|console| Redirect::new(console, 2));
        let (one, both) = (redirect.or(console), redirect.zip(console).map(|(pipe, console)| [pipe, console]));
        let redirects = both.as_ref().map_or(one.as_slice(), |both| both);
        let argv = [CPtr::new(c"s6-supervise"), CPtr::new(service.name()), CPtr::NULL];
        Spawn { redirects, leave_behind: self.many, ..Spawn::new(&argv) }.start()
    }

    fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().map(AsFd::as_fd)
    }

    /// Tells supervisors to end: by SIGTERM, or, if not `hard`, by SIGHUP where the service ends by end of file.
    fn send_end(&self, whom: Whom, hard: bool) {
        for (pid, is_logger) in self.table.signals(whom) {
            let number = if is_logger && !hard { libc::SIGHUP } else { libc::SIGTERM };
            let _ = signal::kill(Pid::from_raw(pid), number);
        }
    }

    /// The beginning of the end: loggers get end of file once those who write are gone, and so does the catch-all.
    fn end(&mut self, end: End, hard: bool) {
        self.ending = Some(end);
        if end == End::AfterAll {
            self.send_end(Whom::All, hard);
        }
        self.pipes.clear();
        let mut standard: Vec<(i32, BorrowedFd<'_>)> = Vec::new();
        let null = fd::open_file(c"/dev/null", nix::fcntl::OFlag::O_RDWR, 0);
        if self.table.has(core::CATCH_ALL)
            && let Ok(null) = &null
        {
            standard.extend([(1, null.as_fd()), (2, null.as_fd())]);
        }
        if let Some(console) = self.console() {
            standard.extend([(2, console), (1, console)]);
        }
        for (number, fd) in standard {
            let _ = fd::install(fd, number);
        }
        self.table.close();
    }

    /// Becomes `.s6-svscan/finish`, or, if that is there but cannot be executed, `.s6-svscan/crash`.
    fn finish(&self) -> Result<Exit, Die> {
        signal::untrap();
        match execute(FINISH) {
            Errno::ENOENT if !files::exists(FINISH) => Ok(OK),
            errno => {
                warn!(errno => "unable to execute ", FINISH, files::obstacle(FINISH, errno));
                Err(self.crash())
            }
        }
    }

    /// Becomes `.s6-svscan/crash`; returns only if that fails.
    fn crash(&self) -> Die {
        signal::untrap();
        let errno = execute(CRASH);
        die!(crate::error::exec_code(errno), errno => "unable to execute ", CRASH)
    }
}

fn execute(file: &CStr) -> Errno {
    exec::exec(&[CPtr::new(file), CPtr::NULL], crate::sys::env::environ_list())
}

/// Signals that a script may take over, and the command that they otherwise are.
const SCRIPTS: &[(Signal, &CStr, Option<u8>)] = &[
    (Signal::SIGHUP, c".s6-svscan/SIGHUP", Some(b'h')),
    (Signal::SIGINT, c".s6-svscan/SIGINT", Some(b'i')),
    (Signal::SIGTERM, c".s6-svscan/SIGTERM", Some(b't')),
    (Signal::SIGQUIT, c".s6-svscan/SIGQUIT", Some(b'q')),
    (Signal::SIGUSR1, c".s6-svscan/SIGUSR1", None),
    (Signal::SIGUSR2, c".s6-svscan/SIGUSR2", None),
    #[cfg(target_os = "linux")]
    (Signal::SIGPWR, c".s6-svscan/SIGPWR", None),
    (Signal::SIGWINCH, c".s6-svscan/SIGWINCH", None),
];

/// The first number, from [`MANY`] on, above all that our parent left open: children inherit that.
fn above_inherited() -> RawFd {
    let mut above = MANY;
    let _ = dir::for_each(c"/proc/self/fd", |name| {
        let number = text::parse_u32(name.to_bytes()).and_then(|number| RawFd::try_from(number).ok());
        above = above.max(number.map_or(0, |number| number + 1));
        Ok(())
    });
    above
}

/// The control directory, its lock and its fifo: (lock, read end, write end).
fn prepare() -> Result<(OwnedFd, OwnedFd, OwnedFd), Die> {
    let control = c".s6-svscan";
    match mkdir(control, Mode::S_IRWXU) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = stat(control).or_die("examine", control)?;
            if !dir::is_directory(&found) {
                return Err(die!(100, control, " exists and is not a directory"));
            }
        }
        Err(errno) => return Err(die!(111, errno => "unable to make the directory ", control)),
    }
    let lock = setup::lock_file(c".s6-svscan/lock", 0o600)?;
    let (reader, writer) = setup::control_fifo(c".s6-svscan/control")?;
    Ok((lock, reader, writer))
}

/// Removes links that point nowhere, once, at the start.
fn remove_dangling_links() -> Result<(), Die> {
    let listed = dir::for_each(c".", |name| {
        if !name.to_bytes().starts_with(b".") && access(name, AccessFlags::F_OK) == Err(Errno::ENOENT) {
            info!("removing the dangling link ", name);
            if let Err(errno) = unlink(name) {
                warn!(errno => "unable to remove ", name);
            }
        }
        Ok(())
    });
    listed.or_die("read the scan directory", "")
}

/// The identity of a directory; `None` for anything else.
fn directory(name: &CStr) -> Result<Option<Id>, Errno> {
    let found = stat(name)?;
    Ok(dir::is_directory(&found).then_some(Id { device: found.st_dev as u64, inode: found.st_ino as u64 }))
}

/// A pipe is kept as long as the service and the logger are both known.
fn drop_pipe(pipes: &mut [Option<(OwnedFd, OwnedFd)>], forgotten: Forgotten) {
    if let Some(pipe) = forgotten.pipe.and_then(|slot| pipes.get_mut(slot)) {
        *pipe = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(commands: &[u8]) -> Wanted {
        let mut wanted = Wanted::default();
        assert!(commands.iter().all(|&byte| wanted.command(byte)));
        wanted
    }

    #[test]
    fn a_hard_prune_is_not_softened_by_another_one() {
        for (commands, prune) in [("h", false), ("an", false), ("Nh", true), ("hN", true), ("aNn", true)] {
            let wanted = wanted(commands.as_bytes());
            assert_eq!((wanted.scan, wanted.prune), (true, Some(prune)), "{commands}");
        }
    }
}
