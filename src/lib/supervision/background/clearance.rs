//! Ending what a dead main left behind, so that nothing of it runs on unsupervised or holds the port when the next
//! instance starts (spec/forking-daemons.md 5).

use std::time::{Duration, Instant};

use crate::servicedir::files;
use crate::sys::process::{self, Entry, Watch, knows_descendants};
use crate::sys::wait::has_children;
use crate::sys::{Pid, signal};

/// How long members may take to follow SIGTERM, unless main was killed: then they get none.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// The first pause between two rounds of SIGKILL. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// What the kernel does not let die in this time, it does not let die soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// [`PATIENCE`], or what is left of it where the service has less time to go down. To be asked in the service directory.
pub fn patience() -> Duration {
    files::limit(c"timeout-kill", None).unwrap_or(PATIENCE).min(PATIENCE)
}

/// How far the clearance is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// No member is left.
    Done,
    /// To be continued when a child died, or at this time.
    Wait(Instant),
}

/// What the clearance sees and does.
trait Members {
    /// Live members.
    fn list(&mut self) -> Vec<Entry>;
    /// Whether there may be some that the list, made while they come and go, has missed.
    fn may_be_more(&mut self) -> bool;
    /// Sends a signal to one.
    fn signal(&mut self, member: &Entry, number: i32);
}

/// SIGTERM and SIGCONT to every member, after a time SIGKILL, until none is left.
#[derive(Debug)]
pub struct Clearance {
    patient_until: Instant,
    pause: Duration,
    told: Vec<Pid>,
}

impl Clearance {
    /// Begins now. No patience at all means SIGKILL at once.
    pub fn new(now: Instant, patience: Duration) -> Self {
        Clearance { patient_until: now + patience, pause: FIRST_PAUSE, told: Vec::new() }
    }

    /// Does what is due: at the beginning, whenever children died and were reaped, and at the time it asked for.
    /// `others` and what descends from them are left alone.
    pub fn step(&mut self, now: Instant, others: &[Pid]) -> Step {
        self.advance(now, &mut Descendants(others))
    }

    fn advance(&mut self, now: Instant, members: &mut impl Members) -> Step {
        let list = members.list();
        if list.is_empty() && !members.may_be_more() {
            return Step::Done;
        }
        if now < self.patient_until && !list.is_empty() {
            for member in list.iter().filter(|m| !self.told.contains(&m.pid)) {
                members.signal(member, libc::SIGTERM);
                members.signal(member, libc::SIGCONT);
            }
            self.told = list.iter().map(|m| m.pid).collect();
            return Step::Wait(self.patient_until);
        }
        list.iter().for_each(|member| members.signal(member, libc::SIGKILL));
        let again = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Step::Wait(again)
    }
}

/// The descendants of this process, but for these and theirs.
struct Descendants<'a>(&'a [Pid]);

impl Members for Descendants<'_> {
    fn list(&mut self) -> Vec<Entry> {
        process::descendants(self.0)
    }

    fn may_be_more(&mut self) -> bool {
        self.0.is_empty() && has_children() && knows_descendants()
    }

    fn signal(&mut self, member: &Entry, number: i32) {
        if member.parent == nix::unistd::getpid() {
            // A child that nobody reaped meanwhile: its number is still its own.
            let _ = signal::kill(member.pid, number);
        } else if let Ok(watch) = Watch::open(member.pid)
            && process::descends_past(member.pid, self.0)
        {
            let _ = watch.kill(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A family that forks and obeys as it likes.
    #[derive(Debug, Default)]
    struct Family {
        alive: Vec<Pid>,
        born: i32,
        /// Whether the next one that gets a signal forks first; when it is empty nobody forks any more.
        forks: Vec<bool>,
        /// Whether the next one that gets SIGTERM obeys.
        obeys: Vec<bool>,
        heard: Vec<(Pid, i32)>,
    }

    impl Family {
        fn fork(&mut self) {
            self.born += 1;
            self.alive.push(Pid::from_raw(self.born));
        }
    }

    impl Members for Family {
        fn list(&mut self) -> Vec<Entry> {
            self.alive.iter().map(|&pid| Entry { pid, parent: Pid::from_raw(0), alive: true }).collect()
        }

        fn may_be_more(&mut self) -> bool {
            false
        }

        fn signal(&mut self, member: &Entry, number: i32) {
            self.heard.push((member.pid, number));
            if !self.alive.contains(&member.pid) {
                return;
            }
            if self.forks.pop().unwrap_or(false) {
                self.fork();
            }
            if number == libc::SIGKILL || number == libc::SIGTERM && self.obeys.pop().unwrap_or(false) {
                self.alive.retain(|&pid| pid != member.pid);
            }
        }
    }

    proptest! {
        #[test]
        fn nobody_is_left_and_nobody_is_killed_who_had_time(
            size in 0..20,
            forks in proptest::collection::vec(any::<bool>(), 0..60),
            obeys in proptest::collection::vec(any::<bool>(), 0..60),
            patience in prop_oneof![Just(0), 1..2000u64],
        ) {
            let mut family = Family { forks, obeys, ..Family::default() };
            (0..size).for_each(|_| family.fork());
            let start = Instant::now();
            let patience = Duration::from_millis(patience);
            let mut clearance = Clearance::new(start, patience);
            let mut now = start;
            let mut rounds = 0;
            while let Step::Wait(again) = clearance.advance(now, &mut family) {
                prop_assert!(again > now && again <= now + patience.max(LONGEST_PAUSE));
                let killed = family.heard.iter().any(|&(_, number)| number == libc::SIGKILL);
                prop_assert!(!killed || now >= start + patience);
                now = again;
                rounds += 1;
                prop_assert!(rounds < 100, "it never ends");
            }
            prop_assert!(family.alive.is_empty());
            for pid in 1..=family.born {
                let heard = |number| family.heard.iter().filter(|&&(p, n)| p.as_raw() == pid && n == number).count();
                prop_assert!(heard(libc::SIGTERM) <= usize::from(!patience.is_zero()));
            }
        }
    }

    #[test]
    fn no_patience_is_no_sigterm() {
        let mut family = Family::default();
        family.fork();
        let now = Instant::now();
        assert!(matches!(Clearance::new(now, Duration::ZERO).advance(now, &mut family), Step::Wait(_)));
        assert_eq!(family.heard, [(Pid::from_raw(1), libc::SIGKILL)]);
    }
}
