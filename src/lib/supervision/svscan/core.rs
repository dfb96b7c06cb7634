//! What s6-svscan knows and decides: the services of a scan directory by (device, inode), which of them run, when
//! the next one is started, who is told to end (spec/supervision.md 4). No I/O and no clock.
//!
//! Memory is asked for only when a scan finds a service that is not known, and an allocation that fails leaves that
//! service out until the next scan: process 1 does not end for want of memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

/// The least time between two starts of one supervisor.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait after a supervisor that could not be started.
const RETRY: Duration = Duration::from_secs(10);
/// The service that takes the output of all that have no logger: it counts as a logger.
pub const CATCH_ALL: &CStr = c"s6-svscan-log";

/// Which directory: names may be links, and change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// A place in the table; stays the same as long as the service is known.
pub type Slot = usize;

/// What a service has to do with logging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Nothing.
    Plain,
    /// Its stdout goes to the pipe of this slot, which `logger` reads.
    Logged {
        /// The reader.
        logger: Slot,
    },
    /// Its stdin is the pipe of `producer`; none if that is forgotten already.
    Logger {
        /// The writer, under whose slot the pipe is kept.
        producer: Option<Slot>,
    },
}

/// One service directory.
#[derive(Debug)]
pub struct Service {
    id: Id,
    name: CString,
    role: Role,
    /// Found by the last scan.
    active: bool,
    /// The scan that found it last.
    scan: u64,
    pid: Option<i32>,
    started: Option<Instant>,
    /// Distinguishes the entry of the start queue that counts.
    start_at: Option<Instant>,
}

impl Service {
    /// The name under which s6-supervise is started.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// What it has to do with logging.
    pub fn role(&self) -> Role {
        self.role
    }

    /// A logger ends by end of file, when those who write to it are gone.
    fn is_logger(&self) -> bool {
        matches!(self.role, Role::Logger { .. }) || self.name.as_c_str() == CATCH_ALL
    }
}

/// What a directory that the scan found means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing new.
    Known,
    /// A new service, or a new logger of a known one, which is in the table now. With a logger: the slot under
    /// which the pipe is to be kept, and which must have one before anything is started.
    Added {
        /// The slot for the pipe.
        pipe: Option<Slot>,
    },
    /// It cannot be paired with its logger while an earlier pairing of one of the two lives.
    Blocked,
    /// The table may not grow further.
    Full,
    /// No memory.
    NoMemory,
}

/// A service is not known any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forgotten {
    /// The slot of the pipe that has no use now.
    pub pipe: Option<Slot>,
}

/// Whom [`Table::signals`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whom {
    /// All supervisors.
    All,
    /// Those of services that the last scan did not find.
    Inactive,
}

/// The services.
#[derive(Debug)]
pub struct Table {
    services: Vec<Option<Service>>,
    free: Vec<Slot>,
    by_id: HashMap<Id, Slot>,
    by_pid: HashMap<i32, Slot>,
    /// Starts to come, earliest first. An entry counts if it equals the service's own `start_at`.
    queue: BinaryHeap<Reverse<(Instant, Slot)>>,
    most: usize,
    scan: u64,
    /// Something was left out because an old pairing lives: its end is a reason to scan.
    blocked: bool,
}

impl Table {
    /// An empty table for at most `most` services, loggers included.
    pub fn new(most: usize) -> Self {
        Table {
            services: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_pid: HashMap::new(),
            queue: BinaryHeap::new(),
            most,
            scan: 0,
            blocked: false,
        }
    }

    /// A service by its slot.
    pub fn get(&self, slot: Slot) -> Option<&Service> {
        self.services.get(slot)?.as_ref()
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Service> {
        self.services.get_mut(slot)?.as_mut()
    }

    fn by_id(&self, id: Id) -> Option<(Slot, &Service)> {
        let slot = *self.by_id.get(&id)?;
        Some((slot, self.get(slot)?))
    }

    /// How many services are known.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a supervisor runs.
    pub fn any_running(&self) -> bool {
        !self.by_pid.is_empty()
    }

    /// Whether a service has this name now.
    pub fn has(&self, name: &CStr) -> bool {
        self.services.iter().flatten().any(|s| s.name.as_c_str() == name)
    }

    /// A scan begins.
    pub fn begin_scan(&mut self) {
        self.scan += 1;
        self.blocked = false;
    }

    /// The scan found a directory, and whether it has a logger. Known services are marked; new ones come into the
    /// table, due to start at once.
    pub fn found(&mut self, now: Instant, name: &CStr, id: Id, log: Option<Id>) -> Found {
        let known = self.by_id(id).map(|(slot, service)| (slot, service.role));
        let logger = log.map(|log| (log, self.by_id(log).map(|(slot, service)| (slot, service.role))));
        match (known, logger) {
            (Some((slot, _)), None) => {
                self.mark(slot, name);
                Found::Known
            }
            (Some((slot, Role::Logged { logger })), Some((_, Some((there, _))))) if logger == there => {
                self.mark(slot, name);
                self.mark(logger, &log_name(name));
                Found::Known
            }
            // The logger that belongs to this directory now is not the one that still has its pipe, or it is
            // somebody else's, or a service of its own.
            (Some((slot, Role::Logged { .. } | Role::Logger { .. })), Some(_)) => {
                self.mark(slot, name);
                self.block()
            }
            (Some((slot, Role::Plain)), Some((_, Some(_)))) => {
                self.mark(slot, name);
                self.block()
            }
            (None, Some((_, Some(_)))) => self.block(),
            (Some((slot, Role::Plain)), Some((log, None))) => {
                self.mark(slot, name);
                self.add(now, &log_name(name), log, Role::Logger { producer: Some(slot) }, 1).map_or_else(
                    |failure| failure,
                    |logger| {
                        self.set_role(slot, Role::Logged { logger });
                        Found::Added { pipe: Some(slot) }
                    },
                )
            }
            (None, None) => match self.add(now, name, id, Role::Plain, 1) {
                Ok(_) => Found::Added { pipe: None },
                Err(failure) => failure,
            },
            (None, Some((log, None))) => self.add_pair(now, name, id, log),
        }
    }

    fn add_pair(&mut self, now: Instant, name: &CStr, id: Id, log: Id) -> Found {
        let producer = match self.add(now, name, id, Role::Plain, 2) {
            Ok(slot) => slot,
            Err(failure) => return failure,
        };
        match self.add(now, &log_name(name), log, Role::Logger { producer: Some(producer) }, 1) {
            Ok(logger) => {
                self.set_role(producer, Role::Logged { logger });
                Found::Added { pipe: Some(producer) }
            }
            Err(failure) => {
                self.forget(producer);
                failure
            }
        }
    }

    fn block(&mut self) -> Found {
        self.blocked = true;
        Found::Blocked
    }

    fn mark(&mut self, slot: Slot, name: &CStr) {
        let scan = self.scan;
        if let Some(service) = self.get_mut(slot) {
            service.scan = scan;
            service.active = true;
            if service.name.as_c_str() != name {
                service.name = name.to_owned();
            }
        }
    }

    /// Puts a service into the table, if `room` more fit.
    fn add(&mut self, now: Instant, name: &CStr, id: Id, role: Role, room: usize) -> Result<Slot, Found> {
        if self.len() + room > self.most {
            return Err(Found::Full);
        }
        // Each service has at most one entry in the queue that counts and one that does not any more.
        let most = self.len() + 1;
        let reserved = self
            .services
            .try_reserve(1)
            .and_then(|()| self.free.try_reserve((2 * most).saturating_sub(self.free.len())))
            .and_then(|()| self.queue.try_reserve((2 * most).saturating_sub(self.queue.len())))
            .is_ok()
            && self.by_id.try_reserve(1).is_ok()
            && self.by_pid.try_reserve(most.saturating_sub(self.by_pid.len())).is_ok();
        if !reserved {
            return Err(Found::NoMemory);
        }
        let service = Service {
            id,
            name: name.to_owned(),
            role,
            active: true,
            scan: self.scan,
            pid: None,
            started: None,
            start_at: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.services[slot] = Some(service);
                slot
            }
            None => {
                self.services.push(Some(service));
                self.services.len() - 1
            }
        };
        self.by_id.insert(id, slot);
        self.schedule(slot, now);
        Ok(slot)
    }

    fn set_role(&mut self, slot: Slot, role: Role) {
        if let Some(service) = self.get_mut(slot) {
            service.role = role;
        }
    }

    fn schedule(&mut self, slot: Slot, at: Instant) {
        if let Some(service) = self.get_mut(slot) {
            service.start_at = Some(at);
            self.queue.push(Reverse((at, slot)));
        }
    }

    /// Takes back what [`Table::found`] added, because its pipe could not be made. A producer that was known before
    /// stays, without logger.
    pub fn undo(&mut self, pipe: Slot) {
        let Some(Role::Logged { logger }) = self.get(pipe).map(|s| s.role) else { return };
        let fresh = self.get(pipe).is_some_and(|s| s.pid.is_none() && s.started.is_none());
        self.forget(logger);
        if fresh {
            self.forget(pipe);
        }
    }

    /// The scan is over. If it saw everything, services that it did not find are inactive from now on, and those of
    /// them that do not run are forgotten, each with a call of `forgotten`.
    pub fn end_scan(&mut self, complete: bool, mut forgotten: impl FnMut(Forgotten)) {
        if !complete {
            return;
        }
        for slot in 0..self.services.len() {
            let scan = self.scan;
            let Some(service) = self.get_mut(slot) else { continue };
            if service.scan != scan {
                service.active = false;
                if service.pid.is_none() {
                    forgotten(self.forget(slot));
                }
            }
        }
    }

    /// Removes a service. Its partner stays, without it, and without their pipe.
    fn forget(&mut self, slot: Slot) -> Forgotten {
        let Some(service) = self.services.get_mut(slot).and_then(Option::take) else {
            return Forgotten { pipe: None };
        };
        self.by_id.remove(&service.id);
        if let Some(pid) = service.pid {
            self.by_pid.remove(&pid);
        }
        self.free.push(slot);
        let pipe = match service.role {
            Role::Plain | Role::Logger { producer: None } => None,
            Role::Logged { logger } => {
                self.set_role(logger, Role::Logger { producer: None });
                Some(slot)
            }
            Role::Logger { producer: Some(producer) } => {
                self.set_role(producer, Role::Plain);
                Some(producer)
            }
        };
        Forgotten { pipe }
    }

    /// When the next supervisor is due.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.drop_void_entries();
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// The next service whose supervisor is due; it counts as taken, and one of [`Table::started`] and
    /// [`Table::start_failed`] must follow.
    pub fn next_due(&mut self, now: Instant) -> Option<Slot> {
        self.drop_void_entries();
        let slot = match self.queue.peek() {
            Some(&Reverse((at, slot))) if at <= now => slot,
            _ => return None,
        };
        self.queue.pop();
        self.get_mut(slot)?.start_at = None;
        Some(slot)
    }

    fn drop_void_entries(&mut self) {
        while let Some(&Reverse((at, slot))) = self.queue.peek() {
            if self.get(slot).is_some_and(|s| s.start_at == Some(at)) {
                return;
            }
            self.queue.pop();
        }
    }

    /// A supervisor was started.
    pub fn started(&mut self, now: Instant, slot: Slot, pid: i32) {
        if let Some(service) = self.get_mut(slot) {
            service.pid = Some(pid);
            service.started = Some(now);
            self.by_pid.insert(pid, slot);
        }
    }

    /// A supervisor could not be started.
    pub fn start_failed(&mut self, now: Instant, slot: Slot) {
        self.schedule(slot, now + RETRY);
    }

    /// A child ended. If it was the supervisor of an active service, it will be started again; of an inactive one,
    /// the service is forgotten.
    pub fn died(&mut self, now: Instant, pid: i32) -> Option<Forgotten> {
        let slot = self.by_pid.remove(&pid)?;
        let service = self.get_mut(slot)?;
        service.pid = None;
        if service.active {
            let at = service.started.map_or(now, |started| (started + PAUSE).max(now));
            self.schedule(slot, at);
            return None;
        }
        Some(self.forget(slot))
    }

    /// Whether a scan left something out that it would find now.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// No supervisor is started any more: what does not run is forgotten, what dies will be.
    pub fn close(&mut self) {
        for slot in 0..self.services.len() {
            let Some(service) = self.get_mut(slot) else { continue };
            service.active = false;
            if service.pid.is_none() {
                self.forget(slot);
            }
        }
    }

    /// The supervisors to tell to end, and whether each is that of a logger.
    pub fn signals(&self, whom: Whom) -> impl Iterator<Item = (i32, bool)> {
        let running = self.services.iter().flatten().filter(move |s| whom == Whom::All || !s.active);
        running.filter_map(|s| Some((s.pid?, s.is_logger())))
    }
}

/// `name/log`.
pub fn log_name(name: &CStr) -> CString {
    CString::new([name.to_bytes(), b"/log"].concat()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn id(inode: u64) -> Id {
        Id { device: 1, inode }
    }

    fn start_all(table: &mut Table, now: Instant, next_pid: &mut i32) {
        while let Some(slot) = table.next_due(now) {
            *next_pid += 1;
            table.started(now, slot, *next_pid);
        }
    }

    #[test]
    fn a_service_and_its_logger_are_two_supervisors_and_one_pipe() {
        let now = Instant::now();
        let mut table = Table::new(10);
        table.begin_scan();
        assert_eq!(table.found(now, c"a", id(1), Some(id(2))), Found::Added { pipe: Some(0) });
        table.end_scan(true, |_| panic!("nothing to forget"));
        let mut pid = 100;
        start_all(&mut table, now, &mut pid);
        assert_eq!(table.get(0).unwrap().role(), Role::Logged { logger: 1 });
        assert_eq!(table.get(1).unwrap().name(), c"a/log");
        assert_eq!(table.signals(Whom::All).collect::<Vec<_>>(), [(101, false), (102, true)]);
    }

    #[test]
    fn two_names_of_one_directory_are_one_service() {
        let now = Instant::now();
        let mut table = Table::new(10);
        table.begin_scan();
        table.found(now, c"a", id(1), None);
        assert_eq!(table.found(now, c"b", id(1), None), Found::Known);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_supervisor_that_lived_long_restarts_at_once_and_a_short_one_waits() {
        let now = Instant::now();
        let mut table = Table::new(10);
        table.begin_scan();
        table.found(now, c"a", id(1), None);
        table.end_scan(true, |_| ());
        start_all(&mut table, now, &mut 100);
        table.died(now, 101);
        assert_eq!(table.deadline(), Some(now + PAUSE));
        start_all(&mut table, now + PAUSE, &mut 200);
        table.died(now + 9 * PAUSE, 201);
        assert_eq!(table.deadline(), Some(now + 9 * PAUSE));
    }

    #[test]
    fn what_is_not_found_is_forgotten_when_it_dies() {
        let now = Instant::now();
        let mut table = Table::new(10);
        table.begin_scan();
        table.found(now, c"a", id(1), None);
        table.end_scan(true, |_| ());
        start_all(&mut table, now, &mut 100);
        table.begin_scan();
        table.end_scan(true, |_| panic!("it runs"));
        assert_eq!(table.signals(Whom::Inactive).count(), 1);
        assert_eq!(table.died(now, 101), Some(Forgotten { pipe: None }));
        assert!(table.is_empty() && table.deadline().is_none());
    }

    #[test]
    fn more_than_fits_is_left_out_and_the_rest_is_not() {
        let now = Instant::now();
        let mut table = Table::new(3);
        table.begin_scan();
        assert_eq!(table.found(now, c"a", id(1), Some(id(2))), Found::Added { pipe: Some(0) });
        assert_eq!(table.found(now, c"b", id(3), Some(id(4))), Found::Full);
        assert_eq!(table.found(now, c"c", id(5), None), Found::Added { pipe: None });
        assert_eq!(table.found(now, c"d", id(6), None), Found::Full);
    }

    #[test]
    fn a_new_logger_waits_for_the_end_of_the_old_one() {
        let now = Instant::now();
        let mut table = Table::new(10);
        table.begin_scan();
        table.found(now, c"a", id(1), Some(id(2)));
        table.end_scan(true, |_| ());
        start_all(&mut table, now, &mut 100);
        table.begin_scan();
        assert_eq!(table.found(now, c"a", id(1), Some(id(3))), Found::Blocked);
        table.end_scan(true, |_| ());
        assert!(table.is_blocked());
        assert_eq!(table.died(now, 102), Some(Forgotten { pipe: Some(0) }), "the old logger is forgotten");
        table.begin_scan();
        assert_eq!(table.found(now, c"a", id(1), Some(id(3))), Found::Added { pipe: Some(0) });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Scan(Vec<(u64, Option<u64>)>, bool),
        Die(usize),
        Wait(u64),
        FailStarts(bool),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (prop::collection::vec((0u64..8, prop::option::of(8u64..12)), 0..8), any::<bool>())
                .prop_map(|(list, complete)| Step::Scan(list, complete)),
            any::<usize>().prop_map(Step::Die),
            (0u64..3000).prop_map(Step::Wait),
            any::<bool>().prop_map(Step::FailStarts),
        ]
    }

    proptest! {
        #[test]
        fn no_service_is_lost_or_doubled(steps in prop::collection::vec(any_step(), 0..100)) {
            let mut now = Instant::now();
            let mut table = Table::new(12);
            let mut pid = 100;
            let mut failing = false;
            let mut pipes = HashSet::new();
            for step in steps {
                match step {
                    Step::Scan(list, complete) => {
                        table.begin_scan();
                        for (dir, log) in list {
                            let name = CString::new(format!("s{dir}")).unwrap();
                            if let Found::Added { pipe: Some(slot) } = table.found(now, &name, id(dir), log.map(id)) {
                                prop_assert!(pipes.insert(slot), "a second pipe for one service");
                            }
                        }
                        table.end_scan(complete, |_| ());
                    }
                    Step::Die(which) => {
                        let running: Vec<i32> = table.signals(Whom::All).map(|(pid, _)| pid).collect();
                        if !running.is_empty() {
                            table.died(now, running[which % running.len()]);
                        }
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::FailStarts(on) => failing = on,
                }
                pipes.retain(|&slot| matches!(table.get(slot).map(|s| s.role()), Some(Role::Logged { .. })));
                while let Some(slot) = table.next_due(now) {
                    prop_assert!(table.get(slot).unwrap().pid.is_none(), "two supervisors of one directory");
                    if failing {
                        table.start_failed(now, slot);
                    } else {
                        pid += 1;
                        table.started(now, slot, pid);
                    }
                }
                prop_assert!(table.len() <= 12);
                for service in table.services.iter().flatten() {
                    prop_assert!(service.pid.is_some() || service.start_at.is_some(), "wedged: {service:?}");
                    match service.role {
                        Role::Logged { logger } => {
                            let there = table.get(logger).map(|l| l.role);
                            let own = table.by_id[&service.id];
                            prop_assert_eq!(there, Some(Role::Logger { producer: Some(own) }));
                            prop_assert!(pipes.contains(&own), "no pipe");
                        }
                        Role::Logger { producer: Some(producer) } => {
                            let own = table.by_id[&service.id];
                            prop_assert_eq!(table.get(producer).map(|p| p.role), Some(Role::Logged { logger: own }));
                        }
                        Role::Logger { producer: None } | Role::Plain => {}
                    }
                }
                prop_assert_eq!(table.by_pid.len(), table.signals(Whom::All).count());
            }
        }
    }
}
