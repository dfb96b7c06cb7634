//! When the files of a logdir change and in which order: a state machine without files, clock or processes
//! (spec/logging-and-chainloaders.md 15.3 to 15.6).
//!
//! Bytes in, then [`Step`]s out, one at a time; what became of each comes back in. A step that fails is tried again
//! after a while, none is ever skipped. Whatever the moment at which the process dies, [`recovery`] finds every byte
//! that was written, once: a file is linked to its new name before it loses the old one.
//!
//! While a processor runs, or what follows it fails, lines go to the new `current`. If that is full before the old
//! one is out of the way it grows beyond its size, because lines are safer on disk than in memory.

use std::time::{Duration, Instant};

/// The files that come and go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum File {
    /// What is written to.
    Current,
    /// What was written to before.
    Previous,
    /// What the processor makes of that.
    Processed,
    /// What the processor knew when it ended.
    State,
    /// What it will know when it ends.
    NewState,
}

impl File {
    /// Its name in the logdir.
    pub fn name(self) -> &'static str {
        match self {
            File::Current => "current",
            File::Previous => "previous",
            File::Processed => "processed",
            File::State => "state",
            File::NewState => "newstate",
        }
    }
}

/// How an archive came to be; the end of its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suffix {
    /// By a rotation: it is complete.
    S,
    /// From a file that was in use when its logger died.
    U,
}

/// One thing to do in a logdir. A file that is not there needs nothing done to it: that is success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// See to it that what was written is on the disk.
    Sync(File),
    /// Rename the first file to the second.
    Rename(File, File),
    /// Make a new `current` and write to it from now on.
    NewCurrent,
    /// Set the bit that says that a file is complete.
    MarkComplete(File),
    /// Give a file that is not empty an archive's name too.
    Archive(File, Suffix),
    /// The same, unless it has another name already: then the process died before it could do the next.
    ArchiveUnlessLinked(File, Suffix),
    /// Remove a name.
    Remove(File),
    /// Remove the oldest archives beyond the limits.
    Trim,
    /// Start the processor. Without a `previous` there is nothing for it: [`Core::nothing_to_process`].
    StartProcessor,
}

/// The order of a rotation.
fn after(step: Step, has_processor: bool) -> Option<Step> {
    use File::*;
    Some(match step {
        Step::Sync(Current) => Step::Rename(Current, Previous),
        Step::Rename(Current, Previous) => Step::NewCurrent,
        Step::NewCurrent => Step::MarkComplete(Previous),
        Step::MarkComplete(Previous) if has_processor => Step::StartProcessor,
        Step::MarkComplete(Previous) => Step::Archive(Previous, Suffix::S),
        Step::Archive(Previous, Suffix::S) => Step::Remove(Previous),
        Step::Remove(Previous) if !has_processor => Step::Trim,
        // The processor has ended well. Its work counts from the moment when `processed` is marked.
        Step::StartProcessor => Step::Sync(Processed),
        Step::Sync(Processed) => Step::Sync(NewState),
        Step::Sync(NewState) => Step::MarkComplete(Processed),
        Step::MarkComplete(Processed) => Step::Remove(Previous),
        Step::Remove(Previous) => Step::Rename(NewState, State),
        Step::Rename(NewState, State) => Step::Archive(Processed, Suffix::S),
        Step::Archive(Processed, Suffix::S) => Step::Remove(Processed),
        Step::Remove(Processed) => Step::Trim,
        _ => return None,
    })
}

/// What puts a logdir in order that its logger left behind, given whether the execute bit of `current` and of
/// `processed` is set.
pub fn recovery(current_is_complete: bool, processed_is_complete: bool) -> &'static [Step] {
    use File::*;
    if current_is_complete {
        &[]
    } else if processed_is_complete {
        &[
            Step::Rename(NewState, State),
            Step::Remove(Previous),
            Step::ArchiveUnlessLinked(Processed, Suffix::S),
            Step::ArchiveUnlessLinked(Current, Suffix::U),
            Step::Remove(Current),
            Step::Remove(Processed),
            Step::Trim,
        ]
    } else {
        &[
            Step::Remove(State),
            Step::Remove(NewState),
            Step::Remove(Processed),
            Step::ArchiveUnlessLinked(Previous, Suffix::U),
            Step::Remove(Previous),
            Step::ArchiveUnlessLinked(Current, Suffix::U),
            Step::Remove(Current),
            Step::Trim,
        ]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Only writing.
    Writing,
    /// A rotation is at this step.
    Rotating(Step),
    /// A rotation waits for the processor.
    Processing,
    /// The end is at this step.
    Ending(Step),
    /// Nothing is left to do.
    Ended,
}

/// The state of a logdir.
#[derive(Debug)]
pub struct Core {
    threshold: u64,
    retry: Duration,
    period: Option<Duration>,
    has_processor: bool,
    /// Bytes in `current`.
    size: u64,
    /// Whether it ends in the middle of a line, because a write was cut short.
    in_line: bool,
    phase: Phase,
    /// Whether to rotate once nothing is in the way.
    due: bool,
    /// Whether no more lines will come.
    ending: bool,
    next_write: Option<Instant>,
    next_step: Option<Instant>,
    next_period: Option<Instant>,
}

impl Core {
    /// For a logdir whose `current` has `size` bytes. It is rotated at the end of the line that reaches `threshold`,
    /// and every `period`; what fails is tried again after `retry`.
    pub fn new(
        size: u64,
        threshold: u64,
        period: Option<Duration>,
        retry: Duration,
        has_processor: bool,
        now: Instant,
    ) -> Self {
        Core {
            threshold,
            // Never a busy loop, whatever the script says.
            retry: retry.max(Duration::from_millis(1)),
            period,
            has_processor,
            size,
            in_line: false,
            phase: Phase::Writing,
            due: false,
            ending: false,
            next_write: None,
            next_step: None,
            next_period: period.map(|period| now + period),
        }
    }

    /// How much of `block`, which ends with a line, is to be written now: up to the end of the line that fills
    /// `current`; nothing while there is no `current` to write to, or a write has just failed.
    pub fn share<'a>(&self, block: &'a [u8], now: Instant) -> &'a [u8] {
        if self.must_rotate_first() || self.next_write.is_some_and(|at| now < at) {
            return b"";
        }
        // What is due is due at the end of the line.
        let room = if self.due { 0 } else { self.threshold.saturating_sub(self.size) };
        let skipped = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(1);
        if self.may_overgrow() || skipped >= block.len() {
            return block;
        }
        let end = block[skipped..].iter().position(|&b| b == b'\n').map_or(block.len(), |more| skipped + more + 1);
        &block[..end]
    }

    /// Whether there is no `current` to write to until it is rotated.
    fn must_rotate_first(&self) -> bool {
        match self.phase {
            Phase::Writing => self.due && !self.in_line,
            Phase::Rotating(step) => !is_switched(step),
            _ => false,
        }
    }

    /// Whether lines go to a `current` that cannot be rotated yet.
    fn may_overgrow(&self) -> bool {
        match self.phase {
            Phase::Rotating(step) => is_switched(step),
            Phase::Processing => true,
            _ => false,
        }
    }

    /// So many bytes were written, up to the end of a line or not.
    pub fn wrote(&mut self, bytes: usize, ends_line: bool) {
        self.next_write = None;
        self.size += bytes as u64;
        self.in_line = !ends_line;
        self.due |= ends_line && self.size >= self.threshold;
    }

    /// A write failed.
    pub fn write_failed(&mut self, now: Instant) {
        self.next_write = Some(now + self.retry);
    }

    /// Rotate now (SIGALRM): what has failed is tried again at once.
    pub fn rotate(&mut self) {
        self.next_write = None;
        self.next_step = None;
        self.due |= matches!(self.phase, Phase::Writing) || self.may_overgrow();
    }

    /// No more lines come. `current` is completed when all are written.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// What to do now, if anything. `is_flushed`: no line waits to be written.
    pub fn step(&mut self, is_flushed: bool, now: Instant) -> Option<Step> {
        if self.next_period.is_some_and(|at| at <= now) {
            self.next_period = self.period.map(|period| now + period);
            self.due |= matches!(self.phase, Phase::Writing) || self.may_overgrow();
        }
        if self.phase == Phase::Writing && !self.in_line && std::mem::take(&mut self.due) && self.size > 0 {
            self.phase = Phase::Rotating(Step::Sync(File::Current));
        }
        if self.phase == Phase::Writing && self.ending && is_flushed {
            self.phase = Phase::Ending(Step::Sync(File::Current));
        }
        match self.phase {
            Phase::Rotating(step) | Phase::Ending(step) if self.next_step.is_none_or(|at| at <= now) => Some(step),
            _ => None,
        }
    }

    /// The step that [`Core::step`] last gave was done.
    pub fn done(&mut self) {
        self.next_step = None;
        self.phase = match self.phase {
            Phase::Rotating(Step::StartProcessor) => Phase::Processing,
            Phase::Rotating(step) => {
                if step == Step::NewCurrent {
                    self.size = 0;
                }
                after(step, self.has_processor).map_or(Phase::Writing, Phase::Rotating)
            }
            Phase::Ending(Step::Sync(_)) => Phase::Ending(Step::MarkComplete(File::Current)),
            Phase::Ending(_) => Phase::Ended,
            other => other,
        }
    }

    /// The step that [`Core::step`] last gave failed.
    pub fn failed(&mut self, now: Instant) {
        self.next_step = Some(now + self.retry);
    }

    /// Instead of the start of the processor: somebody has removed what it was to process.
    pub fn nothing_to_process(&mut self) {
        self.phase = Phase::Writing;
    }

    /// The processor has ended.
    pub fn processor_ended(&mut self, well: bool, now: Instant) {
        if self.phase == Phase::Processing {
            self.phase = Phase::Rotating(if well { Step::Sync(File::Processed) } else { Step::StartProcessor });
            self.next_step = if well { None } else { Some(now + self.retry) };
        }
    }

    /// Whether a logger that shall not take more lines than it can put away must wait: for a write, or for a rotation.
    pub fn is_stuck(&self) -> bool {
        self.next_write.is_some() || self.due || self.must_rotate_first()
    }

    /// Whether everything is done.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// When to look again, whatever happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let next_write = self.next_write.filter(|_| !self.must_rotate_first());
        [next_write, self.next_step, self.next_period].into_iter().flatten().min()
    }
}

/// Whether lines go to the new `current` at this step.
fn is_switched(step: Step) -> bool {
    !matches!(step, Step::Sync(File::Current) | Step::Rename(File::Current, _) | Step::NewCurrent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const RETRY: Duration = Duration::from_millis(100);

    #[derive(Default)]
    struct Inode {
        bytes: Vec<u8>,
        is_complete: bool,
        links: usize,
    }

    /// A logdir on a disk that outlives its loggers.
    #[derive(Default)]
    struct Disk {
        inodes: Vec<Inode>,
        names: BTreeMap<File, usize>,
        /// In the order of their labels.
        archives: Vec<(usize, Suffix)>,
    }

    impl Disk {
        fn create(&mut self, file: File) -> usize {
            self.remove(file);
            self.inodes.push(Inode { links: 1, ..Inode::default() });
            self.names.insert(file, self.inodes.len() - 1);
            self.inodes.len() - 1
        }

        fn remove(&mut self, file: File) {
            if let Some(inode) = self.names.remove(&file) {
                self.inodes[inode].links -= 1;
            }
        }

        fn is_complete(&self, file: File) -> bool {
            self.names.get(&file).is_some_and(|&inode| self.inodes[inode].is_complete)
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Sync(_) | Step::Trim => {}
                Step::Rename(from, to) => {
                    if let Some(inode) = self.names.remove(&from) {
                        self.remove(to);
                        self.names.insert(to, inode);
                    }
                }
                Step::NewCurrent => {
                    assert!(!self.names.contains_key(&File::Current));
                    self.create(File::Current);
                }
                Step::MarkComplete(file) => {
                    if let Some(&inode) = self.names.get(&file) {
                        self.inodes[inode].is_complete = true;
                    }
                }
                Step::Archive(file, suffix) | Step::ArchiveUnlessLinked(file, suffix) => {
                    if let Some(&inode) = self.names.get(&file) {
                        let linked = self.inodes[inode].links > 1 && matches!(step, Step::ArchiveUnlessLinked(..));
                        if !linked && !self.inodes[inode].bytes.is_empty() {
                            self.inodes[inode].links += 1;
                            self.archives.push((inode, suffix));
                        }
                    }
                }
                Step::Remove(file) => self.remove(file),
                Step::StartProcessor => {
                    self.create(File::Processed);
                    self.create(File::NewState);
                }
            }
        }

        fn processor_writes(&mut self, part: usize) {
            let previous = self.inodes[self.names[&File::Previous]].bytes.clone();
            let processed = self.names[&File::Processed];
            let length = previous.len().min(part);
            self.inodes[processed].bytes = previous[..length].to_vec();
        }

        fn everything(&self) -> Vec<u8> {
            let current = self.names.get(&File::Current);
            let archives = self.archives.iter().map(|(inode, _)| inode);
            archives.chain(current).flat_map(|&inode| self.inodes[inode].bytes.clone()).collect()
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Line(usize),
        Alarm,
        Wait(u64),
        ProcessorEnds(bool),
        /// The logger is killed, and its successor as many steps into the recovery.
        Kill(usize),
    }

    /// A logger, its logdir, and a stream of faults.
    struct World {
        disk: Disk,
        core: Core,
        queue: Vec<u8>,
        written: Vec<u8>,
        now: Instant,
        faults: Box<dyn Iterator<Item = bool>>,
        has_processor: bool,
        threshold: u64,
    }

    impl World {
        fn new(threshold: u64, has_processor: bool, faults: Vec<bool>) -> Self {
            let now = Instant::now();
            let period = Some(Duration::from_secs(1));
            let mut disk = Disk::default();
            disk.create(File::Current);
            World {
                disk,
                core: Core::new(0, threshold, period, RETRY, has_processor, now),
                queue: Vec::new(),
                written: Vec::new(),
                now,
                faults: Box::new(faults.into_iter().chain(std::iter::repeat(false))),
                has_processor,
                threshold,
            }
        }

        fn is_unlucky(&mut self) -> bool {
            self.faults.next().unwrap_or(false)
        }

        /// Does all that can be done now.
        fn pump(&mut self) {
            for turn in 0.. {
                assert!(turn < 10_000, "the core asks for steps without end");
                if let Some(step) = self.core.step(self.queue.is_empty(), self.now) {
                    if self.is_unlucky() {
                        self.core.failed(self.now);
                    } else {
                        self.disk.apply(step);
                        self.core.done();
                    }
                    continue;
                }
                let share = self.core.share(&self.queue, self.now).len();
                if share == 0 {
                    break;
                }
                if self.is_unlucky() {
                    self.core.write_failed(self.now);
                    continue;
                }
                let bytes = if self.is_unlucky() { 1 } else { share };
                let ends_line = self.queue[bytes - 1] == b'\n';
                let current = self.disk.names[&File::Current];
                let part: Vec<u8> = self.queue.drain(..bytes).collect();
                self.disk.inodes[current].bytes.extend_from_slice(&part);
                self.written.extend_from_slice(&part);
                self.core.wrote(bytes, ends_line);
            }
            assert!(self.core.deadline().is_some_and(|at| at > self.now) || self.core.has_ended());
        }

        fn event(&mut self, event: Event, number: usize) {
            match event {
                Event::Line(length) => {
                    self.queue.extend(format!("{number}{}\n", ".".repeat(length)).bytes());
                }
                Event::Alarm => self.core.rotate(),
                Event::Wait(milliseconds) => self.now += Duration::from_millis(milliseconds),
                Event::ProcessorEnds(well) => {
                    if self.core.phase == Phase::Processing {
                        self.disk.processor_writes(if well { usize::MAX } else { 3 });
                        self.core.processor_ended(well, self.now);
                    }
                }
                Event::Kill(steps) => {
                    if self.core.phase == Phase::Processing {
                        self.disk.processor_writes(5);
                    }
                    self.queue.clear();
                    self.restart(Some(steps));
                    self.restart(None);
                }
            }
            self.pump();
        }

        fn restart(&mut self, killed_after: Option<usize>) {
            let (current, processed) = (self.disk.is_complete(File::Current), self.disk.is_complete(File::Processed));
            for &step in recovery(current, processed).iter().take(killed_after.unwrap_or(usize::MAX)) {
                self.disk.apply(step);
            }
            if killed_after.is_none() {
                if !self.disk.names.contains_key(&File::Current) {
                    self.disk.create(File::Current);
                }
                let current = &mut self.disk.inodes[self.disk.names[&File::Current]];
                current.is_complete = false;
                let (size, period) = (current.bytes.len() as u64, Some(Duration::from_secs(1)));
                self.core = Core::new(size, self.threshold, period, RETRY, self.has_processor, self.now);
            }
        }

        fn end(&mut self) {
            self.core.end();
            for _ in 0..1000 {
                self.pump();
                if self.core.has_ended() {
                    return;
                }
                self.now += RETRY;
                self.event(Event::ProcessorEnds(true), 0);
            }
            panic!("the end never comes");
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            8 => (0usize..9).prop_map(Event::Line),
            2 => Just(Event::Alarm),
            2 => (0u64..1500).prop_map(Event::Wait),
            2 => any::<bool>().prop_map(Event::ProcessorEnds),
            1 => (0usize..10).prop_map(Event::Kill),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_byte_that_was_written_is_there_once_and_in_order(
            events in prop::collection::vec(event(), 0..60),
            faults in prop::collection::vec(prop::bool::weighted(0.2), 0..200),
            threshold in 1u64..60,
            has_processor in any::<bool>(),
        ) {
            let mut world = World::new(threshold, has_processor, faults);
            for (number, event) in events.into_iter().enumerate() {
                world.event(event, number);
                prop_assert!(world.disk.names.contains_key(&File::Current) || world.core.is_stuck());
            }
            world.end();
            prop_assert_eq!(world.disk.everything().escape_ascii().to_string(), world.written.escape_ascii().to_string());
            for &(inode, suffix) in &world.disk.archives {
                prop_assert!(world.disk.inodes[inode].bytes.ends_with(b"\n") || suffix == Suffix::U);
            }
            prop_assert!(world.queue.is_empty());
            prop_assert!(world.disk.is_complete(File::Current));
            for gone in [File::Previous, File::Processed, File::NewState] {
                prop_assert!(!world.disk.names.contains_key(&gone), "{gone:?} is left");
            }
        }

        #[test]
        fn without_faults_files_end_with_the_line_that_fills_them(
            lines in prop::collection::vec(0usize..9, 1..60),
            threshold in 1u64..60,
        ) {
            let mut world = World::new(threshold, false, Vec::new());
            lines.into_iter().enumerate().for_each(|(number, length)| {
                world.queue.extend(format!("{number}{}\n", ".".repeat(length)).bytes());
            });
            world.pump();
            for &(inode, _) in &world.disk.archives {
                let bytes = &world.disk.inodes[inode].bytes;
                let last = bytes[..bytes.len() - 1].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
                prop_assert!(bytes.ends_with(b"\n"));
                prop_assert!(bytes.len() as u64 >= threshold && (last as u64) < threshold);
            }
        }
    }

    #[test]
    fn lines_go_on_while_the_processor_runs() {
        let mut world = World::new(4, true, Vec::new());
        world.event(Event::Line(9), 1);
        assert_eq!(world.core.phase, Phase::Processing);
        assert!(!world.core.is_stuck());
        for number in 2..9 {
            world.event(Event::Line(9), number);
        }
        assert!(world.queue.is_empty());
        assert!(world.core.is_stuck(), "a second rotation waits for the first");
        assert_eq!(world.disk.archives.len(), 0);
        world.event(Event::ProcessorEnds(true), 0);
        assert_eq!(world.disk.archives.len(), 1);
        assert_eq!(world.core.phase, Phase::Processing);
        world.end();
        assert_eq!(world.disk.everything(), world.written);
    }

    #[test]
    fn an_empty_current_is_not_rotated() {
        let mut world = World::new(10, false, Vec::new());
        world.event(Event::Alarm, 0);
        world.event(Event::Wait(5000), 0);
        assert_eq!(world.disk.inodes.len(), 1);
    }

    #[test]
    fn an_alarm_ends_the_wait_after_a_failure() {
        let mut world = World::new(1000, false, vec![true]);
        world.event(Event::Line(3), 0);
        assert_eq!(world.disk.everything(), b"");
        world.event(Event::Alarm, 0);
        assert_eq!(world.disk.everything(), b"0...\n");
    }
}
