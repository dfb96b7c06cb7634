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
    },
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

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Start run; answer with Started, StartFailed or StartRefused.
    Start,
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
    /// Add a death to the tally.
    RecordDeath(Tai64n, WaitStatus),
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
    /// Next start, while down. None: only a command starts the service.
    start_at: Option<Instant>,
    /// When the service, or finish, is killed.
    kill_at: Option<Instant>,
    /// When the service must have become ready.
    ready_by: Option<Instant>,
    /// When this run became ready.
    ready_since: Option<Instant>,
}

impl Core {
    /// A supervisor whose service is to be up, or, with a `down` file, to stay down.
    pub fn new(wanted_up: bool, now: Tai64n) -> Self {
        Core {
            state: State::Down,
            status: Status { stamp: now, readystamp: now, wanted_up, ready: true, ..Status::default() },
            start_at: None,
            kill_at: None,
            ready_by: None,
            ready_since: None,
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

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state.column() {
            Column::Down => self.start_at,
            Column::Up => [self.kill_at, self.ready_by].into_iter().flatten().min(),
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
                    out.push(Action::Start);
                }
            }

            (Event::Timer, Column::Down) => {
                self.start_at = None;
                if self.status.wanted_up {
                    out.push(Action::Start);
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
            (Event::Ready, Column::Down | Column::Finish) => {}

            (Event::Forked, _) => self.ready_by = None,
            (Event::MainIs(pid), Column::Up) => {
                self.ready_by = None;
                self.status.pid = pid as u64;
                out.push(Action::WriteStatus);
            }
            (Event::MainIs(_), Column::Down | Column::Finish) => {}

            (Event::Command(command), _) => self.command(command, out),

            (Event::Terminate, Column::Down) => out.push(Action::Leave),
            (Event::Terminate, Column::Up) => {
                self.state = State::LastUp;
                self.command(Command::Down, out);
            }
            (Event::Terminate, Column::Finish) => {
                if self.state == State::Finish {
                    self.command(Command::Exit, out);
                }
            }
            (Event::HangUp, _) => self.command(Command::Exit, out),
            (Event::Quit, _) | (Event::Interrupt, Column::Down) => out.push(Action::Leave),
            (Event::Interrupt, Column::Up | Column::Finish) => {
                out.push(Action::Send(Target::Group, libc::SIGINT));
                out.push(Action::Leave);
            }

            (Event::Started { pid, ready_within }, _) => {
                self.state = State::Up;
                self.status = Status { stamp: now.stamp, pid: pid as u64, paused: false, ready: false, ..self.status };
                self.start_at = None;
                self.ready_by = ready_within.map(|limit| now.clock + limit);
                self.report("u", out);
            }
            (Event::StartFailed, _) => {
                self.start_at = Some(now.clock + RETRY);
                out.push(Action::WriteStatus);
            }
            (Event::StartRefused, _) => {
                self.start_at = None;
                out.push(Action::WriteStatus);
            }

            (Event::FinishStarted { pid, limit }, _) => {
                self.state = if self.state == State::LastUp { State::LastFinish } else { State::Finish };
                self.status.pid = pid as u64;
                self.status.finishing = true;
                self.kill_at = limit.map(|limit| now.clock + limit);
                self.report("d", out);
            }
            (Event::NoFinish, _) => self.became_down(now, "dD", out),
            (Event::KillAfter(limit), _) => self.kill_at = limit.map(|limit| now.clock + limit),
        }
        *out
    }

    /// The commands, in the columns of the table.
    fn command(&mut self, command: Command, out: &mut Actions) {
        use Column::{Down, Finish, Up};
        match (command, self.state.column()) {
            (Command::Signal(signal), Up) => out.push(Action::Send(Target::Process, signal)),
            (Command::Pause, Up) => self.pause(Target::Process, true, out),
            (Command::Continue, Up) => self.pause(Target::Process, false, out),
            (Command::PauseGroup, Up) => self.pause(Target::Group, true, out),
            (Command::ContinueGroup, Up) => self.pause(Target::Group, false, out),
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
                self.want(false, out);
                self.bring_down(out);
            }
            (Command::OnceAtMost, Up) => self.want(false, out),
            (Command::Up, Down) => {
                self.status.wanted_up = true;
                out.push(Action::Start);
            }
            (Command::Up, Up | Finish) => self.want(true, out),
            (Command::Once, Down) => {
                self.status.wanted_up = false;
                out.push(Action::Start);
            }
            (Command::Once, Up | Finish) => self.want(false, out),

            (Command::DownForGood, _) => {
                out.push(Action::CreateDown);
                self.command(Command::Down, out);
            }
            (Command::UpForGood, _) => {
                out.push(Action::RemoveDown);
                self.command(Command::Up, out);
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
        }
    }

    /// Sets the wanted bit. The status is rewritten even if the bit stays the same: whoever looks sees that the
    /// command arrived.
    fn want(&mut self, up: bool, out: &mut Actions) {
        self.status.wanted_up = up;
        out.push(Action::WriteStatus);
    }

    fn bring_down(&mut self, out: &mut Actions) {
        out.push(Action::SendDown);
        out.push(Action::Send(Target::Process, libc::SIGCONT));
        out.push(Action::ArmKill);
    }

    fn pause(&mut self, target: Target, pause: bool, out: &mut Actions) {
        out.push(Action::Send(target, if pause { libc::SIGSTOP } else { libc::SIGCONT }));
        self.status.paused = pause;
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
            out.push(Action::NotReadyInTime);
            self.bring_down(out);
        }
    }

    fn became_ready(&mut self, now: Now, out: &mut Actions) {
        if self.status.ready {
            return;
        }
        self.status.ready = true;
        self.status.readystamp = now.stamp;
        self.ready_since = Some(now.clock);
        self.ready_by = None;
        self.report("U", out);
    }

    fn run_died(&mut self, now: Now, status: WaitStatus, out: &mut Actions) {
        let pid = self.status.pid as i32;
        self.status =
            Status { stamp: now.stamp, pid: 0, wait_status: status, paused: false, ready: false, ..self.status };
        self.kill_at = None;
        self.ready_by = None;
        out.push(Action::CloseNotification);
        out.push(Action::RecordDeath(now.stamp, status));
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
    }

    impl World {
        fn new(wanted_up: bool) -> Self {
            let now = Now { clock: Instant::now(), stamp: Tai64n { seconds: 1 << 62, nanoseconds: 0 } };
            let core = Core::new(wanted_up, now.stamp);
            let written = *core.status();
            let letters = String::new();
            let mut world =
                World { core, now, next_pid: 2, child: None, written, letters, left: false, signals: vec![] };
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
                if let Event::Died(_) = event {
                    self.child = None;
                }
                for action in self.core.handle(self.now, event).iter() {
                    assert!(!self.left, "{action:?} after the end");
                    next = self.perform(*action, starts, finish).or(next);
                }
            }
            assert_eq!(self.core.status().pid, self.child.unwrap_or(0) as u64, "the status names the child");
            let waits = self.core.deadline().is_some() || !self.core.status().wanted_up || self.child.is_some();
            assert!(waits || self.left, "down, wanted up, and no timer: wedged");
        }

        fn perform(&mut self, action: Action, starts: bool, finish: bool) -> Option<Event> {
            match action {
                Action::Start | Action::StartFinish { .. } => {
                    assert_eq!(self.child, None, "never two children");
                    let run = action == Action::Start;
                    if if run { !starts } else { !finish } {
                        return Some(if run { Event::StartFailed } else { Event::NoFinish });
                    }
                    self.next_pid += 1;
                    self.child = Some(self.next_pid);
                    let (pid, limit) = (self.next_pid, Some(Duration::from_secs(5)));
                    return Some(if run {
                        Event::Started { pid, ready_within: None }
                    } else {
                        Event::FinishStarted { pid, limit }
                    });
                }
                Action::ArmKill => return Some(Event::KillAfter(None)),
                Action::WriteStatus => self.written = *self.core.status(),
                Action::Notify(letters) => {
                    assert_eq!(self.written, *self.core.status(), "status before event");
                    self.letters += letters;
                }
                Action::Send(target, signal) => {
                    assert!(self.child.is_some(), "a signal for nobody");
                    self.signals.push((target, signal));
                }
                Action::SendDown => self.signals.push((Target::Process, libc::SIGTERM)),
                Action::KillService | Action::KillFinish => assert!(self.child.is_some(), "kills nobody"),
                Action::Leave => self.left = true,
                Action::SendReload
                | Action::NotReadyInTime
                | Action::RecordDeath(..)
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
    fn every_letter_of_the_protocol_is_a_command_and_no_other_byte() {
        let known = (0..=255u8).filter(|&b| Command::parse(b).is_some()).count();
        assert_eq!(known, b"abqhkti12ypcPCKrlduoODUQx".len());
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => prop::sample::select(&b"abqhkti12ypcPCKrlduoODUQx"[..])
                .prop_map(|byte| Event::Command(Command::parse(byte).unwrap())),
            4 => (0u8..=255).prop_map(exited),
            2 => Just(Event::Died(WaitStatus::from_raw(9))),
            2 => Just(Event::Ready),
            1 => Just(Event::Terminate),
            1 => Just(Event::HangUp),
            1 => Just(Event::Timer),
        ]
    }

    proptest! {
        #[test]
        fn random_events_break_no_rule(
            wanted_up: bool,
            events in prop::collection::vec((any_event(), 0u64..70_000, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut world = World::new(wanted_up);
            for (event, wait, starts, finish) in events {
                world.pass(Duration::from_millis(wait));
                let due = world.core.deadline().is_some_and(|at| at <= world.now.clock);
                let possible = match event {
                    Event::Died(_) => world.child.is_some(),
                    Event::Timer => due,
                    _ => true,
                };
                if possible {
                    world.event_with(event, starts, finish);
                }
            }
        }
    }
}
