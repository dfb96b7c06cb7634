//! A dump in the environment: `S6_FD#` descriptors, each with its number, its name and its limit
//! (spec/events-and-fdholding.md 4).

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::die;
use crate::error::Die;
use crate::fdholder::held::Held;
use crate::fdholder::protocol::MAX_ID;
use crate::sys::cptr;
use crate::sys::env::{self, Env};
use crate::sys::{Errno, fd};
use crate::tai::{TEXT, Tai64n};
use crate::text::{decimal, parse_u32};

/// The variable that says how many there are.
const COUNT: &str = "S6_FD#";
/// What the names of the other variables begin with.
const FD: &[u8] = b"S6_FD_";
const ID: &[u8] = b"S6_FDID_";
const LIMIT: &[u8] = b"S6_FDLIMIT_";

/// Whether a variable is part of a dump.
fn is_part(name: &[u8]) -> bool {
    name == COUNT.as_bytes() || [FD, ID, LIMIT].iter().any(|prefix| name.starts_with(prefix))
}

fn name(prefix: &[u8], number: usize) -> Vec<u8> {
    [prefix, decimal(number as u64).as_bytes()].concat()
}

/// This process's environment with a dump in place of any that was there. The descriptors stay open for the program
/// that is executed next.
pub fn to_env(dump: Vec<Held<OwnedFd>>) -> Result<Env, Errno> {
    let mut env = Env::inherited();
    env.unset_all(is_part).add(COUNT.as_bytes(), decimal(dump.len() as u64).as_bytes());
    for (i, held) in dump.into_iter().enumerate() {
        env.add(&name(ID, i), held.id.to_bytes());
        if !held.limit.is_never() {
            env.add(&name(LIMIT, i), &held.limit.text());
        }
        env.add(&name(FD, i), decimal(fd::leak_to_exec(held.fd)? as u32).as_bytes());
    }
    Ok(env)
}

/// How many descriptors the environment has; exit 100 if it does not say.
pub fn count() -> Result<u32, Die> {
    env::get(COUNT).and_then(|text| parse_u32(text.to_bytes())).ok_or_else(|| invalid(COUNT.as_bytes()))
}

/// The first `count` descriptors in the environment, by number; exit 100 if something is missing or invalid.
pub fn from_env(count: u32) -> Result<Vec<Held<RawFd>>, Die> {
    let mut variables = BTreeMap::new();
    for entry in cptr::strings(env::environ_list()) {
        if let Some(place) =
            entry.to_bytes().iter().position(|&b| b == b'=').filter(|&p| is_part(&entry.to_bytes()[..p]))
            && let Ok(value) = CStr::from_bytes_with_nul(&entry.to_bytes_with_nul()[place + 1..])
        {
            variables.entry(&entry.to_bytes()[..place]).or_insert(value);
        }
    }
    let get = |name: &[u8]| variables.get(name).copied();
    (0..count as usize)
        .map(|i| {
            let (fd, id, limit) = (name(FD, i), name(ID, i), name(LIMIT, i));
            let number = get(&fd).and_then(|text| parse_u32(text.to_bytes())?.try_into().ok());
            let held = get(&id).filter(|id| (1..=MAX_ID).contains(&id.count_bytes()));
            let until = get(&limit).map(|text| <&[u8; TEXT]>::try_from(text.to_bytes()).ok().and_then(Tai64n::parse));
            Ok(Held {
                id: Rc::from(held.ok_or_else(|| invalid(&id))?),
                limit: until.unwrap_or_else(|| Some(Tai64n::never())).ok_or_else(|| invalid(&limit))?,
                fd: number.ok_or_else(|| invalid(&fd))?,
            })
        })
        .collect()
}

fn invalid(name: &[u8]) -> Die {
    let is_set = cptr::strings(env::environ_list())
        .any(|e| e.to_bytes().strip_prefix(name).is_some_and(|r| r.starts_with(b"=")));
    if is_set { die!(100, "invalid $", name) } else { die!(100, "$", name, " not set") }
}

/// The descriptors themselves; EBADF if one is not open.
pub fn borrow(dump: Vec<Held<RawFd>>) -> Result<Vec<Held<BorrowedFd<'static>>>, Errno> {
    dump.into_iter().map(|Held { id, limit, fd }| Ok(Held { id, limit, fd: fd::borrow(fd)? })).collect()
}
