//! The descriptors that a server holds: by name, and by the moment when they are dropped.
//!
//! No descriptor is duplicated: who still sends one that is dropped meanwhile shares it until it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::sys::Errno;
use crate::tai::Tai64n;

/// A descriptor that is held (`F` is a descriptor anywhere but in tests).
#[derive(Debug, PartialEq, Eq)]
pub struct Held<F> {
    /// Its name: 1 to 255 bytes.
    pub id: Rc<CStr>,
    /// When it is dropped.
    pub limit: Tai64n,
    /// Itself.
    pub fd: F,
}

/// Something that is held, on its way to a client.
#[derive(Debug)]
pub struct Shared<F>(pub Rc<Held<F>>);

impl<F> Clone for Shared<F> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<F: AsFd> AsFd for Shared<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// All that is held.
#[derive(Debug)]
pub struct Holdings<F> {
    most: usize,
    by_id: BTreeMap<Rc<CStr>, Shared<F>>,
    by_limit: BTreeSet<(Tai64n, Rc<CStr>)>,
}

impl<F> Holdings<F> {
    /// Room for `most` descriptors.
    pub fn new(most: usize) -> Self {
        Holdings { most, by_id: BTreeMap::new(), by_limit: BTreeSet::new() }
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether `more` can be added: ENFILE if not.
    pub fn check_room(&self, more: usize) -> Result<(), Errno> {
        if more > self.most - self.len() { Err(Errno::ENFILE) } else { Ok(()) }
    }

    /// Adds a descriptor. ENFILE, EBUSY if the name is taken.
    pub fn add(&mut self, id: &CStr, limit: Tai64n, fd: F) -> Result<(), Errno> {
        self.check_room(1)?;
        if self.by_id.contains_key(id) {
            return Err(Errno::EBUSY);
        }
        self.put(id, limit, fd);
        Ok(())
    }

    /// Adds a descriptor for which there is room, or replaces the one of that name.
    pub fn put(&mut self, id: &CStr, limit: Tai64n, fd: F) {
        self.remove(id);
        let id: Rc<CStr> = id.into();
        self.by_limit.insert((limit, id.clone()));
        self.by_id.insert(id.clone(), Shared(Rc::new(Held { id, limit, fd })));
    }

    /// The descriptor of that name.
    pub fn get(&self, id: &CStr) -> Option<Shared<F>> {
        self.by_id.get(id).cloned()
    }

    /// Drops the descriptor of that name; whether there was one.
    pub fn remove(&mut self, id: &CStr) -> bool {
        let Some((id, Shared(held))) = self.by_id.remove_entry(id) else { return false };
        self.by_limit.remove(&(held.limit, id));
        true
    }

    /// Drops what has reached its limit.
    pub fn expire(&mut self, now: Tai64n) {
        while self.next_limit().is_some_and(|limit| limit <= now) {
            if let Some((_, id)) = self.by_limit.pop_first() {
                self.by_id.remove(&id);
            }
        }
    }

    /// The next moment at which something is to be dropped.
    pub fn next_limit(&self) -> Option<Tai64n> {
        self.by_limit.first().map(|(limit, _)| *limit)
    }

    /// All that is held, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Shared<F>> {
        self.by_id.values()
    }
}
