//! s6-envuidgid: put the numbers of an account in the environment (spec/logging-and-chainloaders.md 8).

use super::identity::{Identity, format_list, leading_number, parse_list};
use crate::cli::{Args, Options, Value};
use crate::die;
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::sys::env::Env;
use crate::text::decimal;
use crate::users::{self, Key};

/// Sets UID, GID and GIDLIST, then executes the rest of its command line.
pub const PROGRAM: Program = Program {
    name: "s6-envuidgid",
    usage: "s6-envuidgid [ -i | -D uid:gid:gidlist ] [ -u | -g | -B ] [ -n ] account prog...",
    run,
};

/// Exit code for a name that is nobody's.
const UNKNOWN: u8 = 1;

/// What the account is, and so which variables are set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A user: UID, GID and GIDLIST.
    Account,
    /// A user: UID.
    User,
    /// A group: GID.
    Group,
    /// `user:group`: UID and GID.
    Both,
}

/// How names become numbers.
struct Lookup {
    /// A name that is unknown may be a number (`-n`).
    numeric: bool,
    /// What unknown names stand for (`-D`); `None`: they are fatal.
    default: Option<Identity>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut mode = Mode::Account;
    let mut lookup = Lookup { numeric: false, default: None };
    let mut options = Options::classic(args, "D");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'u' => mode = Mode::User,
            'g' => mode = Mode::Group,
            'B' => mode = Mode::Both,
            'n' => lookup.numeric = true,
            'i' => lookup.default = None,
            'D' => lookup.default = Some(parse_default(&value)?),
            letter => return Err(options.unknown(letter)),
        }
    }
    if lookup.numeric && mode == Mode::Account {
        mode = Mode::Both;
    }
    let (Some(account), program) = (options.operands().get(0), options.operands().from(1)) else {
        return Err(Die::usage());
    };
    if program.is_empty() {
        return Err(Die::usage());
    }
    let mut env = Env::inherited();
    let mut set = |name: &str, number: u32| {
        env.set(name.as_bytes(), decimal(number).as_bytes());
    };
    match mode {
        Mode::User => set("UID", lookup.user(account.to_bytes())?),
        Mode::Group => set("GID", lookup.group(account.to_bytes())?),
        Mode::Both => {
            let (user, group) = split_at_colon(account.to_bytes());
            // The group first: where both are unknown, that is the one the message names.
            let gid = lookup.part(group.filter(|name| !name.is_empty()), Lookup::group, |default| default.gid)?;
            let user = if group.is_some() && user.is_empty() { None } else { Some(user) };
            set("UID", lookup.part(user, Lookup::user, |default| default.uid)?);
            set("GID", gid);
        }
        Mode::Account => {
            let identity = lookup.account(account.to_bytes())?;
            set("UID", identity.uid);
            set("GID", identity.gid);
            env.set(b"GIDLIST", &format_list(&identity.groups.unwrap_or_default()));
        }
    }
    Ok(Exec::operands(program).with_env(env).into())
}

/// `a:b:c` is `a` and `b:c`; without a colon there is no second part.
fn split_at_colon(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|&b| b == b':') {
        Some(colon) => (&text[..colon], Some(&text[colon + 1..])),
        None => (text, None),
    }
}

/// `uid[:gid[:list]]`, an empty number being 0, but not nothing at all.
fn parse_default(value: &Value) -> Result<Identity, Die> {
    let number = |text: &[u8]| {
        let mut rest = text;
        if text.is_empty() { Some(0) } else { leading_number(&mut rest).filter(|_| rest.is_empty()) }
    };
    let (uid, rest) = split_at_colon(value.bytes());
    let (gid, list) = split_at_colon(rest.unwrap_or(b""));
    let parse =
        || Some(Identity { uid: number(uid)?, gid: number(gid)?, groups: Some(parse_list(list.unwrap_or(b""))?) });
    if value.bytes().is_empty() { Err(Die::usage()) } else { parse().ok_or_else(Die::usage) }
}

impl Lookup {
    fn user(&self, name: &[u8]) -> Result<u32, Die> {
        let found = users::user(Key::Name(name)).or_die("look up user", name)?;
        self.resolve(found.map(|user| user.uid), name, |default| default.uid, "unknown user: ")
    }

    fn group(&self, name: &[u8]) -> Result<u32, Die> {
        let found = users::group(Key::Name(name)).or_die("look up group", name)?;
        self.resolve(found.map(|group| group.gid), name, |default| default.gid, "unknown group: ")
    }

    /// One side of `user:group`; a missing one takes the default, or 0.
    fn part(
        &self,
        name: Option<&[u8]>,
        find: fn(&Self, &[u8]) -> Result<u32, Die>,
        default: fn(&Identity) -> u32,
    ) -> Result<u32, Die> {
        match name {
            None => Ok(self.default.as_ref().map_or(0, default)),
            Some(name) => find(self, name),
        }
    }

    fn account(&self, name: &[u8]) -> Result<Identity, Die> {
        match (find_account(name)?, &self.default) {
            (Some(identity), _) => Ok(identity),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => Err(unknown_user(name)),
        }
    }

    fn resolve(
        &self,
        found: Option<u32>,
        name: &[u8],
        default: fn(&Identity) -> u32,
        complaint: &str,
    ) -> Result<u32, Die> {
        let mut rest = name;
        found
            .or_else(|| if self.numeric { leading_number(&mut rest) } else { None })
            .or_else(|| self.default.as_ref().map(default))
            .ok_or_else(|| die!(UNKNOWN, complaint, name))
    }
}

/// The account with its primary and supplementary groups; `None` if there is none of that name.
pub(super) fn find_account(name: &[u8]) -> Result<Option<Identity>, Die> {
    match users::user(Key::Name(name)).or_die("look up user", name)? {
        None => Ok(None),
        Some(user) => {
            let groups = users::groups_of(name).or_die("look up the groups of", name)?;
            Ok(Some(Identity { uid: user.uid, gid: user.gid, groups: Some(groups) }))
        }
    }
}

/// The refusal of a name that is nobody's.
pub(super) fn unknown_user(name: &[u8]) -> Die {
    die!(UNKNOWN, "unknown user: ", name)
}
