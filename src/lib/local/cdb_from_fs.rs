//! s6-accessrules-cdb-from-fs: access rules compiled (spec/local-services-and-instances.md 4.3).

use std::ffi::{CStr, CString};

use nix::fcntl::{AT_FDCWD, OFlag, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{AccessFlags, access, fsync, unlink};

use crate::cli::{Args, Long, Options};
use crate::error::{self, Die, Exit, OrDie, Program, USAGE};
use crate::events::fifodir::join;
use crate::local::access::{self, Allow, MOST};
use crate::local::cdb::Writer;
use crate::sys::{Errno, dir, fd, random};
use crate::{die, text, warn};

/// Compiles a directory of access rules.
pub const PROGRAM: Program =
    Program { name: "s6-accessrules-cdb-from-fs", usage: "s6-accessrules-cdb-from-fs [ -m mode ] cdbfile dir", run };

const LONG: &[Long] = &[("mode", 'm')];

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "m", LONG);
    let mut mode = 0o600;
    while let Some((letter, value)) = options.next()? {
        match letter {
            'm' => {
                mode = text::parse_octal(value.bytes()).ok_or_else(|| die!(USAGE, "invalid mode: ", value.bytes()))?
            }
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(file), Some(rules)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let bytes = compile(rules)?;
    replace(file, &bytes, mode).or_die("write", file)?;
    Ok(error::OK)
}

/// The cdb of the rules below a directory.
fn compile(rules: &CStr) -> Result<Vec<u8>, Die> {
    let mut cdb = Writer::new();
    for kind in visible_entries(rules)? {
        let kind_path = join(rules, &kind);
        for key in visible_entries(&kind_path)? {
            if let Some(data) = compile_rule(&join(&kind_path, &key))? {
                let name = join(&kind, &key);
                cdb.add(name.to_bytes(), &data).or_die("add a rule for", &name)?;
            }
        }
    }
    Ok(cdb.finish())
}

/// The names in a directory that do not begin with a dot, in its order.
fn visible_entries(path: &CStr) -> Result<Vec<CString>, Die> {
    let mut names =
        fd::open_file(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0).and_then(dir::names_in).or_die("read", path)?;
    names.retain(|name| !name.to_bytes().starts_with(b"."));
    Ok(names)
}

/// The record of a rule; `None` if it says nothing.
fn compile_rule(rule: &CStr) -> Result<Option<Vec<u8>>, Die> {
    if !exists(&join(rule, c"allow"))? {
        return Ok(exists(&join(rule, c"deny"))?.then(|| b"D".to_vec()));
    }
    let (env, exec) = (join(rule, c"env"), join(rule, c"exec"));
    let allow = Allow { env: access::environment(&env).or_die("read", &env)?, exec: read_exec(&exec)? };
    let data = allow.encode();
    data.map(Some).ok_or_else(|| die!(USAGE, env, " is too large: more than ", text::decimal(MOST as u64), " bytes"))
}

fn exists(path: &CStr) -> Result<bool, Die> {
    match access(path, AccessFlags::F_OK) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        failure => failure.or_die("look at", path).map(|()| true),
    }
}

fn read_exec(path: &CStr) -> Result<Vec<u8>, Die> {
    let mut buffer = [0; MOST];
    match fd::read_file(path, &mut buffer) {
        Ok(text) => {
            if text.len() == MOST {
                warn!(path, " may be too long: only ", text::decimal(MOST as u64), " bytes of it are used");
            }
            Ok(text.to_vec())
        }
        Err(Errno::ENOENT) => Ok(Vec::new()),
        failure => failure.or_die("read", path).map(<[u8]>::to_vec),
    }
}

/// Replaces a file by one with exactly this mode that is on disk, or leaves it as it was.
fn replace(path: &CStr, bytes: &[u8], mode: u32) -> Result<(), Errno> {
    let suffix = [b":", PROGRAM.name.as_bytes(), b":", &random::letters()?[..]].concat();
    let temporary = CString::new([path.to_bytes(), &suffix].concat()).map_err(|_| Errno::EINVAL)?;
    let file = fd::open_file(&temporary, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o600)?;
    let done = fd::write_all(&file, bytes)
        .and_then(|()| fchmod(&file, Mode::from_bits_truncate(mode as libc::mode_t)))
        .and_then(|()| fsync(&file))
        .and_then(|()| renameat(AT_FDCWD, temporary.as_c_str(), AT_FDCWD, path));
    if done.is_err() {
        let _ = unlink(temporary.as_c_str());
    }
    done
}
