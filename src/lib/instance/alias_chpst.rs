//! s6-alias-chpst: runit's chpst (spec/local-services-and-instances.md 11.3).
//!
//! It becomes a chain of programs that each change one thing. What no program of the suite changes (the name, which
//! descriptors are open, the root) it changes itself, as the last link of that chain.

use std::ffi::CString;

use nix::unistd::{chdir, chroot};

use crate::chain::identity::{Identity, format_list};
use crate::cli::{Args, CommandLine, Options, Value};
use crate::error::{self, Die, Exec, Exit, OrDie, Program, USAGE};
use crate::sys::fd;
use crate::text::{decimal, parse_u32, parse_u64};
use crate::users::{self, Key};
use crate::{die, info};

/// Runs a program with another user, environment, limits, root and so on.
pub const PROGRAM: Program = Program {
    name: "s6-alias-chpst",
    usage: "s6-alias-chpst [ -v ] [ -P ] [ -0 ] [ -1 ] [ -2 ] [ -u user ] [ -U user ] [ -b argv0 ] [ -e dir ] \
            [ -/ root ] [ -n nice ] [ -l lock | -L lock ] [ -m bytes ] [ -d bytes ] [ -o n ] [ -p n ] [ -f bytes ] \
            [ -c bytes ] prog...",
    run,
};

/// The limits, as s6-softlimit calls them.
const LIMITS: [char; 6] = ['m', 'd', 'o', 'p', 'f', 'c'];

/// What other programs change.
#[derive(Default)]
struct Chain {
    nice: Option<Vec<u8>>,
    new_session: bool,
    env_dir: Option<Vec<u8>>,
    /// The option of s6-setlock, and the file.
    lock: Option<(&'static str, Vec<u8>)>,
    env_user: Option<Vec<u8>>,
    limits: [Option<u64>; LIMITS.len()],
}

/// What this program changes, as the last link.
#[derive(Default)]
struct LastLink {
    close: [bool; 3],
    name: Option<CString>,
    root: Option<CString>,
    identity: Option<Identity>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "uUbe/nlLmdopfc");
    let (mut chain, mut last) = (Chain::default(), LastLink::default());
    let (mut identity, mut verbose) = (None, false);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'v' => verbose = true,
            'P' => chain.new_session = true,
            '0' => last.close[0] = true,
            '1' => last.close[1] = true,
            '2' => last.close[2] = true,
            'u' => identity = Some(parse_identity(value.bytes())?),
            'U' => chain.env_user = Some(value.into_bytes()),
            'b' => last.name = Some(value.into_cstring()),
            'e' => chain.env_dir = Some(value.into_bytes()),
            '/' => last.root = Some(value.into_cstring()),
            'n' => chain.nice = parse_nice(&value)?,
            'l' => chain.lock = Some(("-N", value.into_bytes())),
            'L' => chain.lock = Some(("-n", value.into_bytes())),
            letter => match LIMITS.iter().position(|&known| known == letter) {
                Some(i) => chain.limits[i] = Some(parse_u64(value.bytes()).ok_or_else(Die::usage)?),
                None => return Err(options.unknown(letter)),
            },
        }
    }
    let program = options.operands();
    // A new root needs rights that a new identity gives up, so then the last link does both.
    last.identity = identity.take_if(|_| last.root.is_some());
    let mut line = CommandLine::default();
    chain.add_to(&mut line, identity.as_ref());
    let alone = line.is_empty();
    last.add_to(&mut line);
    if program.is_empty() {
        return if line.is_empty() { Ok(error::OK) } else { Err(Die::usage()) };
    }
    line.words(program);
    if verbose {
        info!("executing the following command line: ", line.text());
    }
    if alone { last.run(program) } else { Ok(line.exec().into()) }
}

/// `:uid[:gid[:gid...]]`, or `user[:group[:group...]]`: the first group is the primary one, that of the user if none is
/// given.
fn parse_identity(text: &[u8]) -> Result<Identity, Die> {
    if let Some(numbers) = text.strip_prefix(b":") {
        let ids: Option<Vec<u32>> = numbers.split(|&b| b == b':').map(parse_u32).collect();
        let ids = ids.ok_or_else(|| die!(USAGE, "invalid uid or gid: ", text))?;
        return Ok(Identity {
            uid: ids[0],
            gid: ids.get(1).copied().unwrap_or(0),
            groups: Some(ids.iter().skip(2).copied().collect()),
        });
    }
    let mut names = text.split(|&b| b == b':');
    let name = names.next().unwrap_or(b"");
    let user = users::user(Key::Name(name)).or_die("look up user", name)?;
    let user = user.ok_or_else(|| die!(USAGE, "unknown user: ", name))?;
    let group = |name: &[u8]| -> Result<u32, Die> {
        let group = users::group(Key::Name(name)).or_die("look up group", name)?;
        group.map(|group| group.gid).ok_or_else(|| die!(USAGE, "unknown group: ", name))
    };
    let groups = names.map(group).collect::<Result<Vec<u32>, Die>>()?;
    let gid = groups.first().copied().unwrap_or(user.gid);
    Ok(Identity { uid: user.uid, gid, groups: Some(groups.into_iter().skip(1).collect()) })
}

/// A number, which may be negative; 0 is no change.
fn parse_nice(value: &Value) -> Result<Option<Vec<u8>>, Die> {
    let digits = value.bytes().strip_prefix(b"-").unwrap_or(value.bytes());
    match parse_u32(digits) {
        None => Err(Die::usage()),
        Some(0) => Ok(None),
        Some(_) => Ok(Some(value.bytes().to_vec())),
    }
}

impl Chain {
    /// Adds the programs that are needed, each with its options.
    fn add_to(&self, line: &mut CommandLine, identity: Option<&Identity>) {
        if self.nice.is_some() {
            line.word("nice").option("-n", self.nice.as_ref()).word("--");
        }
        if self.new_session {
            line.word("s6-setsid").word("--");
        }
        if let Some(dir) = &self.env_dir {
            line.word("s6-envdir").word("--").word(dir);
        }
        if let Some((option, file)) = &self.lock {
            line.word("s6-setlock").word(option).word("--").word(file);
        }
        if let Some(Identity { uid, gid, groups }) = identity {
            line.word("s6-applyuidgid").number("-u", Some(*uid)).number("-g", Some(*gid).filter(|&gid| gid != 0));
            line.option("-G", groups.as_ref().map(|list| format_list(list))).word("--");
        }
        if let Some(user) = &self.env_user {
            let numeric = user.strip_prefix(b":");
            let account = numeric.unwrap_or(user);
            line.word("s6-envuidgid").flag(numeric.is_some(), "-n").flag(account.contains(&b':'), "-B");
            line.word("--").word(account);
        }
        if self.limits.iter().any(Option::is_some) {
            line.word("s6-softlimit");
            for (letter, limit) in LIMITS.iter().zip(self.limits) {
                line.number(&format!("-{letter}"), limit);
            }
            line.word("--");
        }
    }
}

impl LastLink {
    fn is_needed(&self) -> bool {
        self.close != [false; 3] || self.name.is_some() || self.root.is_some()
    }

    /// Adds this program again, with what is left to do, if there is anything.
    fn add_to(&self, line: &mut CommandLine) {
        if !self.is_needed() {
            return;
        }
        line.word(PROGRAM.name);
        for (close, option) in self.close.into_iter().zip(["-0", "-1", "-2"]) {
            line.flag(close, option);
        }
        line.option("-b", self.name.as_ref().map(|name| name.as_bytes()));
        line.option("-/", self.root.as_ref().map(|root| root.as_bytes()));
        if let Some(Identity { uid, gid, groups }) = &self.identity {
            let ids = [&[*uid, *gid][..], groups.as_deref().unwrap_or_default()].concat();
            let ids: Vec<u8> = ids.iter().flat_map(|&id| [b":", decimal(id).as_bytes()].concat()).collect();
            line.option("-u", Some(ids));
        }
        line.word("--");
    }

    fn run(self, program: Args) -> Result<Exit, Die> {
        if let Some(root) = &self.root {
            chroot(root.as_c_str()).and_then(|()| chdir("/")).or_die("change root to", root)?;
        }
        if let Some(identity) = &self.identity {
            identity.apply()?;
        }
        for (close, number) in self.close.into_iter().zip(0..) {
            if close {
                fd::close(number);
            }
        }
        let exec = Exec::operands(program);
        Ok(match self.name {
            Some(name) => exec.called(name).into(),
            None => exec.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_numbers_after_a_colon_and_names_without() {
        let identity = |uid, gid, groups: &[u32]| Some(Identity { uid, gid, groups: Some(groups.to_vec()) });
        for (text, want) in [
            (":5", identity(5, 0, &[])),
            (":5:6", identity(5, 6, &[])),
            (":5:6:7:8", identity(5, 6, &[7, 8])),
            ("root", identity(0, 0, &[])),
            ("root:root:root", identity(0, 0, &[0])),
            (":", None),
            (":x", None),
            (":5:", None),
            ("", None),
            ("no such user", None),
            ("root:no such group", None),
        ] {
            assert_eq!(parse_identity(text.as_bytes()).ok(), want, "{text}");
        }
    }
}
