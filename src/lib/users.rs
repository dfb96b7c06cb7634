//! Users and groups by name and number: /etc/passwd and /etc/group, else getent(1) (design.md 6).
//!
//! A static program cannot load the C library's name services: glibc's crash, musl's know files only. getent, found
//! by PATH, is a program of the system and knows all of them (LDAP, systemd's dynamic users). It is started only for
//! what the files do not have.

use std::ffi::{CStr, CString};

use nix::fcntl::OFlag;

use crate::cli::argv;
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::{Errno, fd, wait};
use crate::text::{decimal, parse_u32};

/// An account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// Its name.
    pub name: Vec<u8>,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

/// A group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: Vec<u8>,
    /// Its number.
    pub gid: u32,
}

/// What an entry is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key<'a> {
    /// Exactly this name; digits are a name like any other.
    Name(&'a [u8]),
    /// This uid or gid.
    Id(u32),
}

/// Looks a user up; `None` if there is none.
pub fn user(key: Key<'_>) -> Result<Option<User>, Errno> {
    find(&PASSWD, key, |fields| {
        Some(User { name: fields[0].to_vec(), uid: parse_u32(fields[2])?, gid: parse_u32(fields.get(3)?)? })
    })
}

/// Looks a group up; `None` if there is none.
pub fn group(key: Key<'_>) -> Result<Option<Group>, Errno> {
    find(&GROUP, key, |fields| Some(Group { name: fields[0].to_vec(), gid: parse_u32(fields[2])? }))
}

/// The gids of all groups that name the user as a member, in database order: its supplementary groups, in which
/// the primary one is only if its group says so.
pub fn groups_of(name: &[u8]) -> Result<Vec<u32>, Errno> {
    let mut text = read(GROUP.file)?;
    if GROUP.has_other_sources()?
        && let Some(all) = getent(GROUP.name, None)?
    {
        text = all;
    }
    let member = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let listed = fields.get(3)?.split(|&b| b == b',').any(|member| member == name);
        if listed { parse_u32(fields[2]) } else { None }
    };
    Ok(lines(&text).filter_map(member).collect())
}

/// A database: its file and its name for getent and in nsswitch.conf.
struct Database {
    file: &'static CStr,
    name: &'static CStr,
}

const PASSWD: Database = Database { file: c"/etc/passwd", name: c"passwd" };
const GROUP: Database = Database { file: c"/etc/group", name: c"group" };

impl Database {
    /// Whether nsswitch.conf names a source that may add members to the groups in the file. Those that come with
    /// every system and have members of their own kind only (`systemd`, `mymachines`) are not worth a process per
    /// start of a service.
    fn has_other_sources(&self) -> Result<bool, Errno> {
        const FILES_ONLY: [&[u8]; 4] = [b"files", b"compat", b"systemd", b"mymachines"];
        let text = read(c"/etc/nsswitch.conf")?;
        let sources = lines(&text).find_map(|line| line.strip_prefix(self.name.to_bytes())?.strip_prefix(b":"));
        Ok(sources.is_some_and(|sources| {
            let sources = sources.split(|&b| b == b'#').next().unwrap_or(b"");
            sources
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty() && !word.starts_with(b"["))
                .any(|word| !FILES_ONLY.contains(&word) && !word.ends_with(b"]"))
        }))
    }
}

/// The first entry with this key, in the file or else by getent.
fn find<T>(base: &Database, key: Key<'_>, parse: impl Fn(&[&[u8]]) -> Option<T>) -> Result<Option<T>, Errno> {
    let wanted = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
        let id = parse_u32(fields.get(2)?)?;
        let same = match key {
            Key::Name(name) => fields[0] == name && !name.is_empty(),
            Key::Id(number) => id == number,
        };
        if same { parse(&fields) } else { None }
    };
    if let Some(found) = lines(&read(base.file)?).find_map(wanted) {
        return Ok(Some(found));
    }
    let word = match key {
        // No account has such a name, and getent would take it for an option.
        Key::Name([] | [b'-' | b'+', ..]) => return Ok(None),
        Key::Name(name) => CString::new(name).unwrap_or_default(),
        Key::Id(number) => CString::new(decimal(number).as_bytes()).unwrap_or_default(),
    };
    // getent takes digits for a number, so its answer is looked at as closely as the file.
    Ok(getent(base.name, Some(&word))?.and_then(|answer| lines(&answer).find_map(wanted)))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

/// A whole file; empty if it does not exist.
fn read(path: &CStr) -> Result<Vec<u8>, Errno> {
    match fd::open_file(path, OFlag::O_RDONLY, 0) {
        Ok(file) => fd::read_to_end(&file),
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// What getent prints for a key, or for a whole database; `None` if it knows no such entry, or is not there.
fn getent(database: &CStr, key: Option<&CStr>) -> Result<Option<Vec<u8>>, Errno> {
    let (reader, writer) = fd::pipe()?;
    let words = argv([c"getent", database].into_iter().chain(key));
    let output = [Redirect::new(std::os::fd::AsFd::as_fd(&writer), 1)];
    let child = match (Spawn { redirects: &output, ..Spawn::new(&words) }).start() {
        Ok(child) => child,
        Err(Errno::ENOENT | Errno::EACCES) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    drop(writer);
    let answer = fd::read_to_end(&reader)?;
    // It prints nothing if it finds nothing; its exit code cannot be had where SIGCHLD is ignored.
    let _ = wait::wait_for(child);
    Ok(Some(answer).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_both_ways() {
        let root = User { name: b"root".to_vec(), uid: 0, gid: 0 };
        assert_eq!(user(Key::Name(b"root")).unwrap(), Some(root.clone()));
        assert_eq!(user(Key::Id(0)).unwrap(), Some(root));
        assert_eq!(group(Key::Id(0)).unwrap().unwrap().gid, 0);
    }

    #[test]
    fn a_number_is_no_name_and_strange_names_are_nobody() {
        for name in [&b"0"[..], b"", b"-h", b"+root", b"no such user", b"root:x", b"a\0b"] {
            assert_eq!(user(Key::Name(name)).unwrap(), None, "{}", name.escape_ascii());
            assert_eq!(group(Key::Name(name)).unwrap(), None, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn groups_of_a_user_are_those_that_name_it() {
        for line in lines(&read(c"/etc/group").unwrap()) {
            let fields: Vec<&[u8]> = line.split(|&b| b == b':').collect();
            for member in fields[3].split(|&b| b == b',').filter(|m| !m.is_empty()) {
                assert!(groups_of(member).unwrap().contains(&parse_u32(fields[2]).unwrap()));
            }
        }
        assert_eq!(groups_of(b"no such user").unwrap(), []);
    }
}
