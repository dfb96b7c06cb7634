//! A store written through to an s6-fdholderd, so that it outlives the supervisor
//! (spec/sd-notify-and-fdstore.md 4.6).
//!
//! What is stored is held there under `fdstore:SERVICE:NUMBER:NAME`. The supervisor never talks to the holder itself:
//! it starts s6-fdholder-store and s6-fdholder-delete, one after the other, so that nothing of the holder can stop it.
//! What it has in memory counts; what is held comes back only when a new supervisor starts the service.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use super::store::{Entry, Store};
use crate::fdholder::client::Connection;
use crate::fdholder::protocol::MAX_ID;
use crate::sys::cptr::CPtr;
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::wait::WaitStatus;
use crate::sys::{Errno, Pid};
use crate::text::parse_u64;
use crate::warn;

/// Milliseconds that one of the programs may take.
const LIMIT: &CStr = c"5000";
/// How often a program that was killed is started again.
const TRIES: u8 = 3;
/// What the number of a descriptor that is not dropped when it is hung up ends with.
const UNPOLLED: u8 = b'n';

/// The name under which an entry is held, cut to what a holder takes.
fn identifier<F>(service: &CStr, entry: &Entry<F>) -> CString {
    compose(service, entry.serial, entry.poll, &entry.name)
}

fn compose(service: &CStr, serial: u64, poll: bool, name: &[u8]) -> CString {
    let mut id = [b"fdstore:", service.to_bytes(), b":"].concat();
    id.extend(format!("{serial:04}").bytes());
    if !poll {
        id.push(UNPOLLED);
    }
    id.push(b':');
    id.extend_from_slice(name);
    id.truncate(MAX_ID);
    CString::new(id).unwrap_or_default()
}

/// What a held name says of an entry of the service.
fn parse<'a>(service: &CStr, id: &'a CStr) -> Option<(u64, bool, &'a [u8])> {
    let rest = id.to_bytes().strip_prefix(b"fdstore:")?.strip_prefix(service.to_bytes())?.strip_prefix(b":")?;
    let colon = rest.iter().position(|&b| b == b':')?;
    let (number, name) = (&rest[..colon], &rest[colon + 1..]);
    let (number, poll) = number.strip_suffix(&[UNPOLLED]).map_or((number, true), |number| (number, false));
    (!name.contains(&b':')).then_some((parse_u64(number)?, poll, name))
}

/// What the holder has of the store of a service, in order. The holder keeps it too.
pub fn recover(holder: &mut Connection, service: &CStr) -> Result<Vec<Entry<OwnedFd>>, Errno> {
    let mut found = Vec::new();
    for id in holder.list()? {
        if let Some((serial, poll, name)) = parse(service, &id) {
            match holder.retrieve(&id, false) {
                Ok(file) => found.push(Entry::new(file, name, poll, serial)),
                Err(Errno::ENOENT) => {} // expired, or deleted meanwhile
                Err(errno) => return Err(errno),
            }
        }
    }
    found.sort_by_key(|entry| entry.serial);
    Ok(found)
}

/// What the holder must be told.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Task {
    /// To hold the entry with this serial number.
    Store(u64),
    /// To drop what it has under this name.
    Delete(CString),
}

/// What is told to the holder, and what is yet to be told.
#[derive(Debug)]
pub struct Mirror {
    holder: CString,
    service: CString,
    tasks: VecDeque<Task>,
    running: Option<(Pid, Task)>,
    /// How often the first task was tried.
    tries: u8,
}

impl Mirror {
    /// Of the store of a service, in the holder at this socket. What is stored already is to be told too.
    pub fn new(holder: CString, service: CString, store: &Store) -> Mirror {
        let tasks = store.entries().iter().map(|entry| Task::Store(entry.serial)).collect();
        Mirror { holder, service, tasks, running: None, tries: 0 }
    }

    /// Where the holder is.
    pub fn holder(&self) -> &CStr {
        &self.holder
    }

    /// How the service is called there.
    pub fn service(&self) -> &CStr {
        &self.service
    }

    /// Who is telling the holder something now.
    pub fn running(&self) -> Option<Pid> {
        self.running.as_ref().map(|&(pid, _)| pid)
    }

    /// An entry came in.
    pub fn stored<F>(&mut self, entry: &Entry<F>) {
        self.tasks.push_back(Task::Store(entry.serial));
    }

    /// An entry was dropped. If the holder has not heard of it, it never will.
    pub fn dropped<F>(&mut self, entry: &Entry<F>) {
        let store = Task::Store(entry.serial);
        match self.tasks.iter().position(|task| *task == store) {
            Some(index) => drop(self.tasks.remove(index)),
            None => self.tasks.push_back(Task::Delete(identifier(&self.service, entry))),
        }
    }

    /// What the holder gave back was not stored again.
    pub fn refused(&mut self, serial: u64, poll: bool, name: &[u8]) {
        self.tasks.push_back(Task::Delete(compose(&self.service, serial, poll, name)));
    }

    /// Tells the holder the next thing, if it is not being told something.
    pub fn advance(&mut self, store: &Store) {
        while self.running.is_none()
            && let Some(task) = self.tasks.pop_front()
        {
            self.running = self.start(&task, store).map(|pid| (pid, task));
        }
    }

    /// A child was reaped; whether it was one of ours.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) -> bool {
        let Some((_, task)) = self.running.take_if(|(running, _)| *running == pid) else { return false };
        self.tries += 1;
        if status.signal().is_some() && self.tries < TRIES {
            self.tasks.push_front(task);
        } else {
            self.tries = 0;
        }
        true
    }

    /// Tells all at once, before this process ends.
    pub fn finish(&mut self, store: &Store) {
        for task in std::mem::take(&mut self.tasks) {
            self.start(&task, store);
        }
    }

    /// Starts the program for a task; its message, if it fails, is on our stderr.
    fn start(&self, task: &Task, store: &Store) -> Option<Pid> {
        let stored;
        let (program, id, fd) = match task {
            Task::Store(serial) => {
                let entry = store.entries().iter().find(|entry| entry.serial == *serial)?;
                stored = identifier(&self.service, entry);
                (c"s6-fdholder-store", &stored, Some(Redirect::new(entry.file.as_fd(), 0)))
            }
            Task::Delete(id) => (c"s6-fdholder-delete", id, None),
        };
        let argv = [program, c"-t", LIMIT, c"--", &self.holder, id].map(CPtr::new);
        let argv = [&argv[..], &[CPtr::NULL]].concat();
        match (Spawn { redirects: fd.as_slice(), ..Spawn::new(&argv) }).start() {
            Ok(pid) => Some(pid),
            Err(errno) => {
                warn!(errno => "unable to start ", program, " for ", *id);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::File;
    use super::*;

    impl File for () {
        fn mark(&self) -> (u64, u64) {
            (0, 0)
        }

        fn is_same(&self, _: &Self) -> bool {
            false
        }
    }

    fn entry(serial: u64, name: &[u8], poll: bool) -> Entry<()> {
        Entry::new((), name, poll, serial)
    }

    #[test]
    fn names_in_the_holder_keep_order_name_and_poll() {
        let id = |serial, name: &[u8], poll| identifier(c"x/log", &entry(serial, name, poll));
        assert_eq!(id(7, b"a b", true).as_c_str(), c"fdstore:x/log:0007:a b");
        assert_eq!(id(12345, b"", false).as_c_str(), c"fdstore:x/log:12345n:");
        assert_eq!(parse(c"x/log", &id(7, b"a b", true)), Some((7, true, &b"a b"[..])));
        assert_eq!(parse(c"x/log", &id(12345, b"", false)), Some((12345, false, &b""[..])));
        assert_eq!(id(7, &[b'n'; 255], true).count_bytes(), MAX_ID);
        for other in [c"fdstore:x:0007:a", c"fdstore:x/log:1:0007:a", c"fdstore:x/log:a:b", c"pipe:x/log:1:b"] {
            assert_eq!(parse(c"x/log", other), None, "{other:?}");
        }
    }

    #[test]
    fn what_the_holder_has_not_heard_of_it_need_not_drop() {
        let mut mirror = Mirror::new(c"s".into(), c"x".into(), &Store::default());
        let entries = [entry(0, b"a", true), entry(1, b"b", true), entry(2, b"c", true)];
        entries.iter().for_each(|entry| mirror.stored(entry));
        mirror.running = mirror.tasks.pop_front().map(|task| (Pid::from_raw(77), task));
        mirror.dropped(&entries[1]);
        mirror.dropped(&entries[0]);
        assert_eq!(mirror.tasks, [Task::Store(2), Task::Delete(c"fdstore:x:0000:a".into())]);
        assert!(!mirror.reaped(Pid::from_raw(78), WaitStatus::exited(0)));
        assert!(mirror.reaped(Pid::from_raw(77), WaitStatus::exited(1)));
        assert_eq!(mirror.tasks.len(), 2);
    }

    #[test]
    fn what_was_killed_is_tried_again_but_not_for_ever() {
        let mut mirror = Mirror::new(c"s".into(), c"x".into(), &Store::default());
        mirror.stored(&entry(0, b"a", true));
        for tried in 1..=TRIES {
            mirror.running = mirror.tasks.pop_front().map(|task| (Pid::from_raw(77), task));
            assert!(mirror.reaped(Pid::from_raw(77), WaitStatus::from_raw(9)));
            assert_eq!(mirror.tasks.len(), usize::from(tried < TRIES));
        }
    }
}
