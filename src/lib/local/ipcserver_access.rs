//! s6-ipcserver-access: who may connect (spec/local-services-and-instances.md 3).

use std::ffi::{CStr, CString};

use crate::cli::{Args, CommandLine, Options};
use crate::error::{self, Die, Exec, Exit, OrDie, Program, USAGE};
use crate::local::access::{Allow, Rules, Verdict};
use crate::local::cdb::Cdb;
use crate::sys::env::{self, Env};
use crate::sys::peer::Peer;
use crate::sys::{Errno, fd, socket};
use crate::text::{self, decimal};
use crate::{die, info, warn};

/// Runs a program if a set of rules allows the client.
pub const PROGRAM: Program = Program {
    name: "s6-ipcserver-access",
    usage: "s6-ipcserver-access [ -v verbosity ] [ -e | -E ] [ -l localname ] [ -i rulesdir | -x rulesfile ] prog...",
    run,
};

/// Where the rules are.
enum Source {
    Directory(CString),
    File(CString),
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "vlix");
    let (mut verbosity, mut keep_environment, mut local_name, mut source) = (1, true, None, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'v' => verbosity = value.u32()?,
            'e' => keep_environment = true,
            'E' => keep_environment = false,
            'l' => local_name = Some(value.into_bytes()),
            'i' => source = Some(Source::Directory(value.into_cstring())),
            'x' => source = Some(Source::File(value.into_cstring())),
            _ => return Err(options.unknown(letter)),
        }
    }
    let program = options.operands();
    if program.get(0).is_none_or(CStr::is_empty) {
        return Err(Die::usage());
    }
    let proto = env::get("PROTO").ok_or_else(|| die!(USAGE, "PROTO not set"))?.to_bytes();
    let peer = Peer { uid: id(proto, b"REMOTEEUID")?, gid: id(proto, b"REMOTEEGID")?, pid: None };
    let Some(allow) = admit(peer, source, verbosity)? else { return Ok(Exit::Code(1)) };

    let mut env = Env::inherited();
    allow.apply_to(&mut env);
    let variable = |suffix: &[u8]| [proto, suffix].concat();
    if keep_environment {
        let local_name = match local_name {
            Some(name) => name,
            None => socket::local_path(fd::STDIN).or_die("get the name of", "the socket on standard input")?,
        };
        env.set(&variable(b"LOCALPATH"), &local_name);
    } else {
        env.unset(b"PROTO");
        for suffix in [&b"REMOTEEUID"[..], b"REMOTEEGID", b"REMOTEPATH", b"LOCALPATH", b"CONNNUM"] {
            env.unset(&variable(suffix));
        }
    }
    let exec = if allow.exec.is_empty() {
        Exec::operands(program)
    } else {
        let mut line = CommandLine::new(c"execlineb");
        line.word("-Pc").word(&allow.exec);
        line.exec()
    };
    Ok(exec.with_env(env).into())
}

/// The client's uid or gid, as the super-server says.
fn id(proto: &[u8], suffix: &[u8]) -> Result<u32, Die> {
    let name = [proto, suffix].concat();
    let value = env::get(&name).ok_or_else(|| die!(USAGE, name, " not set"))?;
    text::parse_u32(value.to_bytes()).ok_or_else(|| die!(USAGE, "invalid $", name))
}

/// What comes with the permission; `None` if there is none.
fn admit(peer: Peer, source: Option<Source>, verbosity: u32) -> Result<Option<Allow>, Die> {
    let verdict = match source {
        None => {
            if verbosity >= 2 {
                warn!("no set of rules was given: everyone is allowed");
            }
            Verdict::Allow(Allow::default())
        }
        Some(Source::Directory(path)) => Rules::Directory(path.clone()).judge(peer).or_die("check", &path)?,
        Some(Source::File(path)) => {
            let rules = Rules::File(Cdb::open(&path).or_die("open", &path)?);
            rules.judge(peer).or_die("check", &path)?
        }
    };
    let own_pid = decimal(std::process::id());
    let (uid, gid) = (decimal(peer.uid), decimal(peer.gid));
    let denied = |errno| {
        if verbosity >= 2 {
            let pieces: [&dyn error::Text; 6] = [&"deny pid ", &own_pid, &" uid ", &uid, &" gid ", &gid];
            error::report("info: ", &pieces, Some(errno));
        }
    };
    match verdict {
        Verdict::Allow(allow) => {
            if verbosity >= 1 {
                info!("allow pid ", own_pid, " uid ", uid, " gid ", gid);
            }
            return Ok(Some(allow));
        }
        Verdict::Deny => denied(Errno::EACCES),
        Verdict::Unknown => denied(Errno::ENOENT),
    }
    Ok(None)
}
