//! When is a wait for services over? The core of s6-svwait, s6-svlisten and s6-svlisten1 (spec/supervision.md 9).
//!
//! Letters go in one at a time, each for one service; after each one [`Waiting::verdict`] may be there. A wait for a
//! restart has two targets, which each service meets in its own time: no letter that comes early is lost.

/// A state of a service that can be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Run is there: `-u`.
    Up,
    /// Run is there and has notified readiness: `-U`.
    UpReady,
    /// Run is not there; finish may be: `-d`.
    Down,
    /// Neither run nor finish is there: `-D`.
    DownReady,
}

impl Target {
    fn is_up(self) -> bool {
        matches!(self, Target::Up | Target::UpReady)
    }

    fn is_ready(self) -> bool {
        matches!(self, Target::UpReady | Target::DownReady)
    }
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wish {
    /// What every service must have met once, before `last` counts for it.
    pub first: Option<Target>,
    /// What all services must meet at the same time.
    pub last: Target,
    /// One service that meets `last` is enough.
    pub any: bool,
}

/// What is known of one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Service {
    up: bool,
    ready: bool,
    /// The first target, if there is one, was met.
    begun: bool,
    /// Its letters do not matter any more: it failed, or its supervisor left.
    settled: bool,
    failed: bool,
}

impl Service {
    fn set(&mut self, wish: &Wish, up: bool, ready: bool) {
        (self.up, self.ready) = (up, ready);
        self.begun |= wish.first.is_none_or(|target| self.meets(target));
    }

    fn meets(&self, target: Target) -> bool {
        self.up == target.is_up() && (self.ready || !target.is_ready())
    }

    fn target(&self, wish: &Wish) -> Target {
        wish.first.filter(|_| !self.begun).unwrap_or(wish.last)
    }

    fn take(&mut self, wish: &Wish, letter: u8) {
        let target = self.target(wish);
        match letter {
            _ if self.settled => {}
            b'd' => self.set(wish, false, false),
            b'D' => self.set(wish, false, true),
            b'u' => self.set(wish, true, false),
            b'U' => self.set(wish, true, true),
            // The service is down for good.
            b'O' if target.is_up() => self.settle(true),
            // The supervisor left. That is a failure unless the state is exactly the target's pair: for Up and Down
            // also a readiness that was not asked for makes it one.
            b'x' => self.settle((self.up, self.ready) != (target.is_up(), target.is_ready())),
            _ => {}
        }
    }

    fn settle(&mut self, failed: bool) {
        (self.settled, self.failed, self.begun) = (true, failed, true);
    }

    fn is_reached(&self, wish: &Wish) -> bool {
        self.begun && (self.settled || self.meets(wish.last))
    }
}

/// A wait for one or more services.
#[derive(Debug)]
pub struct Waiting {
    wish: Wish,
    services: Vec<Service>,
    begun: usize,
    reached: usize,
    failed: usize,
}

impl Waiting {
    /// For no service yet, with room for `services`.
    pub fn new(wish: Wish, services: usize) -> Waiting {
        Waiting { wish, services: Vec::with_capacity(services), begun: 0, reached: 0, failed: 0 }
    }

    /// Adds a service in the state that its status file shows.
    pub fn add(&mut self, up: bool, ready: bool) {
        let mut service = Service { up, ready, begun: false, settled: false, failed: false };
        service.set(&self.wish, up, ready);
        self.services.push(service);
        self.count(service, 1);
    }

    /// Takes a letter of the service that was added at place `index`.
    pub fn take(&mut self, index: usize, letter: u8) {
        let mut service = self.services[index];
        self.count(service, -1);
        service.take(&self.wish, letter);
        self.count(service, 1);
        self.services[index] = service;
    }

    /// Once the wait is over: how many services failed.
    pub fn verdict(&self) -> Option<usize> {
        let enough = if self.wish.any { 1 } else { self.services.len() };
        (self.begun == self.services.len() && self.reached >= enough).then_some(self.failed)
    }

    fn count(&mut self, service: Service, by: isize) {
        let add = |sum: &mut usize, applies: bool| *sum = sum.wrapping_add_signed(if applies { by } else { 0 });
        add(&mut self.begun, service.begun);
        add(&mut self.reached, service.is_reached(&self.wish));
        add(&mut self.failed, service.failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    const TARGETS: [Target; 4] = [Target::Up, Target::UpReady, Target::Down, Target::DownReady];

    fn waiting(wish: Wish, services: &[(bool, bool)]) -> Waiting {
        let mut waiting = Waiting::new(wish, services.len());
        services.iter().for_each(|&(up, ready)| waiting.add(up, ready));
        waiting
    }

    /// The verdict after the letters up to the one that brings it.
    fn outcome(wish: Wish, services: &[(bool, bool)], letters: &[(usize, &str)]) -> Option<usize> {
        let mut waiting = waiting(wish, services);
        for (index, letters) in letters {
            for letter in letters.bytes() {
                if waiting.verdict().is_none() {
                    waiting.take(*index, letter);
                }
            }
        }
        waiting.verdict()
    }

    fn all(last: Target) -> Wish {
        Wish { first: None, last, any: false }
    }

    const UP: (bool, bool) = (true, false);
    const DOWN: (bool, bool) = (false, true);

    #[test]
    fn one_service() {
        for (target, service, letters, want) in [
            (Target::Up, UP, "", Some(0)),
            (Target::Up, DOWN, "", None),
            (Target::Up, DOWN, "u", Some(0)),
            (Target::UpReady, DOWN, "u", None),
            (Target::UpReady, DOWN, "uU", Some(0)),
            (Target::Down, UP, "d", Some(0)),
            (Target::DownReady, UP, "d", None),
            (Target::DownReady, UP, "dD", Some(0)),
            (Target::Down, UP, "dDu", Some(0)),
            (Target::Up, DOWN, "OD", Some(1)),
            (Target::Down, UP, "O", None),
            (Target::DownReady, UP, "dOD", Some(0)),
            (Target::Up, DOWN, "x", Some(1)),
            (Target::Down, UP, "x", Some(1)),
            (Target::UpReady, DOWN, "udOD", Some(1)),
            (Target::Up, DOWN, "s?y", None),
        ] {
            assert_eq!(outcome(all(target), &[service], &[(0, letters)]), want, "{target:?} {service:?} {letters}");
        }
    }

    #[test]
    fn a_restart_is_seen_in_one_batch() {
        for (first, last, letters, want) in [
            (Target::Down, Target::Up, "du", Some(0)),
            (Target::Down, Target::UpReady, "dDuU", Some(0)),
            (Target::DownReady, Target::Up, "du", None),
            (Target::DownReady, Target::Up, "dDu", Some(0)),
            (Target::Down, Target::Up, "dOD", Some(1)),
            (Target::Down, Target::Up, "dDx", Some(1)),
        ] {
            let wish = Wish { first: Some(first), last, any: false };
            assert_eq!(outcome(wish, &[UP], &[(0, letters)]), want, "{first:?} {letters}");
        }
    }

    #[test]
    fn services_restart_each_in_its_own_time() {
        let wish = Wish { first: Some(Target::Down), last: Target::Up, any: false };
        assert_eq!(outcome(wish, &[UP, UP], &[(0, "du"), (1, "d")]), None);
        assert_eq!(outcome(wish, &[UP, UP], &[(0, "du"), (1, "du")]), Some(0));
        assert_eq!(outcome(wish, &[UP, UP], &[(0, "dOD"), (1, "du")]), Some(1));
        let any = Wish { any: true, ..wish };
        assert_eq!(outcome(any, &[UP, UP], &[(0, "du")]), None);
        assert_eq!(outcome(any, &[UP, UP], &[(0, "du"), (1, "d")]), Some(0));
    }

    #[test]
    fn all_services_must_be_there_together() {
        assert_eq!(outcome(all(Target::Up), &[DOWN, DOWN], &[(0, "ud"), (1, "u")]), None);
        assert_eq!(outcome(all(Target::Up), &[DOWN, DOWN], &[(0, "udu"), (1, "u")]), Some(0));
    }

    #[test]
    fn a_failure_is_not_forgotten() {
        assert_eq!(outcome(all(Target::Up), &[DOWN, DOWN], &[(0, "OD"), (1, "u")]), Some(1));
        assert_eq!(outcome(all(Target::Up), &[DOWN, DOWN], &[(0, "ODu"), (1, "OD")]), Some(2));
    }

    #[test]
    fn a_supervisor_that_leaves_settles_its_service() {
        let ready = (true, true);
        for (target, service, letters, want) in [
            (Target::Up, UP, "x", 0),
            (Target::Up, ready, "x", 1),
            (Target::UpReady, ready, "x", 0),
            (Target::Down, UP, "dx", 0),
            (Target::Down, UP, "dDx", 1),
            (Target::DownReady, UP, "dDx", 0),
        ] {
            // Somebody else must still be waited for, or the wait is over before the letter x.
            let other = (!target.is_up(), false);
            let meanwhile = match target {
                Target::Up => "u",
                Target::UpReady => "U",
                Target::Down => "d",
                Target::DownReady => "D",
            };
            let outcome = outcome(all(target), &[service, other], &[(0, letters), (1, meanwhile)]);
            assert_eq!(outcome, Some(want), "{target:?} {service:?} {letters}");
        }
    }

    fn wishes() -> impl Strategy<Value = Wish> {
        (prop::option::of(select(vec![Target::Down, Target::DownReady])), select(TARGETS.to_vec()), any::<bool>())
            .prop_map(|(first, last, any)| Wish { first, last, any })
    }

    proptest! {
        #[test]
        fn the_verdict_is_what_the_histories_say(
            wish in wishes(),
            start in prop::collection::vec(any::<(bool, bool)>(), 1..5),
            letters in prop::collection::vec((any::<prop::sample::Index>(), select(b"dDuUOxs".to_vec())), 0..40),
        ) {
            let mut waiting = waiting(wish, &start);
            let mut failed_before = 0;
            for (index, letter) in letters {
                let index = index.index(start.len());
                let before = waiting.services[index];
                waiting.take(index, letter);
                let after = waiting.services[index];
                let services = &waiting.services;

                // What is counted is what is there.
                prop_assert_eq!(waiting.begun, services.iter().filter(|s| s.begun).count());
                prop_assert_eq!(waiting.reached, services.iter().filter(|s| s.is_reached(&wish)).count());
                prop_assert_eq!(waiting.failed, services.iter().filter(|s| s.failed).count());
                // Failures, departures and first targets are for ever, and only O and x bring a failure.
                prop_assert!(waiting.failed >= failed_before);
                prop_assert!(!before.settled || after == before);
                prop_assert!(!before.begun || after.begun);
                prop_assert!(waiting.failed == failed_before || b"Ox".contains(&letter));
                prop_assert!(after.settled || !after.failed);
                failed_before = waiting.failed;
                // The verdict is there exactly when enough services are settled or where they should be.
                let there = |s: &Service| s.settled || (s.up == wish.last.is_up() && (s.ready || !wish.last.is_ready()));
                let there = services.iter().filter(|s| s.begun && there(s)).count();
                let enough = if wish.any { there > 0 } else { there == services.len() };
                let begun = services.iter().all(|s| s.begun);
                prop_assert_eq!(waiting.verdict(), (begun && enough).then_some(failed_before));
            }
        }

        #[test]
        fn without_failures_only_the_last_letter_of_each_service_counts(
            target in select(TARGETS.to_vec()),
            letters in prop::collection::vec((0usize..3, select(b"dDuU".to_vec())), 0..40),
        ) {
            let mut waiting = waiting(all(target), &[DOWN; 3]);
            let mut states = [b'D'; 3];
            for (index, letter) in letters {
                waiting.take(index, letter);
                states[index] = letter;
            }
            let meets = |letter: &u8| match target {
                Target::Up => b"uU".contains(letter),
                Target::UpReady => *letter == b'U',
                Target::Down => b"dD".contains(letter),
                Target::DownReady => *letter == b'D',
            };
            prop_assert_eq!(waiting.verdict(), states.iter().all(meets).then_some(0));
        }
    }
}
