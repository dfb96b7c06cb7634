//! The core of s6-notifyoncheck: when to run a check, when to give up (spec/events-and-fdholding.md 5).

use std::time::{Duration, Instant};

/// What to do, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Before the first check.
    pub initial_sleep: Duration,
    /// Between the end of a check and the next.
    pub waiting_time: Duration,
    /// For one check.
    pub local_limit: Option<Duration>,
    /// For everything.
    pub global_limit: Option<Duration>,
    /// How many checks; without, as many as it takes.
    pub tries: Option<u32>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The check that was running ended.
    Ended {
        /// Whether the service is ready.
        success: bool,
    },
    /// The check could not be started.
    NotStarted,
    /// The service died.
    Died,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Wait for an event, or for the deadline.
    Wait,
    /// Start a check.
    Start,
    /// Kill the check that is running: it took too long.
    Kill,
    /// Kill a check that is running, and end.
    End(Outcome),
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The service is ready: say so.
    Ready,
    /// No try is left.
    Failed,
    /// The service died first.
    Died,
    /// It took too long.
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Sleeping { until: Instant },
    Running { deadline: Option<Instant> },
}

/// The checks of one service.
#[derive(Debug)]
pub struct Checks {
    settings: Settings,
    state: State,
    deadline: Option<Instant>,
    tries_left: Option<u32>,
}

impl Checks {
    /// Begins.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Checks {
            settings,
            state: State::Sleeping { until: now + settings.initial_sleep },
            deadline: settings.global_limit.map(|limit| now + limit),
            tries_left: settings.tries,
        }
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let next = match self.state {
            State::Sleeping { until } => Some(until),
            State::Running { deadline } => deadline,
        };
        next.into_iter().chain(self.deadline).min()
    }

    /// What to do after an event.
    pub fn step(&mut self, event: Event, now: Instant) -> Action {
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        match (event, self.state) {
            (Event::Ended { success: true }, _) => Action::End(Outcome::Ready),
            (Event::Died, _) => Action::End(Outcome::Died),
            _ if is_over(self.deadline) => Action::End(Outcome::TimedOut),
            (Event::Ended { success: false } | Event::NotStarted, _) => self.failed(now, Action::Wait),
            (Event::Tick, State::Sleeping { until }) if until <= now => {
                self.state = State::Running { deadline: self.settings.local_limit.map(|limit| now + limit) };
                Action::Start
            }
            (Event::Tick, State::Running { deadline }) if is_over(deadline) => self.failed(now, Action::Kill),
            (Event::Tick, _) => Action::Wait,
        }
    }

    /// One try less; `action` if there are more.
    fn failed(&mut self, now: Instant, action: Action) -> Action {
        self.tries_left = self.tries_left.map(|tries| tries.saturating_sub(1));
        self.state = State::Sleeping { until: now + self.settings.waiting_time };
        if self.tries_left == Some(0) { Action::End(Outcome::Failed) } else { action }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings {
        initial_sleep: Duration::from_millis(10),
        waiting_time: Duration::from_millis(1000),
        local_limit: Some(Duration::from_millis(300)),
        global_limit: Some(Duration::from_millis(5000)),
        tries: Some(2),
    };

    #[test]
    fn a_check_that_hangs_is_killed_and_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut checks = Checks::new(SETTINGS, start);
        assert_eq!(checks.step(Event::Tick, at(5)), Action::Wait);
        assert_eq!(checks.deadline(), Some(at(10)));
        assert_eq!(checks.step(Event::Tick, at(10)), Action::Start);
        assert_eq!(checks.deadline(), Some(at(310)));
        assert_eq!(checks.step(Event::Tick, at(310)), Action::Kill);
        assert_eq!(checks.deadline(), Some(at(1310)));
        assert_eq!(checks.step(Event::Tick, at(1310)), Action::Start);
        assert_eq!(checks.step(Event::Ended { success: false }, at(1400)), Action::End(Outcome::Failed));
    }

    #[test]
    fn the_whole_takes_no_longer_than_its_limit() {
        let start = Instant::now();
        let mut checks = Checks::new(Settings { local_limit: None, tries: None, ..SETTINGS }, start);
        checks.step(Event::Tick, start + Duration::from_millis(10));
        assert_eq!(checks.deadline(), Some(start + Duration::from_millis(5000)));
        let over = checks.step(Event::Tick, start + Duration::from_millis(5000));
        assert_eq!(over, Action::End(Outcome::TimedOut));
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            10 => Just(Event::Tick),
            4 => Just(Event::Ended { success: false }),
            2 => Just(Event::NotStarted),
            1 => Just(Event::Ended { success: true }),
            1 => Just(Event::Died),
        ]
    }

    proptest! {
        /// Never two checks at a time, never more than asked for, and ready only after a success.
        #[test]
        fn one_check_at_a_time(
            events in prop::collection::vec((event(), 0..2000u64), 0..100),
            tries in prop::option::of(1..9u32), global in prop::option::of(1..60_000u64), local in prop::option::of(1..3000u64),
        ) {
            let limit = |ms: Option<u64>| ms.map(Duration::from_millis);
            let settings = Settings { global_limit: limit(global), local_limit: limit(local), tries, ..SETTINGS };
            let start = Instant::now();
            let (mut checks, mut now) = (Checks::new(settings, start), start);
            let (mut running, mut started) = (false, 0);
            for (event, wait) in events {
                let event = if matches!(event, Event::Ended { .. } | Event::NotStarted) && !running { Event::Tick } else { event };
                now += Duration::from_millis(wait);
                running &= !matches!(event, Event::Ended { .. } | Event::NotStarted);
                match checks.step(event, now) {
                    Action::Start => {
                        prop_assert!(!running);
                        running = true;
                        started += 1;
                    }
                    Action::Kill => {
                        prop_assert!(running && local.is_some());
                        running = false;
                    }
                    Action::Wait => prop_assert!(checks.deadline().is_none_or(|deadline| deadline > now || event != Event::Tick)),
                    Action::End(outcome) => {
                        prop_assert_eq!(outcome == Outcome::Ready, event == Event::Ended { success: true });
                        prop_assert!(outcome != Outcome::TimedOut || global.is_some());
                        prop_assert!(outcome != Outcome::Failed || Some(started) == tries);
                        break;
                    }
                }
                prop_assert!(tries.is_none_or(|tries| started <= tries));
            }
        }
    }
}
