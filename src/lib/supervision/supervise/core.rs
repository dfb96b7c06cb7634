//! What s6-supervise decides: events in, actions out; no I/O, no clock, no allocation (spec/supervision.md 3).
//!
//! The shell performs the actions in order and hands back what came of one that can fail as the next event. The core
//! sees one child at a time, run or finish; that a daemon may fork itself away from run is the shell's affair.

use std::time::{Duration, Instant};

use crate::servicedir::status::Status;
use crate::sys::wait::WaitStatus;
use crate::tai::Tai64n;

/// The least time between the readiness of one run, or its end if it never was ready, and the next start.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait after a run that could not be started.
const RETRY: Duration = Duration::from_secs(60);
/// The wait before what did not die of SIGKILL is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(5);
/// The exit code by which finish says that the service is not to be started again.
const PERMANENT_FAILURE: u8 = 125;

/// What the service is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing runs.
    Down,
    /// run runs.
    Up,
    /// finish runs.
    Finish,
    /// run runs, and the supervisor leaves when it is over.
    LastUp,
    /// finish runs, and the supervisor leaves when it is over.
    LastFinish,
}

/// The columns of the table: what counts for most commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Down,
    Up,
    Finish,
}

impl State {
    fn column(self) -> Column {
        match self {
            State::Down => Column::Down,
            State::Up | State::LastUp => Column::Up,
            State::Finish | State::LastFinish => Column::Finish,
        }
    }
}

/// A letter of the control fifo.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `a b q h k t i 1 2 y`: this signal to the process.
    Signal(i32),
    /// `p`.
    Pause,
    /// `c`.
    Continue,
    /// `P`.
    PauseGroup,
    /// `C`.
    ContinueGroup,
    /// `K`.
    KillGroup,
    /// `r`.
    Restart,
    /// `l`.
    Reload,
    /// `d`.
    Down,
    /// `u`.
    Up,
    /// `o`.
    Once,
    /// `O`.
    OnceAtMost,
    /// `D`.
    DownForGood,
    /// `U`.
    UpForGood,
    /// `Q`.
    OnceForGood,
    /// `x`.
    Exit,
    /// `F`.
    EmptyStore,
}

impl Command {
    /// The command of a byte; `None` for bytes that mean nothing.
    pub fn parse(byte: u8) -> Option<Command> {
        Some(match byte {
            b'a' => Command::Signal(libc::SIGALRM),
            b'b' => Command::Signal(libc::SIGABRT),
            b'q' => Command::Signal(libc::SIGQUIT),
            b'h' => Command::Signal(libc::SIGHUP),
            b'k' => Command::Signal(libc::SIGKILL),
            b't' => Command::Signal(libc::SIGTERM),
            b'i' => Command::Signal(libc::SIGINT),
            b'1' => Command::Signal(libc::SIGUSR1),
            b'2' => Command::Signal(libc::SIGUSR2),
            b'y' => Command::Signal(libc::SIGWINCH),
            b'p' => Command::Pause,
            b'c' => Command::Continue,
            b'P' => Command::PauseGroup,
            b'C' => Command::ContinueGroup,
            b'K' => Command::KillGroup,
            b'r' => Command::Restart,
            b'l' => Command::Reload,
            b'd' => Command::Down,
            b'u' => Command::Up,
            b'o' => Command::Once,
            b'O' => Command::OnceAtMost,
            b'D' => Command::DownForGood,
            b'U' => Command::UpForGood,
            b'Q' => Command::OnceForGood,
            b'x' => Command::Exit,
            b'F' => Command::EmptyStore,
            _ => return None,
        })
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The supervisor is set up: the first event.
    Begin,
    /// The deadline passed.
    Timer,
    /// The child, run or finish, ended.
    Died(WaitStatus),
    /// The service said that it is ready.
    Ready,
    /// run went away as it should and left a daemon: the time in which it must be ready is over.
    Forked,
    /// The service's main process is now this one.
    MainIs(i32),
    /// The service reloads its configuration, and will say that it is ready again.
    Reloading,
    /// The service has reloaded its configuration, from beginning to end.
    Reloaded,
    /// The service goes down of its own accord.
    Stopping,
    /// What the service or finish is given time for may take that long from now.
    Extend(Duration),
    /// The service says that it works, as it must from time to time.
    Ping,
    /// The service says that it does not work.
    Trigger,
    /// From now on the service must say that it works within this time.
    PingWithin(Option<Duration>),
    /// A letter came.
    Command(Command),
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    HangUp,
    /// SIGQUIT.
    Quit,
    /// SIGINT.
    Interrupt,
    /// What came of [`Action::Start`].
    Started {
        /// run's process.
        pid: i32,
        /// How long it may take to become ready.
        ready_within: Option<Duration>,
        /// How often it must say that it works, once it is ready.
        ping_within: Option<Duration>,
    },
    /// run cannot be started before this time is over: what the last one left is still there.
    StartLater(Duration),
    /// run could not be started now.
    StartFailed,
    /// The service directory forbids a start: it is of no use to try again by oneself.
    StartRefused,
    /// What came of [`Action::StartFinish`].
    FinishStarted {
        /// finish's process.
        pid: i32,
        /// How long it may take.
        limit: Option<Duration>,
    },
    /// There is no finish that could run.
    NoFinish,
    /// What came of [`Action::ArmKill`].
    KillAfter(Option<Duration>),
}

/// Whom a signal is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The main process.
    Process,
    /// Its process group.
    Group,
}

/// What a service says of itself while it is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Nothing yet.
    Starting,
    /// It can be used.
    Ready,
    /// It can be used, and reads its configuration again.
    Reloading,
    /// It goes down. Nothing that it says after that counts.
    Stopping,
}

/// Why a run ended (spec/sd-notify-and-fdstore.md 4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// It exited 0, or was told to by SIGHUP, SIGINT, SIGTERM or SIGPIPE.
    #[default]
    Success,
    /// With another code.
    Exit,
    /// By another signal.
    Signal,
    /// It did not say that it worked, or said that it did not.
    Watchdog,
    /// It was not ready in time.
    TimeoutReady,
    /// It exited 0 before it was ready.
    Protocol,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start run; answer with Started, StartLater, StartFailed or StartRefused.
    Start {
        /// The last answer was StartLater.
        again: bool,
    },
    /// Start finish for a run that ended so; answer with FinishStarted or NoFinish.
    StartFinish {
        /// run's process.
        pid: i32,
        /// How run ended.
        status: WaitStatus,
    },
    /// Send a signal.
    Send(Target, i32),
    /// Send the down signal.
    SendDown,
    /// Send the reload signal.
    SendReload,
    /// Read how long the service has before it is killed; answer with KillAfter.
    ArmKill,
    /// SIGKILL, then SIGCONT, to the process, or to its group if the directory says so.
    KillService,
    /// Warn that finish takes too long; SIGCONT, then SIGKILL to it.
    KillFinish,
    /// Warn that the service did not become ready in time.
    NotReadyInTime,
    /// Warn that the service does not work; send the watchdog signal, then SIGCONT.
    SendWatchdog,
    /// Add a death to the tally.
    RecordDeath(Tai64n, WaitStatus, Outcome),
    /// Close the notification pipe: nobody is to be ready any more.
    CloseNotification,
    /// Replace the status file.
    WriteStatus,
    /// Send letters to those who listen.
    Notify(&'static str),
    /// Make the file `down`.
    CreateDown,
    /// Remove the file `down`.
    RemoveDown,
    /// Put /dev/null in the place of stdin and stdout.
    CloseStdio,
    /// Close all stored descriptors.
    EmptyStore,
    /// Warn that the store of a service that is up is not emptied.
    RefuseToEmptyStore,
    /// Send `x` and exit.
    Leave,
}

/// The actions of one event, in order.
#[derive(Clone, Copy, Debug)]
pub struct Actions {
    list: [Action; Actions::MOST],
    count: usize,
}

impl Actions {
    const MOST: usize = 8;

    fn none() -> Self {
        Actions { list: [Action::Leave; Actions::MOST], count: 0 }
    }

    fn push(&mut self, action: Action) {
        self.list[self.count] = action;
        self.count += 1;
    }
}

impl std::ops::Deref for Actions {
    type Target = [Action];

    fn deref(&self) -> &[Action] {
        &self.list[..self.count]
    }
}

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub clock: Instant,
    /// For the status file.
    pub stamp: Tai64n,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        Now { clock: Instant::now(), stamp: Tai64n::now() }
    }
}

/// The supervisor of one service.
#[derive(Debug)]
pub struct Core {
    state: State,
    status: Status,
    /// A command set the wanted bit, and the status that says so comes with the outcome of the start.
    untold: bool,
    /// Next start, while down. None: only a command starts the service.
    start_at: Option<Instant>,
    /// That start has begun already, and waits.
    begun: bool,
    /// When the service, or finish, is killed.
    kill_at: Option<Instant>,
    /// When the service must have become ready.
    ready_by: Option<Instant>,
    /// When this run became ready.
    ready_since: Option<Instant>,
    /// What the service says of itself, while it is up.
    phase: Phase,
    /// How often it must say that it works.
    ping_within: Option<Duration>,
    /// When it must have said so. Only for a service that is ready and not on its way down.
    ping_by: Option<Instant>,
    /// Why it is on its way down: it was told to, or said so, or failed.
    ending: Option<Ending>,
    /// Another process took the place of run.
    succeeded: bool,
}

/// Why a service that is up will not stay so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// Somebody wants it down, or it said that it stops.
    Wanted,
    /// It was not ready in time.
    NotReady,
    /// It did not say that it works.
    Watchdog,
}

impl Core {
    /// A supervisor whose service is to be up, or, with a `down` file, to stay down.
    pub fn new(wanted_up: bool, now: Tai64n) -> Self {
        Core {
            state: State::Down,
            untold: false,
            status: Status { stamp: now, readystamp: now, wanted_up, ready: true, ..Status::default() },
            start_at: None,
            begun: false,
            kill_at: None,
            ready_by: None,
            ready_since: None,
            phase: Phase::Starting,
            ping_within: None,
            ping_by: None,
            ending: None,
            succeeded: false,
        }
    }

    /// What the status file is to say. Before the first event, that the service was never started.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// What the service is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the service says of itself; `None` when it is not up.
    pub fn phase(&self) -> Option<Phase> {
        (self.state.column() == Column::Up).then_some(self.phase)
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state.column() {
            Column::Down => self.start_at,
            Column::Up => [self.kill_at, self.ready_by, self.ping_by].into_iter().flatten().min(),
            Column::Finish => self.kill_at,
        }
    }

    /// Takes one event and says what to do about it.
    pub fn handle(&mut self, now: Now, event: Event) -> Actions {
        let mut out = Actions::none();
        let out = &mut out;
        let column = self.state.column();
        match (event, column) {
            (Event::Begin, _) => {
                if self.status.wanted_up {
                    self.start(out);
                }
            }

            (Event::Timer, Column::Down) => {
                self.start_at = None;
                if self.status.wanted_up || self.begun {
                    self.start(out);
                }
            }
            (Event::Timer, Column::Up) => self.timer_while_up(now, out),
            (Event::Timer, Column::Finish) => {
                self.kill_at = Some(now.clock + KILL_AGAIN);
                out.push(Action::KillFinish);
            }

            (Event::Died(_), Column::Down) => {}
            (Event::Died(status), Column::Up) => self.run_died(now, status, out),
            (Event::Died(status), Column::Finish) => self.finish_died(now, status, out),

            (Event::Ready, Column::Up) => self.became_ready(now, out),
            (Event::Reloading, Column::Up) => self.began_to_reload(),
            (Event::Reloaded, Column::Up) => {
                self.began_to_reload();
                self.became_ready(now, out);
            }
            (Event::Stopping, Column::Up) => self.began_to_stop(out),
            (Event::Ping, Column::Up) => self.wait_for_ping(now),
            (Event::PingWithin(interval), Column::Up) => {
                self.ping_within = interval;
                self.wait_for_ping(now);
            }
            (Event::Trigger, Column::Up) => self.failed(out),
            (Event::Extend(time), Column::Up | Column::Finish) => {
                for deadline in [&mut self.ready_by, &mut self.kill_at, &mut self.ping_by] {
                    *deadline = deadline.map(|at| at.max(now.clock + time));
                }
            }
            (Event::Forked, _) => self.ready_by = None,
            (Event::MainIs(pid), Column::Up) => {
                self.succeeded = true;
                self.status.pid = pid as u64;
                out.push(Action::WriteStatus);
            }
            (Event::Extend(_), Column::Down)
            | (
                Event::Ready
                | Event::Reloading
                | Event::Reloaded
                | Event::Stopping
                | Event::Ping
                | Event::PingWithin(_)
                | Event::Trigger
                | Event::MainIs(_),
                Column::Down | Column::Finish,
            ) => {}

            (Event::Command(command), _) => self.command(now, command, out),

            (Event::Terminate, Column::Down) => out.push(Action::Leave),
            (Event::Terminate, Column::Up) => {
                self.state = State::LastUp;
                self.command(now, Command::Down, out);
            }
            (Event::Terminate, Column::Finish) => {
                if self.state == State::Finish {
                    self.command(now, Command::Exit, out);
                }
            }
            (Event::HangUp, _) => self.command(now, Command::Exit, out),
            (Event::Quit, _) | (Event::Interrupt, Column::Down) => out.push(Action::Leave),
            (Event::Interrupt, Column::Up | Column::Finish) => {
                out.push(Action::Send(Target::Group, libc::SIGINT));
                out.push(Action::Leave);
            }

            (Event::Started { pid, ready_within, ping_within }, _) => {
                self.state = State::Up;
                self.status = Status { stamp: now.stamp, pid: pid as u64, paused: false, ready: false, ..self.status };
                (self.start_at, self.untold) = (None, false);
                self.ready_by = ready_within.map(|limit| now.clock + limit);
                self.phase = Phase::Starting;
                self.ping_within = ping_within;
                self.ending = None;
                self.succeeded = false;
                self.report("u", out);
            }
            (Event::StartLater(pause), _) => {
                (self.start_at, self.begun) = (Some(now.clock + pause), true);
                self.tell(out);
            }
            (Event::StartFailed, _) => {
                self.start_at = Some(now.clock + RETRY);
                self.tell(out);
            }
            (Event::StartRefused, _) => {
                self.start_at = None;
                self.tell(out);
            }

            (Event::FinishStarted { pid, limit }, _) => {
                self.state = if self.state == State::LastUp { State::LastFinish } else { State::Finish };
                self.status.pid = pid as u64;
                self.status.finishing = true;
                self.kill_at = limit.map(|limit| now.clock + limit);
                self.report("d", out);
            }
            (Event::NoFinish, _) => self.became_down(now, "dD", out),
            (Event::KillAfter(limit), _) => {
                // What does not work cannot be trusted to end.
                let least = (self.ending == Some(Ending::Watchdog)).then_some(KILL_AGAIN);
                self.kill_at = limit.or(least).map(|limit| now.clock + limit);
            }
        }
        *out
    }

    /// The commands, in the columns of the table.
    fn command(&mut self, now: Now, command: Command, out: &mut Actions) {
        use Column::{Down, Finish, Up};
        match (command, self.state.column()) {
            (Command::Signal(signal), Up) => out.push(Action::Send(Target::Process, signal)),
            (Command::Pause, Up) => self.pause(now, Target::Process, true, out),
            (Command::Continue, Up) => self.pause(now, Target::Process, false, out),
            (Command::PauseGroup, Up) => self.pause(now, Target::Group, true, out),
            (Command::ContinueGroup, Up) => self.pause(now, Target::Group, false, out),
            (Command::KillGroup, Up) => out.push(Action::Send(Target::Group, libc::SIGKILL)),
            (Command::Restart, Up) => out.push(Action::SendDown),
            (Command::Reload, Up) => out.push(Action::SendReload),
            (
                Command::Signal(_)
                | Command::Pause
                | Command::Continue
                | Command::PauseGroup
                | Command::ContinueGroup
                | Command::KillGroup
                | Command::Restart
                | Command::Reload,
                Down | Finish,
            ) => {}

            (Command::Down | Command::OnceAtMost, Down | Finish) => self.want(false, out),
            (Command::Down, Up) => {
                self.status.paused = false;
                self.want(false, out);
                self.bring_down(out);
            }
            (Command::OnceAtMost, Up) => self.want(false, out),
            (Command::Up, Down) => {
                (self.status.wanted_up, self.untold) = (true, true);
                self.start(out);
            }
            (Command::Up, Up | Finish) => self.want(true, out),
            (Command::Once, Down) => {
                (self.status.wanted_up, self.untold) = (false, true);
                self.start(out);
            }
            (Command::Once, Up | Finish) => self.want(false, out),

            (Command::DownForGood, _) => {
                out.push(Action::CreateDown);
                self.command(now, Command::Down, out);
            }
            (Command::UpForGood, _) => {
                out.push(Action::RemoveDown);
                self.command(now, Command::Up, out);
            }
            (Command::OnceForGood, _) => {
                out.push(Action::CreateDown);
                self.want(false, out);
            }

            (Command::Exit, Down) => out.push(Action::Leave),
            (Command::Exit, Up) => {
                self.state = State::LastUp;
                out.push(Action::CloseStdio);
            }
            (Command::Exit, Finish) => {
                self.state = State::LastFinish;
                out.push(Action::CloseStdio);
            }

            (Command::EmptyStore, Down | Finish) => out.push(Action::EmptyStore),
            (Command::EmptyStore, Up) => out.push(Action::RefuseToEmptyStore),
        }
    }

    fn start(&mut self, out: &mut Actions) {
        out.push(Action::Start { again: std::mem::take(&mut self.begun) });
    }

    /// Sets the wanted bit. The status is rewritten even if the bit stays the same: whoever looks sees that the
    /// command arrived.
    fn want(&mut self, up: bool, out: &mut Actions) {
        self.status.wanted_up = up;
        self.begun &= up;
        out.push(Action::WriteStatus);
    }

    /// A start that failed is no change of state: a service that was never started still was not. What a command wants
    /// is one.
    fn tell(&mut self, out: &mut Actions) {
        if std::mem::take(&mut self.untold) {
            out.push(Action::WriteStatus);
        }
    }

    /// What is paused goes on, or it could not end.
    fn bring_down(&mut self, out: &mut Actions) {
        self.ending = self.ending.or(Some(Ending::Wanted));
        self.ready_by = None;
        self.ping_by = None;
        if std::mem::take(&mut self.status.paused) {
            out.push(Action::WriteStatus);
        }
        out.push(Action::SendDown);
        out.push(Action::Send(Target::Process, libc::SIGCONT));
        out.push(Action::ArmKill);
    }

    /// What is stopped cannot say that it works.
    fn pause(&mut self, now: Now, target: Target, pause: bool, out: &mut Actions) {
        out.push(Action::Send(target, if pause { libc::SIGSTOP } else { libc::SIGCONT }));
        self.status.paused = pause;
        self.wait_for_ping(now);
        out.push(Action::WriteStatus);
    }

    /// Status first, then the letters that tell to look at it.
    fn report(&mut self, letters: &'static str, out: &mut Actions) {
        out.push(Action::WriteStatus);
        out.push(Action::Notify(letters));
    }

    fn timer_while_up(&mut self, now: Now, out: &mut Actions) {
        if self.kill_at.is_some_and(|at| at <= now.clock) {
            self.kill_at = Some(now.clock + KILL_AGAIN);
            out.push(Action::KillService);
        }
        if self.ready_by.is_some_and(|by| by <= now.clock) {
            self.ready_by = None;
            self.ending = self.ending.or(Some(Ending::NotReady));
            out.push(Action::NotReadyInTime);
            self.bring_down(out);
        } else if self.ping_by.is_some_and(|by| by <= now.clock) {
            self.failed(out);
        }
    }

    /// The first time, or after reloading; else it is no news.
    fn became_ready(&mut self, now: Now, out: &mut Actions) {
        match self.phase {
            Phase::Starting => {
                self.phase = Phase::Ready;
                self.status.ready = true;
                self.status.readystamp = now.stamp;
                self.ready_since = Some(now.clock);
                self.ready_by = None;
                self.wait_for_ping(now);
                self.report("U", out);
            }
            Phase::Reloading => {
                self.phase = Phase::Ready;
                out.push(Action::Notify("U"));
            }
            Phase::Ready | Phase::Stopping => {}
        }
    }

    /// Those who depend on the service do not see this: it stays ready.
    fn began_to_reload(&mut self) {
        if self.phase == Phase::Ready {
            self.phase = Phase::Reloading;
        }
    }

    /// No signal is sent, but it must not take for ever.
    fn began_to_stop(&mut self, out: &mut Actions) {
        if self.phase == Phase::Stopping {
            return;
        }
        self.phase = Phase::Stopping;
        self.ending = self.ending.or(Some(Ending::Wanted));
        self.ready_by = None;
        self.ping_by = None;
        self.kill_in_time(out);
    }

    fn wait_for_ping(&mut self, now: Now) {
        let expected = self.status.ready && !self.status.paused && self.ending.is_none();
        self.ping_by = self.ping_within.filter(|_| expected).map(|interval| now.clock + interval);
    }

    /// The service does not work.
    fn failed(&mut self, out: &mut Actions) {
        if self.ending == Some(Ending::Watchdog) {
            return;
        }
        self.ending = Some(Ending::Watchdog);
        self.ping_by = None;
        out.push(Action::SendWatchdog);
        self.kill_in_time(out);
    }

    /// Unless its time is measured already.
    fn kill_in_time(&mut self, out: &mut Actions) {
        if self.kill_at.is_none() {
            out.push(Action::ArmKill);
        }
    }

    fn outcome(&self, status: WaitStatus) -> Outcome {
        match (self.ending, status.code(), status.signal().map(i32::from)) {
            (Some(Ending::Watchdog), _, _) => Outcome::Watchdog,
            (Some(Ending::NotReady), _, _) => Outcome::TimeoutReady,
            (None, Some(0), _) if self.phase == Phase::Starting && !self.succeeded => Outcome::Protocol,
            (_, Some(0), _) => Outcome::Success,
            (_, _, Some(libc::SIGHUP | libc::SIGINT | libc::SIGTERM | libc::SIGPIPE)) => Outcome::Success,
            (_, _, Some(_)) => Outcome::Signal,
            (_, _, None) => Outcome::Exit,
        }
    }

    fn run_died(&mut self, now: Now, status: WaitStatus, out: &mut Actions) {
        let pid = self.status.pid as i32;
        let outcome = self.outcome(status);
        self.status =
            Status { stamp: now.stamp, pid: 0, wait_status: status, paused: false, ready: false, ..self.status };
        self.kill_at = None;
        self.ready_by = None;
        self.ping_by = None;
        out.push(Action::CloseNotification);
        out.push(Action::RecordDeath(now.stamp, status, outcome));
        out.push(Action::StartFinish { pid, status });
    }

    fn finish_died(&mut self, now: Now, status: WaitStatus, out: &mut Actions) {
        if status.code() == Some(PERMANENT_FAILURE) {
            self.status.wanted_up = false;
            self.became_down(now, "OD", out);
        } else {
            self.became_down(now, "D", out);
        }
    }

    /// The end of a life: run and finish are over.
    fn became_down(&mut self, now: Now, letters: &'static str, out: &mut Actions) {
        let last = matches!(self.state, State::LastUp | State::LastFinish);
        self.state = State::Down;
        self.status = Status { readystamp: now.stamp, pid: 0, finishing: false, ready: true, ..self.status };
        self.kill_at = None;
        self.start_at = Some(self.ready_since.take().unwrap_or(now.clock) + PAUSE);
        self.report(letters, out);
        if last {
            out.push(Action::Leave);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A shell without a kernel: it remembers what the core asked for and checks what must always hold.
    struct World {
        core: Core,
        now: Now,
        next_pid: i32,
        child: Option<i32>,
        written: Status,
        letters: String,
        left: bool,
        signals: Vec<(Target, i32)>,
        outcomes: Vec<Outcome>,
        ready_within: Option<Duration>,
        ping_within: Option<Duration>,
        kill_after: Option<Duration>,
        /// How often a start is to wait.
        leftovers: u32,
    }

    /// What stands for the watchdog signal, SIGKILL, and the signals to finish.
    const WATCHDOG: (Target, i32) = (Target::Process, libc::SIGABRT);
    const KILL: (Target, i32) = (Target::Process, libc::SIGKILL);
    const DOWN: (Target, i32) = (Target::Process, libc::SIGTERM);
    const CONTINUE: (Target, i32) = (Target::Process, libc::SIGCONT);

    impl World {
        fn new(wanted_up: bool) -> Self {
            let now = Now { clock: Instant::now(), stamp: Tai64n { seconds: 1 << 62, nanoseconds: 0 } };
            let core = Core::new(wanted_up, now.stamp);
            let written = *core.status();
            let letters = String::new();
            let mut world = World {
                core,
                now,
                next_pid: 2,
                child: None,
                written,
                letters,
                left: false,
                signals: vec![],
                outcomes: vec![],
                ready_within: None,
                ping_within: None,
                kill_after: None,
                leftovers: 0,
            };
            world.event(Event::Begin);
            world
        }

        fn event(&mut self, event: Event) {
            self.event_with(event, true, true);
        }

        /// One event; `starts`: run can be started, `finish`: there is one.
        fn event_with(&mut self, event: Event, starts: bool, finish: bool) {
            let mut next = Some(event);
            while let Some(event) = next.take() {
                if self.left {
                    return;
                }
                match event {
                    Event::Died(_) => self.child = None,
                    Event::MainIs(pid) if self.core.status().is_up() => self.child = Some(pid),
                    _ => {}
                }
                for action in self.core.handle(self.now, event).iter() {
                    assert!(!self.left, "{action:?} after the end");
                    next = self.perform(*action, starts, finish).or(next);
                }
            }
            assert_eq!(self.core.status().pid, self.child.unwrap_or(0) as u64, "the status names the child");
            let waits = self.core.deadline().is_some() || !self.core.status().wanted_up || self.child.is_some();
            assert!(waits || self.left, "down, wanted up, and no timer: wedged");
            match self.core.phase() {
                None | Some(Phase::Stopping) => {}
                Some(Phase::Starting) => assert!(!self.core.status().ready),
                Some(Phase::Ready | Phase::Reloading) => assert!(self.core.status().ready),
            }
            if self.core.ping_by.is_some() {
                let status = self.core.status();
                assert!(status.is_up() && status.ready && self.core.ending.is_none(), "barks at nobody");
            }
        }

        fn perform(&mut self, action: Action, starts: bool, finish: bool) -> Option<Event> {
            match action {
                Action::Start { .. } if self.leftovers > 0 => {
                    self.leftovers -= 1;
                    return Some(Event::StartLater(ms(5)));
                }
                Action::Start { .. } | Action::StartFinish { .. } => {
                    assert_eq!(self.child, None, "never two children");
                    let run = matches!(action, Action::Start { .. });
                    if if run { !starts } else { !finish } {
                        return Some(if run { Event::StartFailed } else { Event::NoFinish });
                    }
                    self.next_pid += 1;
                    self.child = Some(self.next_pid);
                    let (pid, limit) = (self.next_pid, Some(Duration::from_secs(5)));
                    return Some(if run {
                        Event::Started { pid, ready_within: self.ready_within, ping_within: self.ping_within }
                    } else {
                        Event::FinishStarted { pid, limit }
                    });
                }
                Action::ArmKill => return Some(Event::KillAfter(self.kill_after)),
                Action::WriteStatus => self.written = *self.core.status(),
                Action::Notify(letters) => {
                    assert_eq!(self.written, *self.core.status(), "status before event");
                    self.letters += letters;
                }
                Action::Send(target, signal) => {
                    assert!(self.child.is_some(), "a signal for nobody");
                    self.signals.push((target, signal));
                }
                Action::SendDown => self.signals.push(DOWN),
                Action::SendWatchdog => self.signals.push(WATCHDOG),
                Action::KillService | Action::KillFinish => {
                    assert!(self.child.is_some(), "kills nobody");
                    self.signals.push(KILL);
                }
                Action::RecordDeath(_, _, outcome) => self.outcomes.push(outcome),
                Action::EmptyStore => assert!(!self.core.status().is_up(), "takes what a service that is up relies on"),
                Action::Leave => self.left = true,
                Action::SendReload
                | Action::NotReadyInTime
                | Action::RefuseToEmptyStore
                | Action::CloseNotification
                | Action::CreateDown
                | Action::RemoveDown
                | Action::CloseStdio => {}
            }
            None
        }

        fn pass(&mut self, time: Duration) {
            self.now.clock += time;
            self.now.stamp = self.now.stamp.after(time);
            while self.core.deadline().is_some_and(|at| at <= self.now.clock) && !self.left {
                self.event(Event::Timer);
            }
        }
    }

    fn exited(code: u8) -> Event {
        Event::Died(WaitStatus::exited(code))
    }

    #[test]
    fn a_service_that_was_never_ready_pauses_a_second_after_finish() {
        let mut world = World::new(true);
        world.pass(Duration::from_secs(100));
        world.event(exited(0));
        world.pass(Duration::from_secs(3));
        world.event(exited(0));
        world.pass(Duration::from_millis(999));
        assert_eq!(world.letters, "udD");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.letters, "udDu");
    }

    #[test]
    fn a_service_that_was_ready_for_a_second_restarts_at_once() {
        let mut world = World::new(true);
        world.event(Event::Ready);
        world.pass(Duration::from_secs(1));
        world.event_with(exited(0), true, false);
        world.pass(Duration::ZERO);
        assert_eq!(world.letters, "uUdDu");
    }

    #[test]
    fn a_start_that_waits_for_the_last_run_goes_on_unless_it_is_not_wanted_any_more() {
        for (commands, starts) in [("u", true), ("o", true), ("ou", true), ("uo", true), ("ud", false), ("od", false)] {
            let mut world = World::new(false);
            world.leftovers = 10;
            for byte in commands.bytes() {
                world.event(Event::Command(Command::parse(byte).unwrap()));
            }
            assert_eq!((world.child, world.written.wanted_up), (None, commands.ends_with('u')), "{commands}");
            (0..10).for_each(|_| world.pass(ms(5)));
            assert_eq!(world.child.is_some(), starts, "{commands}");
        }
    }

    #[test]
    fn finish_with_125_keeps_the_service_down() {
        let mut world = World::new(true);
        world.event(exited(1));
        world.event(exited(125));
        world.pass(Duration::from_secs(1000));
        assert_eq!(world.letters, "udOD");
        assert!(!world.core.status().wanted_up);
    }

    #[test]
    fn a_failed_start_is_tried_again_after_a_minute_or_at_once_on_command() {
        let mut world = World::new(false);
        world.event_with(Event::Command(Command::Up), false, false);
        assert_eq!(world.core.deadline(), Some(world.now.clock + RETRY));
        world.event(Event::Command(Command::Up));
        assert_eq!(world.letters, "u");
    }

    #[test]
    fn once_while_finishing_does_not_start_afterwards() {
        let mut world = World::new(true);
        world.event(exited(0));
        world.event(Event::Command(Command::Once));
        world.event(exited(0));
        world.pass(Duration::from_secs(10));
        assert_eq!(world.letters, "udD");
    }

    #[test]
    fn exit_waits_for_the_service_and_quit_does_not() {
        let mut world = World::new(true);
        world.event(Event::Command(Command::Exit));
        assert!(!world.left && world.core.state() == State::LastUp);
        world.event(exited(0));
        assert!(!world.left && world.core.state() == State::LastFinish);
        world.event(exited(0));
        assert!(world.left);
        let mut world = World::new(true);
        world.event(Event::Quit);
        assert!(world.left && world.signals.is_empty());
    }

    #[test]
    fn what_is_brought_down_is_not_paused_any_more() {
        for pause in [Command::Pause, Command::PauseGroup] {
            for down in [Event::Command(Command::Down), Event::Command(Command::DownForGood), Event::Terminate] {
                let mut world = World::new(true);
                world.event(Event::Command(pause));
                assert!(world.written.paused);
                world.event(down);
                assert!(!world.written.paused && world.signals.ends_with(&[DOWN, CONTINUE]), "{pause:?} {down:?}");
            }
        }
        let mut world = World::new(false);
        world.ready_within = Some(ms(1000));
        world.event(Event::Command(Command::Up));
        world.event(Event::Command(Command::Pause));
        world.pass(ms(1000));
        assert!(!world.written.paused && world.written.wanted_up && world.signals.ends_with(&[DOWN, CONTINUE]));
    }

    #[test]
    fn every_letter_of_the_protocol_is_a_command_and_no_other_byte() {
        let known = (0..=255u8).filter(|&b| Command::parse(b).is_some()).count();
        assert_eq!(known, b"abqhkti12ypcPCKrlduoODUQxF".len());
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn ready_counts_once_and_once_more_after_each_reload() {
        let mut world = World::new(true);
        world.event(Event::Reloading);
        assert_eq!(world.core.phase(), Some(Phase::Starting));
        for event in [Event::Ready, Event::Ready, Event::Reloading, Event::Reloading, Event::Ready, Event::Ready] {
            world.event(event);
        }
        assert_eq!(world.letters, "uUU");
        let since = world.core.status().readystamp;
        world.pass(ms(5));
        world.event(Event::Reloading);
        assert_eq!((world.core.phase(), world.core.status().ready), (Some(Phase::Reloading), true));
        world.event(Event::Reloaded);
        world.event(Event::Reloaded);
        assert_eq!((world.letters.as_str(), world.core.status().readystamp), ("uUUUU", since));
    }

    #[test]
    fn reloaded_at_first_is_ready() {
        let mut world = World::new(true);
        world.event(Event::Reloaded);
        assert_eq!((world.letters.as_str(), world.core.phase()), ("uU", Some(Phase::Ready)));
    }

    #[test]
    fn stopping_is_final_sends_nothing_and_ends_in_time() {
        let mut world = World::new(true);
        world.kill_after = Some(ms(500));
        world.event(Event::Ready);
        world.event(Event::Stopping);
        world.pass(ms(300));
        for event in [Event::Stopping, Event::Ready, Event::Reloading, Event::Reloaded] {
            world.event(event);
        }
        assert_eq!((world.core.phase(), world.letters.as_str()), (Some(Phase::Stopping), "uU"));
        world.pass(ms(199));
        assert_eq!(world.signals, []);
        world.pass(ms(1));
        assert_eq!(world.signals, [KILL]);
        world.event(Event::Died(WaitStatus::from_raw(9)));
        world.event(exited(0));
        world.pass(ms(2000));
        assert_eq!(world.letters, "uUdDu");
        assert_eq!(world.outcomes, [Outcome::Signal]);
    }

    #[test]
    fn what_is_not_ready_in_time_is_brought_down_and_may_ask_for_more() {
        let mut world = World::new(false);
        world.ready_within = Some(ms(1000));
        world.event(Event::Command(Command::Up));
        world.pass(ms(500));
        world.event(Event::Extend(ms(1500)));
        world.pass(ms(1200));
        world.event(Event::Extend(ms(300)));
        world.pass(ms(299));
        assert_eq!(world.signals, []);
        world.pass(ms(1));
        assert_eq!(world.signals, [DOWN, CONTINUE]);
        world.event(exited(0));
        assert_eq!(world.outcomes, [Outcome::TimeoutReady]);
    }

    fn watched(interval: Duration) -> World {
        let mut world = World::new(false);
        world.ping_within = Some(interval);
        world.event(Event::Command(Command::Up));
        world
    }

    #[test]
    fn a_watchdog_waits_for_readiness_and_then_for_pings() {
        let mut world = watched(ms(600));
        world.pass(ms(5000));
        world.event(Event::Ping);
        world.pass(ms(5000));
        world.event(Event::Ready);
        for _ in 0..3 {
            world.pass(ms(300));
            world.event(Event::Ping);
        }
        world.pass(ms(599));
        assert_eq!(world.signals, []);
        world.pass(ms(1));
        assert_eq!(world.signals, [WATCHDOG]);
        world.event(Event::Ping);
        world.event(Event::Trigger);
        world.pass(KILL_AGAIN - ms(1));
        assert_eq!(world.signals, [WATCHDOG]);
        world.pass(ms(1));
        assert_eq!(world.signals, [WATCHDOG, KILL]);
        world.event(Event::Died(WaitStatus::from_raw(9)));
        assert_eq!(world.outcomes, [Outcome::Watchdog]);
    }

    #[test]
    fn a_watchdog_can_be_set_and_taken_off_at_any_time() {
        let mut world = World::new(true);
        world.event(Event::PingWithin(Some(ms(400))));
        world.pass(ms(1000));
        world.event(Event::Ready);
        world.pass(ms(300));
        world.event(Event::PingWithin(None));
        world.pass(ms(1000));
        assert_eq!(world.signals, []);
        world.event(Event::PingWithin(Some(ms(400))));
        world.pass(ms(400));
        assert_eq!(world.signals, [WATCHDOG]);
    }

    #[test]
    fn a_watchdog_sleeps_while_the_service_goes_down_or_is_paused() {
        for silence in [Event::Command(Command::Down), Event::Command(Command::Pause), Event::Stopping] {
            let mut world = watched(ms(600));
            world.event(Event::Ready);
            world.event(silence);
            world.event(Event::Ping);
            world.pass(ms(5000));
            assert!(!world.signals.contains(&WATCHDOG), "{silence:?}");
        }
        let mut world = watched(ms(600));
        world.event(Event::Ready);
        world.event(Event::Command(Command::Pause));
        world.pass(ms(5000));
        world.event(Event::Command(Command::Continue));
        world.pass(ms(599));
        assert!(!world.signals.contains(&WATCHDOG));
        world.pass(ms(1));
        assert!(world.signals.contains(&WATCHDOG));
    }

    #[test]
    fn trigger_needs_neither_readiness_nor_a_watchdog() {
        let mut world = World::new(true);
        world.kill_after = Some(ms(100));
        world.event(Event::Trigger);
        assert_eq!(world.signals, [WATCHDOG]);
        world.pass(ms(100));
        assert_eq!(world.signals, [WATCHDOG, KILL]);
    }

    #[test]
    fn outcomes_say_why_a_run_ended() {
        let outcome = |before: &[Event], end| {
            let mut world = World::new(true);
            before.iter().for_each(|&event| world.event(event));
            world.event(end);
            world.outcomes[0]
        };
        let killed = |signal| Event::Died(WaitStatus::from_raw(signal));
        assert_eq!(outcome(&[], exited(0)), Outcome::Protocol);
        assert_eq!(outcome(&[Event::MainIs(9)], exited(0)), Outcome::Success);
        assert_eq!(outcome(&[Event::Ready], exited(0)), Outcome::Success);
        assert_eq!(outcome(&[Event::Command(Command::Down)], exited(0)), Outcome::Success);
        assert_eq!(outcome(&[], exited(1)), Outcome::Exit);
        assert_eq!(outcome(&[Event::Ready], killed(libc::SIGTERM)), Outcome::Success);
        assert_eq!(outcome(&[Event::Ready], killed(libc::SIGSEGV)), Outcome::Signal);
        assert_eq!(outcome(&[Event::Trigger], killed(libc::SIGABRT)), Outcome::Watchdog);
    }

    #[test]
    fn finish_may_ask_for_more_time() {
        let mut world = World::new(true);
        world.event(exited(0));
        world.event(Event::Extend(ms(7000)));
        world.event(Event::Extend(ms(1)));
        world.pass(ms(6999));
        assert_eq!(world.signals, []);
        world.pass(ms(1));
        assert_eq!(world.signals, [KILL]);
    }

    #[test]
    fn the_store_of_a_service_that_is_up_is_not_emptied() {
        let mut world = World::new(true);
        let actions = world.core.handle(world.now, Event::Command(Command::EmptyStore));
        assert_eq!(*actions, [Action::RefuseToEmptyStore]);
        world.event(exited(0));
        let actions = world.core.handle(world.now, Event::Command(Command::EmptyStore));
        assert_eq!(*actions, [Action::EmptyStore]);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Reloading),
            1 => Just(Event::Reloaded),
            1 => Just(Event::Stopping),
            3 => Just(Event::Ping),
            1 => Just(Event::Trigger),
            1 => (0u64..70_000).prop_map(|time| Event::Extend(ms(time))),
            1 => prop::option::of(1u64..70_000).prop_map(|time| Event::PingWithin(time.map(ms))),

            8 => prop::sample::select(&b"abqhkti12ypcPCKrlduoODUQxF"[..])
                .prop_map(|byte| Event::Command(Command::parse(byte).unwrap())),
            4 => (0u8..=255).prop_map(exited),
            2 => Just(Event::Died(WaitStatus::from_raw(9))),
            4 => Just(Event::Ready),
            1 => (1000i32..2000).prop_map(Event::MainIs),
            1 => Just(Event::Terminate),
            1 => Just(Event::HangUp),
            1 => Just(Event::Timer),
        ]
    }

    proptest! {
        #[test]
        fn random_events_break_no_rule(
            wanted_up: bool,
            limits: (Option<u16>, Option<u16>, Option<u16>),
            leftovers in prop::collection::vec(0u32..3, 200),
            events in prop::collection::vec((any_event(), 0u64..70_000, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let limit = |length: Option<u16>| length.map(|length| ms(length.into()));
            let mut world = World::new(wanted_up);
            (world.ready_within, world.ping_within, world.kill_after) = (limit(limits.0), limit(limits.1), limit(limits.2));
            for ((event, wait, starts, finish), leftovers) in events.into_iter().zip(leftovers) {
                world.leftovers = leftovers;
                world.pass(ms(wait));
                let due = world.core.deadline().is_some_and(|at| at <= world.now.clock);
                let possible = match event {
                    Event::Died(_) => world.child.is_some(),
                    Event::Timer => due,
                    _ => true,
                };
                if possible {
                    let (before, letters) = (world.core.phase(), world.letters.len());
                    world.event_with(event, starts, finish);
                    let new = &world.letters[letters..];
                    if new == "U" && event != Event::Reloaded {
                        assert!(matches!(before, Some(Phase::Starting | Phase::Reloading)), "{before:?} becomes ready");
                    }
                    if before == Some(Phase::Stopping) && !new.contains('d') {
                        assert_eq!(world.core.phase(), before, "stopping is final");
                    }
                }
            }
        }
    }
}
