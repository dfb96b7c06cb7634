//! s6-fdholder-daemon: a server that listens on a socket in the file system, put together from parts
//! (spec/events-and-fdholding.md 4)

use std::ffi::CString;

use crate::cli::{Args, Options, Value};
use crate::error::{Die, Exec, Exit, Program};
use crate::text::decimal;

/// Becomes s6-fdholderd, in the end.
pub const PROGRAM: Program = Program {
    name: "s6-fdholder-daemon",
    usage: "s6-fdholder-daemon [ -v verbosity ] [ -d | -D ] [ -1 ] [ -c maxconn ] [ -n maxfds ] [ -b backlog ] \
            [ -G gid,... ] [ -g gid ] [ -u uid ] [ -U ] [ -t timeout ] [ -T lameducktimeout ] \
            [ -i rulesdir | -x rulesfile ] socket",
    run,
};

/// Words of a command line that is being made.
#[derive(Default)]
struct Words(Vec<CString>);

impl Words {
    fn put(&mut self, word: impl Into<Vec<u8>>) {
        self.0.extend(CString::new(word));
    }

    fn option(&mut self, letter: char, value: Option<impl Into<Vec<u8>>>) {
        if let Some(value) = value {
            self.put(format!("-{letter}"));
            self.put(value);
        }
    }

    fn flag(&mut self, flag: &str, is_set: bool) {
        if is_set {
            self.put(flag);
        }
    }
}

/// A number as it is passed on: without leading zeros, and at least `least`.
fn number(value: &Value, least: u32) -> Result<Option<Vec<u8>>, Die> {
    Ok(Some(decimal(value.u32()?.max(least)).as_bytes().to_vec()))
}

/// A list of group numbers as it is passed on.
fn groups(value: Value) -> Result<Option<Vec<u8>>, Die> {
    let list = value.into_bytes();
    if list.first().is_some_and(|b| !b.is_ascii_digit()) { Err(Die::usage()) } else { Ok(Some(list)) }
}

fn run(args: Args) -> Result<Exit, Die> {
    let (mut notify, mut reuse, mut from_env) = (false, true, false);
    let (mut verbosity, mut clients, mut descriptors, mut backlog) = (None, None, None, None);
    let (mut patience, mut farewell, mut rules) = (None, None, None);
    let (mut uid, mut gid, mut gids) = (None, None, None);
    let mut options = Options::classic(args, "vcnbGgutTix");
    while let Some((letter, value)) = options.next()? {
        match letter {
            '1' => notify = true,
            'd' => reuse = true,
            'D' => reuse = false,
            'v' => verbosity = number(&value, 0)?.filter(|_| value.u32() != Ok(1)),
            'c' => clients = number(&value, 1)?,
            'n' => descriptors = number(&value, 1)?,
            'b' => backlog = number(&value, 0)?,
            't' => patience = number(&value, 0)?.filter(|_| value.u32() != Ok(0)),
            'T' => farewell = number(&value, 0)?.filter(|_| value.u32() != Ok(0)),
            'U' => {
                from_env = true;
                (uid, gid, gids) = (None, None, None);
            }
            'u' => uid = number(&value, 0)?,
            'g' => gid = number(&value, 0)?,
            'G' => gids = groups(value)?,
            'i' | 'x' => rules = Some((letter, value.into_bytes())),
            _ => return Err(options.unknown(letter)),
        }
    }
    let path = options.operands().get(0).ok_or_else(Die::usage)?;
    let (kind, rules) = rules.ok_or_else(Die::usage)?;
    let mut words = Words::default();
    words.put("s6-ipcserver-socketbinder");
    words.flag("-D", !reuse);
    words.option('b', backlog);
    words.put("--");
    words.put(path.to_bytes());
    if from_env || uid.is_some() || gid.is_some() || gids.is_some() {
        words.put("s6-applyuidgid");
        words.flag("-Uz", from_env);
        words.option('u', uid);
        words.option('g', gid);
        words.option('G', gids);
        words.put("--");
    }
    words.put("s6-fdholderd");
    words.option('v', verbosity);
    words.flag("-1", notify);
    words.option('c', clients);
    words.option('n', descriptors);
    words.option('t', patience);
    words.option('T', farewell);
    words.option(kind, Some(rules));
    Ok(Exec::command(words.0).into())
}
