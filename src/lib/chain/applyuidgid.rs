//! s6-applyuidgid: become another user, by number (spec/logging-and-chainloaders.md 9).

use super::identity::{Identity, VARIABLES};
use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, Program};
use crate::sys::env::Env;

/// Sets uid, gid and groups, then executes the rest of its command line.
pub const PROGRAM: Program = Program {
    name: "s6-applyuidgid",
    usage: "s6-applyuidgid [ -z ] [ -u uid ] [ -g gid ] [ -G gidlist ] [ -U ] prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut identity = Identity::default();
    let mut unexport = false;
    let mut options = Options::classic(args, "ugG");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'z' => unexport = true,
            letter if identity.option(letter, &value)? => {}
            letter => return Err(options.unknown(letter)),
        }
    }
    let program = options.operands();
    if program.is_empty() {
        return Err(Die::usage());
    }
    identity.apply()?;
    let exec = Exec::operands(program);
    Ok(if unexport { exec.with_env(without_variables()).into() } else { exec.into() })
}

/// The environment without UID, GID and GIDLIST.
pub(super) fn without_variables() -> Env {
    let mut env = Env::inherited();
    VARIABLES.iter().for_each(|name| {
        env.unset(name.as_bytes());
    });
    env
}
