//! s6-instance-maker: an instanced service (spec/local-services-and-instances.md 9.1).

use std::ffi::CStr;

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, USAGE};
use crate::instance::create::{INSTANCE, INSTANCES};
use crate::instance::execline::Script;
use crate::instance::maker::{Line, LoggerOptions, Plan, RcNames};
use crate::instance::tree;
use crate::servicedir::files;
use crate::sys::dir;

/// Writes the service directory of a service that has instances.
pub const PROGRAM: Program = Program {
    name: "s6-instance-maker",
    usage: "s6-instance-maker [ -c max ] [ -u user ] [ -l loguser ] [ -L logdir ] [ -t stamptype ] [ -n nfiles ] \
            [ -s filesize ] [ -S maxsize ] [ -P prefix ] [ -r service[/logger[/pipeline]] ] template dir",
    run,
};

/// Instances at a time, unless told otherwise.
const DEFAULT_MOST: u32 = 500;
/// Instances at a time, at most: s6-svscan looks after twice as many directories, and some to spare.
const MOST: u32 = 90_000;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "cuLrltnsSP");
    let mut logger = LoggerOptions::default();
    let (mut most, mut user, mut log_dir, mut rc) = (DEFAULT_MOST, None, None, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'c' => most = value.u32()?,
            'u' => user = Some(value.into_bytes()),
            'L' => log_dir = Some(value.into_bytes()),
            'r' => rc = Some(RcNames::parse(value.bytes())?),
            _ if logger.take(letter, &value)? => {}
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(template), Some(dir)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    check_log_dir(log_dir.as_deref())?;
    if user.as_ref().is_some_and(|user| user.iter().any(|b| b" \t\n".contains(b))) {
        return Err(die!(USAGE, "invalid user"));
    }
    if rc.as_ref().is_some_and(|names| names.logger.is_some() != log_dir.is_some()) {
        return Err(die!(USAGE, "a logger needs both a name in -r and a directory by -L"));
    }

    // A scanner counts the loggers of its services; s6-rc's loggers are services of another.
    let supervisors = most.clamp(1, MOST) * if log_dir.is_some() && rc.is_none() { 2 } else { 1 };
    let plan = Plan {
        dir,
        rc: rc.as_ref(),
        run: run_script(user.as_deref(), supervisors),
        log_run: log_dir.map(|log_dir| logger.script(&log_dir)),
    };
    plan.carry_out(|service| add_template(service, template, rc.is_none()))?;
    Ok(error::OK)
}

/// The script that becomes the scanner of the instances.
fn run_script(user: Option<&[u8]>, supervisors: u32) -> Vec<u8> {
    let scanner = format!("s6-svscan -d3 -C{supervisors} -- {INSTANCE}");
    match Script::begin("-P") {
        Some(mut script) => {
            script.line("").line("fdmove -c 2 1");
            if let Some(user) = user {
                script.line_with("s6-setuidgid", user);
            }
            script.line(&scanner).text()
        }
        None => {
            let mut line = Line::exec();
            line.as_user(user).raw(scanner.as_bytes());
            [b"#!/bin/sh\nexec 2>&1\n", &line.0[..], b"\n"].concat()
        }
    }
}

/// Refuses a relative directory: scripts run in directories of their own.
pub(super) fn check_log_dir(log_dir: Option<&[u8]>) -> Result<(), Die> {
    match log_dir {
        None | Some([b'/', ..]) => Ok(()),
        Some(log_dir) => Err(die!(USAGE, "the log directory must be an absolute path: ", log_dir)),
    }
}

/// What makes a service an instanced one. s6-rc makes the directories of the instances itself.
fn add_template(service: &CStr, template: &CStr, with_directories: bool) -> Result<(), Die> {
    if with_directories {
        for name in [INSTANCE, INSTANCES] {
            let path = files::path(service, name);
            dir::make(&path, 0o755).or_die("make", &path)?;
        }
    }
    tree::copy(template, &files::path(service, "template"))
}
