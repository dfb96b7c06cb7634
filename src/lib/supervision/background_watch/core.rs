//! What the inner process of s6-background-watch decides: events in, at most one action out.

use std::time::Duration;

use crate::supervision::background::{PATIENCE, asks_to_end};
use crate::sys::wait::WaitStatus;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A signal came.
    Signal(i32),
    /// The parent has not exited within the limit.
    LimitOver,
    /// The parent ended.
    ParentEnded(WaitStatus),
    /// Main is known.
    Found,
    /// There is no main.
    NoMain {
        /// The exit code if there never was one.
        code: u8,
        /// The exit code if there was.
        later: u8,
    },
    /// Main ended.
    MainEnded {
        /// How.
        status: WaitStatus,
        /// Whether other members live on.
        members_left: bool,
    },
    /// No member is left that has to go.
    Cleared,
    /// The outer process is gone.
    OuterGone,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this signal to the parent, to the members, or to main: whichever there is.
    Send(i32),
    /// The limit is over: kill the parent.
    KillParent,
    /// Search for main, which the parent should have left behind.
    Search,
    /// Search for the main that an earlier one may have left behind.
    SearchAgain,
    /// Say that the daemon is ready.
    Notify,
    /// End all members.
    Clear {
        /// How long they may take.
        patience: Duration,
        /// Whether the user may have them kept.
        may_keep: bool,
    },
    /// End with this code.
    Exit {
        /// The code.
        code: u8,
        /// Whether the pid file is to be removed.
        remove_file: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The parent runs.
    Starting { overdue: bool },
    /// The parent, or a main that exited with code 0, is gone, and main is not known.
    Searching,
    /// Main runs.
    Watching,
    /// Members are being ended; then the end with that code.
    Clearing { code: u8, remove_file: bool },
    /// Nothing more happens.
    Over,
}

/// The life of one daemon.
#[derive(Debug)]
pub struct Core {
    state: State,
    /// Whether main was found once: what ends now was running.
    followed: bool,
    /// Whether somebody asked the daemon to end: an exit is no reload then.
    told_to_end: bool,
}

impl Default for Core {
    fn default() -> Self {
        Core { state: State::Starting { overdue: false }, followed: false, told_to_end: false }
    }
}

impl Core {
    /// Whether the limit still counts.
    pub fn is_starting(&self) -> bool {
        self.state == State::Starting { overdue: false }
    }

    /// Whether main was known once.
    pub fn has_followed(&self) -> bool {
        self.followed
    }

    /// Takes one event.
    pub fn handle(&mut self, event: Event) -> Option<Action> {
        use State::*;
        match (self.state, event) {
            (Over, _) => None,
            (Starting { .. } | Searching | Watching | Clearing { .. }, Event::OuterGone) => {
                // Whoever started the outer process has started another one by now: the pid file is theirs.
                self.clear(Duration::ZERO, false, 111, false)
            }
            (Starting { .. } | Searching | Watching, Event::Signal(number)) => {
                self.told_to_end |= asks_to_end(number);
                Some(Action::Send(number))
            }
            (Starting { overdue: false }, Event::LimitOver) => {
                self.state = Starting { overdue: true };
                Some(Action::KillParent)
            }
            (Starting { .. }, Event::ParentEnded(status)) if status == WaitStatus::exited(0) => {
                self.state = Searching;
                Some(Action::Search)
            }
            (Starting { .. }, Event::ParentEnded(status)) => {
                self.clear(patience_after(status), false, status.estatus(), true)
            }
            (Searching, Event::Found) => {
                self.state = Watching;
                let again = std::mem::replace(&mut self.followed, true);
                (!again).then_some(Action::Notify)
            }
            (Searching, Event::NoMain { code, .. }) if !self.followed => self.clear(PATIENCE, false, code, true),
            (Searching, Event::NoMain { later, .. }) => self.clear(PATIENCE, true, later, false),
            (Watching, Event::MainEnded { status, members_left: true })
                if status == WaitStatus::exited(0) && !self.told_to_end =>
            {
                self.state = Searching;
                Some(Action::SearchAgain)
            }
            (Watching, Event::MainEnded { status, .. }) => {
                self.clear(patience_after(status), true, status.estatus(), status.signal().is_some())
            }
            (Clearing { code, remove_file }, Event::Cleared) => {
                self.state = Over;
                Some(Action::Exit { code, remove_file })
            }
            (
                Starting { .. } | Searching | Watching | Clearing { .. },
                Event::Signal(_)
                | Event::LimitOver
                | Event::ParentEnded(_)
                | Event::Found
                | Event::NoMain { .. }
                | Event::MainEnded { .. }
                | Event::Cleared,
            ) => None,
        }
    }

    fn clear(&mut self, patience: Duration, may_keep: bool, code: u8, remove_file: bool) -> Option<Action> {
        self.state = State::Clearing { code, remove_file };
        Some(Action::Clear { patience, may_keep })
    }
}

/// Who was killed has nobody left to wait for: workers of a killed main would only hold its port.
fn patience_after(status: WaitStatus) -> Duration {
    if status.signal() == Some(libc::SIGKILL as u8) { Duration::ZERO } else { PATIENCE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OK: WaitStatus = WaitStatus::exited(0);
    const KILLED: WaitStatus = WaitStatus::from_raw(libc::SIGKILL);
    const TERMINATED: WaitStatus = WaitStatus::from_raw(libc::SIGTERM);

    fn died(status: WaitStatus) -> Event {
        Event::MainEnded { status, members_left: false }
    }

    fn left_members(status: WaitStatus) -> Event {
        Event::MainEnded { status, members_left: true }
    }

    /// The last action of a series of events.
    fn after(events: &[Event]) -> Option<Action> {
        let mut core = Core::default();
        events.iter().map(|&event| core.handle(event)).last().flatten()
    }

    #[test]
    fn each_way_to_end_has_its_code() {
        use Event::*;
        for (events, code, remove_file) in [
            (&[ParentEnded(WaitStatus::exited(1))][..], 1, true),
            (&[ParentEnded(WaitStatus::exited(200))], 128, true),
            (&[ParentEnded(TERMINATED)], 143, true),
            (&[LimitOver, ParentEnded(KILLED)], 137, true),
            (&[ParentEnded(OK), NoMain { code: 104, later: 0 }], 104, true),
            (&[ParentEnded(OK), Found, died(OK)], 0, false),
            (&[ParentEnded(OK), Found, died(WaitStatus::exited(7))], 7, false),
            (&[ParentEnded(OK), Found, died(KILLED)], 137, true),
            (&[ParentEnded(OK), Found, left_members(WaitStatus::exited(7))], 7, false),
            (&[ParentEnded(OK), Found, Signal(libc::SIGTERM), left_members(OK)], 0, false),
            (&[ParentEnded(OK), Found, left_members(OK), NoMain { code: 104, later: 0 }], 0, false),
            (&[ParentEnded(OK), Found, left_members(OK), Found, died(WaitStatus::exited(7))], 7, false),
            (&[ParentEnded(OK), Found, OuterGone], 111, false),
            (&[OuterGone], 111, false),
        ] {
            let events = [events, &[Cleared]].concat();
            assert_eq!(after(&events), Some(Action::Exit { code, remove_file }), "{events:?}");
        }
    }

    #[test]
    fn a_main_that_exits_well_and_leaves_members_may_have_reloaded() {
        let events = [Event::ParentEnded(OK), Event::Found, Event::Signal(libc::SIGHUP), left_members(OK)];
        assert_eq!(after(&events), Some(Action::SearchAgain));
    }

    #[test]
    fn what_a_killed_main_leaves_is_killed() {
        for (status, patience) in [(KILLED, Duration::ZERO), (TERMINATED, PATIENCE), (OK, PATIENCE)] {
            let events = [Event::ParentEnded(OK), Event::Found, died(status)];
            assert_eq!(after(&events), Some(Action::Clear { patience, may_keep: true }), "{status:?}");
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let status = || prop_oneof![Just(OK), Just(KILLED), Just(TERMINATED), Just(WaitStatus::exited(7))];
        prop_oneof![
            4 => (1..64).prop_map(Event::Signal),
            1 => Just(Event::LimitOver),
            4 => status().prop_map(Event::ParentEnded),
            6 => Just(Event::Found),
            1 => (any::<u8>(), any::<u8>()).prop_map(|(code, later)| Event::NoMain { code, later }),
            4 => (status(), any::<bool>()).prop_map(|(status, members_left)| Event::MainEnded { status, members_left }),
            1 => Just(Event::Cleared),
            1 => Just(Event::OuterGone),
        ]
    }

    proptest! {
        #[test]
        fn it_says_ready_once_and_ends_only_when_nobody_is_left(events in proptest::collection::vec(event(), 0..40)) {
            let mut core = Core::default();
            let (mut notified, mut clearing, mut over) = (0, false, false);
            for event in events {
                let action = core.handle(event);
                prop_assert!(!over || action.is_none(), "something happens after the end");
                if event == Event::OuterGone && !over {
                    prop_assert_eq!(action, Some(Action::Clear { patience: Duration::ZERO, may_keep: false }));
                }
                match action {
                    Some(Action::Notify) => {
                        notified += 1;
                        prop_assert!(event == Event::Found && notified == 1);
                    }
                    Some(Action::Clear { .. }) => clearing = true,
                    Some(Action::Exit { .. }) => {
                        prop_assert!(clearing && event == Event::Cleared);
                        over = true;
                    }
                    Some(Action::Send(_) | Action::Search | Action::SearchAgain | Action::KillParent) => {
                        prop_assert!(!clearing);
                    }
                    None => {}
                }
            }
        }
    }
}
