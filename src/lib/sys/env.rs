//! The environment as the kernel handed it over, and a copy that a chain-loader may change.

use std::ffi::{CStr, CString};

use super::cptr::{self, CPtr};

unsafe extern "C" {
    static environ: *const *const libc::c_char;
}

/// The process environment, end mark included. Nothing in this crate ever changes it in place.
pub fn environ_list() -> &'static [CPtr<'static>] {
    // SAFETY: environ is null-terminated; no code of ours calls setenv or putenv, so it lives unchanged.
    unsafe { if environ.is_null() { &[CPtr::NULL] } else { cptr::slice_from_raw(environ) } }
}

/// The value of a variable in the process environment, as bytes.
pub fn get(name: impl AsRef<[u8]>) -> Option<&'static CStr> {
    cptr::strings(environ_list()).find_map(|entry| {
        let rest = entry.to_bytes_with_nul().strip_prefix(name.as_ref())?.strip_prefix(b"=")?;
        CStr::from_bytes_with_nul(rest).ok()
    })
}

/// An environment under construction: a copy of the process environment, changed entry by entry.
///
/// A change drops the existing entry of that name and appends the new one; everything else keeps its place
/// (spec/logging-and-chainloaders.md 1.3).
#[derive(Clone, Default)]
pub struct Env {
    entries: Vec<CString>,
}

impl Env {
    /// A copy of the process environment.
    pub fn inherited() -> Self {
        Env { entries: cptr::strings(environ_list()).map(CStr::to_owned).collect() }
    }

    /// Whether `entry` is `name=...`.
    fn is(entry: &CStr, name: &[u8]) -> bool {
        entry.to_bytes().strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'='))
    }

    /// The value of a variable.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let entry = self.entries.iter().find(|e| Self::is(e, name))?;
        Some(&entry.to_bytes()[name.len() + 1..])
    }

    /// Removes a variable.
    pub fn unset(&mut self, name: &[u8]) -> &mut Self {
        self.entries.retain(|e| !Self::is(e, name));
        self
    }

    /// Sets a variable; a NUL in `value` ends it, as it would in C.
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        self.unset(name).add(name, value)
    }

    /// Removes the variables whose name is one of those, in one pass.
    pub fn unset_all(&mut self, is_one: impl Fn(&[u8]) -> bool) -> &mut Self {
        self.entries.retain(|e| !is_one(e.to_bytes().split(|&b| b == b'=').next().unwrap_or(b"")));
        self
    }

    /// Adds a variable that is known not to be there: for many at once.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> &mut Self {
        let text: Vec<u8> = [name, b"=", value].concat().into_iter().take_while(|&b| b != 0).collect();
        self.entries.extend(CString::new(text));
        self
    }

    /// The entries in order, `NAME=value` each.
    pub fn entries(&self) -> &[CString] {
        &self.entries
    }

    /// The form that exec and spawn take.
    pub fn list(&self) -> Vec<CPtr<'_>> {
        self.entries.iter().map(|e| CPtr::new(e)).chain([CPtr::NULL]).collect()
    }
}
