//! s6-accessrules-fs-from-cdb: compiled access rules as a directory (spec/local-services-and-instances.md 4.4).

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::OFlag;

use crate::cli::Args;
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, SYSTEM};
use crate::local::access::MOST;
use crate::local::cdb::Cdb;
use crate::sys::{Errno, dir, fd};

/// Turns a compiled set of access rules back into a directory.
pub const PROGRAM: Program =
    Program { name: "s6-accessrules-fs-from-cdb", usage: "s6-accessrules-fs-from-cdb dir cdbfile", run };

/// The most bytes of a record's data.
const DATA: usize = 8201;

fn run(args: Args) -> Result<Exit, Die> {
    let operands = args.operands();
    let (Some(target), Some(file)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let cdb = Cdb::open(file).or_die("open", file)?;
    dir::make(target, 0o755).or_die("make", target)?;
    let written = write_rules(target, &cdb, file);
    if written.is_err() {
        let _ = std::fs::remove_dir_all(OsStr::from_bytes(target.to_bytes()));
    }
    written.map(|()| error::OK)
}

fn write_rules(target: &CStr, cdb: &Cdb, file: &CStr) -> Result<(), Die> {
    // A key that is longer than any path is refused with its record.
    for record in cdb.records(libc::PATH_MAX as usize + DATA) {
        let (key, data) = record.or_die("read", file)?;
        let rule = Rule::parse(&data)
            .filter(|_| data.len() <= DATA && key.split(|&b| b == b'/').all(is_component))
            .ok_or_else(|| die!(SYSTEM, "malformed record in ", file, ": ", key.escape_ascii().to_string()))?;
        let mut path = target.to_bytes().to_vec();
        for component in key.split(|&b| b == b'/') {
            path = [&path, &b"/"[..], component].concat();
            make_dir(&path)?;
        }
        rule.write(&path)?;
    }
    Ok(())
}

/// Whether this names an entry of a directory, and no other directory.
fn is_component(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

/// A record taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Rule<'a> {
    /// The file that gives the verdict, if any.
    verdict: Option<&'static [u8]>,
    env: Vec<(&'a [u8], Option<&'a [u8]>)>,
    exec: &'a [u8],
}

impl<'a> Rule<'a> {
    /// `None` if it is malformed. Also what a reader of rules does not look at, such as the environment of a
    /// refusal, must be right.
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (&letter, rest) = data.split_first()?;
        let verdict = match letter {
            b'A' => Some(&b"allow"[..]),
            b'D' => Some(&b"deny"[..]),
            _ => None,
        };
        if rest.len() < 2 {
            return Some(Rule { verdict, env: Vec::new(), exec: b"" });
        }
        let (env, rest) = part(rest)?;
        let (exec, rest) = part(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let items = match env {
            [] => Vec::new(),
            _ => env.strip_suffix(b"\0")?.split(|&b| b == 0).map(item).collect::<Option<_>>()?,
        };
        Some(Rule { verdict, env: items, exec })
    }

    fn write(&self, path: &[u8]) -> Result<(), Die> {
        let inside = |name: &[u8]| [path, b"/", name].concat();
        if let Some(name) = self.verdict {
            write_file(&inside(name), &[])?;
        }
        if !self.env.is_empty() {
            make_dir(&inside(b"env"))?;
        }
        for (name, value) in &self.env {
            let text = value.map_or_else(Vec::new, |value| [value, b"\n"].concat());
            write_file(&inside(&[b"env/", *name].concat()), &text)?;
        }
        if !self.exec.is_empty() {
            write_file(&inside(b"exec"), self.exec)?;
        }
        Ok(())
    }
}

/// A length of two bytes, that many bytes, and what follows.
fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    rest.split_at_checked(length).filter(|_| length <= MOST)
}

/// `NAME=value`, or `NAME`.
fn item(item: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut halves = item.splitn(2, |&b| b == b'=');
    let name = halves.next().filter(|name| is_component(name))?;
    Some((name, halves.next()))
}

/// Makes a directory unless it is there.
fn make_dir(path: &[u8]) -> Result<(), Die> {
    let path = c_string(path)?;
    match dir::make(&path, 0o755) {
        Err(Errno::EEXIST) => Ok(()),
        other => other.or_die("make", &path),
    }
}

fn write_file(path: &[u8], text: &[u8]) -> Result<(), Die> {
    let path = c_string(path)?;
    fd::open_file(&path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC, 0o666)
        .and_then(|file| fd::write_all(file, text))
        .or_die("write", &path)
}

fn c_string(path: &[u8]) -> Result<CString, Die> {
    CString::new(path).map_err(|_| Errno::EINVAL).or_die("make", "a path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert!(!is_component(name), "{}", name.escape_ascii());
        }
        assert_eq!(Rule::parse(b"A\0\x07../x=y\0\0\0"), None);
        assert_eq!(Rule::parse(b"A\0\x01\0\0\0"), None);
    }

    #[test]
    fn records_are_read_whole_or_not_at_all() {
        let rule = Rule::parse(b"A\0\x06B=c\0D\0\0\x02ls").unwrap();
        assert_eq!(rule.verdict, Some(&b"allow"[..]));
        assert_eq!(rule.env, [(&b"B"[..], Some(&b"c"[..])), (b"D", None)]);
        assert_eq!(rule.exec, b"ls");
        for wrong in [&b""[..], b"Dxyz", b"A\0\0\0\x01", b"A\0\0\0\0junk", b"A\0\x02AB\0\0", b"A\xff\xff"] {
            assert_eq!(Rule::parse(wrong), None, "{}", wrong.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_record_is_understood_or_refused(data in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(rule) = Rule::parse(&data) {
                prop_assert!(rule.env.iter().all(|(name, _)| is_component(name)));
            }
        }
    }
}
