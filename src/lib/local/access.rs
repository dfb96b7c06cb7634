//! Access rules: who may connect, and with which environment, from a directory or from a cdb
//! (spec/local-services-and-instances.md 3 and 4, spec/events-and-fdholding.md 4).

use std::ffi::{CStr, CString};

use nix::unistd::{AccessFlags, access};

use crate::chain::envdir::{self, Style};
use crate::local::cdb::Cdb;
use crate::sys::env::Env;
use crate::sys::peer::Peer;
use crate::sys::{Errno, fd};
use crate::text::decimal;

/// The most bytes of an environment, and of a command, in a record.
pub const MOST: usize = 4096;
/// The most bytes of a record: a letter, two lengths, environment and command.
const RECORD: usize = 5 + 2 * MOST;

/// What a rule says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Come in.
    Allow(Allow),
    /// Go away.
    Deny,
    /// Nothing: ask the next rule.
    Unknown,
}

/// What comes with a permission.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allow {
    /// Changes of the environment: `NAME=value` sets, `NAME` unsets, each followed by a NUL.
    pub env: Vec<u8>,
    /// A command to run in place of the one that was going to; empty if there is none.
    pub exec: Vec<u8>,
}

/// A set of rules.
#[derive(Debug)]
pub enum Rules {
    /// A directory, read afresh for each question.
    Directory(CString),
    /// A compiled set.
    File(Cdb),
}

impl Rules {
    /// What the first rule that concerns `peer` says.
    pub fn judge(&self, peer: Peer) -> Result<Verdict, Errno> {
        for key in keys(peer) {
            match self.look_up(&key)? {
                Verdict::Unknown => {}
                verdict => return Ok(verdict),
            }
        }
        Ok(Verdict::Unknown)
    }

    /// What the rule `TYPE/KEY` says.
    pub fn look_up(&self, key: &[u8]) -> Result<Verdict, Errno> {
        match self {
            Rules::File(cdb) => cdb.find(key, RECORD)?.map_or(Ok(Verdict::Unknown), |data| decode(&data)),
            Rules::Directory(path) => {
                let rule = [path.as_bytes(), b"/", key, b"/"].concat();
                // Most keys have no rule, which one question tells.
                if !is_there(&join(&rule, b"")?)? {
                    Ok(Verdict::Unknown)
                } else if is_readable(&join(&rule, b"allow")?)? {
                    Ok(Verdict::Allow(Allow { env: environment(&join(&rule, b"env")?)?, exec: exec(&rule)? }))
                } else if is_readable(&join(&rule, b"deny")?)? {
                    Ok(Verdict::Deny)
                } else {
                    Ok(Verdict::Unknown)
                }
            }
        }
    }
}

/// The rules that concern `peer`, in the order in which they are asked: `uid/self` for this process's own effective
/// user, `uid/UID`, `gid/self`, `gid/GID`, `uid/default`.
pub fn keys(peer: Peer) -> impl Iterator<Item = Vec<u8>> {
    let own = |kind: &[u8]| Some([kind, b"/self"].concat());
    let id = |kind: &[u8], number: u32| Some([kind, b"/", decimal(number).as_bytes()].concat());
    let keys = [
        if peer.uid == nix::unistd::geteuid().as_raw() { own(b"uid") } else { None },
        id(b"uid", peer.uid),
        if peer.gid == nix::unistd::getegid().as_raw() { own(b"gid") } else { None },
        id(b"gid", peer.gid),
        Some(b"uid/default".to_vec()),
    ];
    keys.into_iter().flatten()
}

fn join(rule: &[u8], name: &[u8]) -> Result<CString, Errno> {
    CString::new([rule, name].concat()).map_err(|_| Errno::EINVAL)
}

/// Whether something is there; what we may not see is not.
fn is_there(path: &CStr) -> Result<bool, Errno> {
    may(path, AccessFlags::F_OK)
}

/// Whether a file is there for us to read.
fn is_readable(path: &CStr) -> Result<bool, Errno> {
    may(path, AccessFlags::R_OK)
}

fn may(path: &CStr, mode: AccessFlags) -> Result<bool, Errno> {
    match access(path, mode) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The start of the file `exec` of a rule.
fn exec(rule: &[u8]) -> Result<Vec<u8>, Errno> {
    match fd::read_file(&join(rule, b"exec")?, &mut [0; MOST]) {
        Ok(text) => Ok(text.to_vec()),
        Err(Errno::ENOENT | Errno::EACCES) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// An environment directory as changes of the environment; none if it is not there. An entry that cannot be read is
/// an error.
pub fn environment(path: &CStr) -> Result<Vec<u8>, Errno> {
    let mut env = Vec::new();
    let read = envdir::for_each(path, Style::DEFAULT, |name, value| {
        env.extend(name);
        if let Some(value) = value {
            env.push(b'=');
            env.extend(value);
        }
        env.push(0);
    });
    match read {
        Err(failure) if !failure.is_missing(path) => Err(failure.errno),
        _ => Ok(env),
    }
}

impl Allow {
    /// The changes of the environment, in order: a name, and its value unless it is unset.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.env.split(|&b| b == 0).filter(|item| !item.is_empty()).map(|item| {
            let mut parts = item.splitn(2, |&b| b == b'=');
            (parts.next().unwrap_or(b""), parts.next())
        })
    }

    /// The value of a variable after all changes.
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.variables().filter(|(known, _)| *known == name).last()?.1
    }

    /// Changes an environment.
    pub fn apply_to(&self, env: &mut Env) {
        for (name, value) in self.variables() {
            match value {
                Some(value) => env.set(name, value),
                None => env.unset(name),
            };
        }
    }

    /// As a record of a cdb; `None` if environment or command have more than [`MOST`] bytes.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.env.len() > MOST || self.exec.len() > MOST {
            return None;
        }
        let length = |part: &[u8]| (part.len() as u16).to_be_bytes();
        Some([b"A", &length(&self.env)[..], &self.env, &length(&self.exec)[..], &self.exec].concat())
    }
}

/// What a record of a cdb says; EINVAL if it is malformed.
pub fn decode(data: &[u8]) -> Result<Verdict, Errno> {
    let part = |bytes: &mut &[u8]| {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (part, rest) = rest.split_at_checked(length).filter(|_| length <= MOST)?;
        *bytes = rest;
        Some(part.to_vec())
    };
    match data.split_first() {
        None => Err(Errno::EINVAL),
        Some(_) if data.len() > RECORD => Err(Errno::EINVAL),
        Some((b'D', _)) => Ok(Verdict::Deny),
        Some((b'A', mut rest)) => match (part(&mut rest), part(&mut rest), rest) {
            (Some(env), Some(exec), []) => Ok(Verdict::Allow(Allow { env, exec })),
            _ => Err(Errno::EINVAL),
        },
        Some(_) => Ok(Verdict::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::cdb::Writer;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn c_path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    /// A directory of rules, made of (path, content).
    fn directory(files: &[(&str, &str)]) -> (tempfile::TempDir, Rules) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let rules = Rules::Directory(c_path(dir.path()));
        (dir, rules)
    }

    fn me() -> Peer {
        Peer { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), pid: None }
    }

    const STRANGER: Peer = Peer { uid: 4000123, gid: 4000124, pid: None };

    #[test]
    fn the_first_rule_that_says_something_decides() {
        let (_dir, rules) = directory(&[
            ("uid/self/other", ""),
            ("gid/4000124/deny", ""),
            ("uid/default/allow", ""),
            ("uid/default/deny", ""),
            ("gid/self/deny", ""),
        ]);
        assert_eq!(rules.judge(me()), Ok(Verdict::Deny));
        assert_eq!(rules.judge(STRANGER), Ok(Verdict::Deny));
        assert_eq!(rules.judge(Peer { gid: 4000125, ..STRANGER }), Ok(Verdict::Allow(Allow::default())));
        let (_dir, none) = directory(&[]);
        assert_eq!(none.judge(me()), Ok(Verdict::Unknown));
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (_dir, rules) = directory(&[("uid", "")]);
        assert_eq!(rules.judge(STRANGER), Err(Errno::ENOTDIR));
    }

    #[test]
    fn environment_files_have_one_line_that_counts() {
        let (_dir, rules) = directory(&[
            ("uid/0/allow", ""),
            ("uid/0/env/LINE", "a b \t\r\nmore"),
            ("uid/0/env/EMPTY", "\n"),
            ("uid/0/env/UNSET", ""),
            ("uid/0/env/NUL", "x\0y"),
            ("uid/0/env/.hidden", "x"),
            ("uid/0/env/A=B", "x"),
            ("uid/0/exec", "echo hello\n"),
        ]);
        let Ok(Verdict::Allow(allow)) = rules.look_up(b"uid/0") else { panic!("denied") };
        assert_eq!(allow.variable(b"LINE"), Some(&b"a b"[..]));
        assert_eq!(allow.variable(b"EMPTY"), Some(&b""[..]));
        assert_eq!(allow.variable(b"NUL"), Some(&b"x\ny"[..]));
        assert_eq!(allow.variable(b"UNSET"), None);
        assert_eq!(allow.variables().count(), 4);
        assert_eq!(allow.exec, b"echo hello\n");
    }

    #[test]
    fn an_environment_that_cannot_be_read_is_an_error() {
        let (dir, rules) = directory(&[("uid/0/allow", "")]);
        let entry = dir.path().join("uid/0/env/ENTRY");
        std::fs::create_dir_all(&entry).unwrap();
        assert_eq!(rules.look_up(b"uid/0"), Err(Errno::EISDIR));
        std::fs::remove_dir(&entry).unwrap();
        std::os::unix::fs::symlink("/nonexistent/file", &entry).unwrap();
        assert_eq!(rules.look_up(b"uid/0"), Err(Errno::ENOENT));
        std::fs::remove_file(&entry).unwrap();
        std::fs::remove_dir(entry.parent().unwrap()).unwrap();
        assert_eq!(rules.look_up(b"uid/0"), Ok(Verdict::Allow(Allow::default())));
    }

    #[test]
    fn a_compiled_set_says_the_same() {
        let allow = Allow { env: b"A=1\0B\0".to_vec(), exec: b"x".to_vec() };
        let mut writer = Writer::new();
        writer.add(b"uid/4000123", &allow.encode().unwrap()).unwrap();
        writer.add(b"gid/7", b"D").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), writer.finish()).unwrap();
        let rules = Rules::File(Cdb::open(&c_path(file.path())).unwrap());
        assert_eq!(rules.judge(STRANGER), Ok(Verdict::Allow(allow)));
        assert_eq!(rules.judge(Peer { uid: 1, gid: 7, pid: None }), Ok(Verdict::Deny));
        assert_eq!(rules.judge(Peer { uid: 1, gid: 1, pid: None }), Ok(Verdict::Unknown));
    }

    #[test]
    fn records_have_exact_lengths() {
        assert_eq!(decode(b"A\0\0\0\0"), Ok(Verdict::Allow(Allow::default())));
        assert_eq!(decode(b"Dwhatever"), Ok(Verdict::Deny));
        assert_eq!(decode(b"Z"), Ok(Verdict::Unknown));
        for wrong in [&b""[..], b"A", b"A\0\0\0", b"A\0\0\0\0x", b"A\0\x03x\0\0\0", b"A\0\0\0\x01"] {
            assert_eq!(decode(wrong), Err(Errno::EINVAL), "{wrong:?}");
        }
        let big = Allow { env: vec![b'x'; MOST + 1], exec: Vec::new() };
        assert_eq!(big.encode(), None);
    }

    proptest! {
        #[test]
        fn records_survive_the_way_there_and_back(env in any::<Vec<u8>>(), exec in any::<Vec<u8>>()) {
            let allow = Allow { env, exec };
            prop_assert_eq!(decode(&allow.encode().unwrap()), Ok(Verdict::Allow(allow)));
        }

        #[test]
        fn any_record_is_understood_or_refused(data in any::<Vec<u8>>()) {
            let _ = decode(&data);
        }
    }
}
