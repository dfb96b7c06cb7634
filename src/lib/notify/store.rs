//! The fd store of one service (spec/sd-notify-and-fdstore.md 2): what is kept, under which name, in which order.
//!
//! The order is that of arrival. The store owns what it keeps and what it is offered: a descriptor that is refused is
//! closed.

use std::os::fd::OwnedFd;

use crate::sys::fd;

/// What can be stored: a descriptor, or in tests something that behaves like one.
pub trait File {
    /// What the same open file always has in common; others may, too. So that a large store is searched without a
    /// system call for each entry.
    fn mark(&self) -> (u64, u64);
    /// Whether both are the same open file.
    fn is_same(&self, other: &Self) -> bool;
}

impl File for OwnedFd {
    #[allow(clippy::unnecessary_cast, reason = "device numbers are signed on OpenBSD")]
    fn mark(&self) -> (u64, u64) {
        nix::sys::stat::fstat(self).map_or((0, 0), |about| (about.st_dev as u64, about.st_ino as u64))
    }

    fn is_same(&self, other: &Self) -> bool {
        fd::is_same_file(self, other)
    }
}

/// One stored descriptor.
#[derive(Debug)]
pub struct Entry<F> {
    /// The descriptor.
    pub file: F,
    /// Its name, not unique.
    pub name: Box<[u8]>,
    /// Whether it is dropped when it is hung up.
    pub poll: bool,
    /// Its number in the order of arrival, never given twice.
    pub serial: u64,
    mark: (u64, u64),
}

impl<F: File> Entry<F> {
    /// An entry that was stored under this number.
    pub fn new(file: F, name: &[u8], poll: bool, serial: u64) -> Self {
        Entry { mark: file.mark(), file, name: name.into(), poll, serial }
    }
}

/// The descriptors that a service wants to have back.
#[derive(Debug)]
pub struct Store<F = OwnedFd> {
    entries: Vec<Entry<F>>,
    max: usize,
    next: u64,
}

impl<F> Default for Store<F> {
    fn default() -> Self {
        Store { entries: Vec::new(), max: 0, next: 0 }
    }
}

impl<F: File> Store<F> {
    /// What is stored, in the order of arrival.
    pub fn entries(&self) -> &[Entry<F>] {
        &self.entries
    }

    /// How many may be stored.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Changes how many may be stored. What is there stays.
    pub fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    /// Stores the files of one message. When the store is full the rest of them is dropped; a file that is there
    /// already is dropped too, and keeps its old name. Returns how many came in: they are the last entries.
    pub fn add(&mut self, files: impl IntoIterator<Item = F>, name: &[u8], poll: bool) -> usize {
        let before = self.entries.len();
        for file in files {
            if self.entries.len() >= self.max {
                break;
            }
            let new = Entry::new(file, name, poll, self.next);
            if !self.entries.iter().any(|entry| entry.mark == new.mark && entry.file.is_same(&new.file)) {
                self.entries.push(new);
                self.next += 1;
            }
        }
        self.entries.len() - before
    }

    /// Drops the entries that are condemned and says how many.
    pub fn remove(&mut self, mut condemned: impl FnMut(&Entry<F>) -> bool) -> usize {
        let before = self.entries.len();
        self.entries.retain(|entry| !condemned(entry));
        before - self.entries.len()
    }

    /// The next entry gets this serial number, unless higher ones were given already.
    pub fn resume_at(&mut self, serial: u64) {
        self.next = self.next.max(serial);
    }

    /// The value of LISTEN_FDNAMES.
    pub fn names(&self) -> Vec<u8> {
        self.entries.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>().join(&b':')
    }
}

/// How long a store outlives the process that filled it (section 2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Preserve {
    /// It does not.
    No,
    /// Over restarts, wanted or not, but not when the service is to be down.
    #[default]
    Restart,
    /// Until it is emptied by hand.
    Yes,
}

impl Preserve {
    /// By its name.
    pub fn parse(word: &[u8]) -> Option<Preserve> {
        Some(match word {
            b"no" => Preserve::No,
            b"restart" => Preserve::Restart,
            b"yes" => Preserve::Yes,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A file by number, that says when it is closed.
    #[derive(Debug)]
    struct Fake {
        file: u8,
        open: Rc<RefCell<Vec<u8>>>,
    }

    impl Fake {
        fn new(file: u8, open: &Rc<RefCell<Vec<u8>>>) -> Fake {
            open.borrow_mut().push(file);
            Fake { file, open: open.clone() }
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let at = self.open.borrow().iter().position(|&f| f == self.file).expect("closed twice");
            self.open.borrow_mut().swap_remove(at);
        }
    }

    impl File for Fake {
        fn mark(&self) -> (u64, u64) {
            (0, u64::from(self.file / 4))
        }

        fn is_same(&self, other: &Self) -> bool {
            self.file == other.file
        }
    }

    fn contents(store: &Store<Fake>) -> Vec<(u8, &[u8])> {
        store.entries().iter().map(|e| (e.file.file, &*e.name)).collect()
    }

    fn store(max: usize) -> (Store<Fake>, Rc<RefCell<Vec<u8>>>) {
        let mut store = Store::default();
        store.set_max(max);
        (store, Rc::default())
    }

    #[test]
    fn what_is_there_keeps_its_name_and_place() {
        let (mut store, open) = store(8);
        assert_eq!(store.add([Fake::new(1, &open), Fake::new(2, &open)], b"a", true), 2);
        assert_eq!(store.add([Fake::new(2, &open), Fake::new(3, &open)], b"b", true), 1);
        assert_eq!(contents(&store), [(1, &b"a"[..]), (2, b"a"), (3, b"b")]);
        assert_eq!(store.names(), b"a:a:b");
        assert_eq!(store.remove(|e| &*e.name == b"a"), 2);
        assert_eq!(store.names(), b"b");
        assert_eq!(store.remove(|e| &*e.name == b"a"), 0);
    }

    #[test]
    fn names_are_joined_as_they_are() {
        let (mut store, open) = store(8);
        assert_eq!(store.names(), b"");
        store.add([Fake::new(1, &open)], b"", true);
        assert_eq!(store.names(), b"");
        store.add([Fake::new(2, &open)], b"", true);
        assert_eq!(store.names(), b":");
    }

    #[test]
    fn a_full_store_takes_no_more_of_a_message() {
        let (mut store, open) = store(2);
        assert_eq!(store.add((1..=5).map(|n| Fake::new(n, &open)), b"", true), 2);
        assert_eq!(*open.borrow(), [1, 2]);
        store.set_max(0);
        assert_eq!(store.entries().len(), 2);
        assert_eq!(store.add([Fake::new(7, &open)], b"", true), 0);
    }

    #[test]
    fn serial_numbers_go_on_where_an_earlier_store_ended() {
        let (mut store, open) = store(9);
        store.resume_at(7);
        store.add([Fake::new(1, &open)], b"", true);
        store.resume_at(3);
        store.add([Fake::new(2, &open)], b"", true);
        assert_eq!(store.entries().iter().map(|e| e.serial).collect::<Vec<_>>(), [7, 8]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<u8>, u8),
        Remove(u8),
        Max(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (prop::collection::vec(0u8..20, 0..8), 0u8..4).prop_map(|(files, name)| Step::Add(files, name)),
            1 => (0u8..4).prop_map(Step::Remove),
            1 => (0usize..12).prop_map(Step::Max),
        ]
    }

    proptest! {
        #[test]
        fn a_store_keeps_every_file_once_and_closes_the_rest(steps in prop::collection::vec(step(), 0..40)) {
            let (mut store, open) = store(8);
            let mut model: Vec<(u8, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add(files, name) => {
                        store.add(files.iter().map(|&file| Fake::new(file, &open)), &[name], true);
                        for file in files {
                            if model.len() < store.max() && model.iter().all(|&(known, _)| known != file) {
                                model.push((file, name));
                            }
                        }
                    }
                    Step::Remove(name) => {
                        store.remove(|e| *e.name == [name]);
                        model.retain(|&(_, known)| known != name);
                    }
                    Step::Max(max) => store.set_max(max),
                }
                let here: Vec<(u8, u8)> = store.entries().iter().map(|e| (e.file.file, e.name[0])).collect();
                prop_assert_eq!(&here, &model);
                prop_assert!(store.entries().is_sorted_by(|a, b| a.serial < b.serial));
                let mut left = open.borrow().clone();
                left.sort();
                let mut kept: Vec<u8> = model.iter().map(|&(file, _)| file).collect();
                kept.sort();
                prop_assert_eq!(left, kept);
            }
        }
    }
}
