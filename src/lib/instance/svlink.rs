//! s6-svlink: a service added to a live scan directory (spec/local-services-and-instances.md 7.1).

use std::ffi::{CStr, CString};

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, TIMEOUT, USAGE};
use crate::instance::link::{self, Link, Service};
use crate::instance::tree::real_path;
use crate::instance::turn::Turn;

/// Links a service directory into a scan directory and waits for its supervisor.
pub const PROGRAM: Program = Program {
    name: "s6-svlink",
    usage: "s6-svlink [ -d | -D ] [ -f ] [ -P ] [ -t timeout ] scandir servicedir [ name ]",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, link::Options::WITH_VALUE);
    let mut wanted = link::Options::default();
    while let Some((letter, value)) = options.next()? {
        if !wanted.take(letter, &value)? {
            return Err(options.unknown(letter));
        }
    }
    let operands = options.operands();
    let (Some(scandir), Some(service_dir)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let name = operands.get(2).map_or_else(|| base_name(service_dir), CStr::to_owned);
    if scandir.is_empty() {
        return Err(die!(USAGE, "invalid scan directory"));
    }
    if service_dir.is_empty() {
        return Err(die!(USAGE, "invalid service directory"));
    }
    check_name(&name)?;
    link::check_scanner(scandir)?;
    let service = Service::examine(service_dir)?;
    let target = match service_dir.to_bytes() {
        [b'/', ..] => service_dir.to_owned(),
        _ => real_path(service_dir).or_die("find the path of", service_dir)?,
    };
    link::trap_signals()?;
    let deadline = wanted.deadline();
    let _turn = Turn::wait(scandir, &name, deadline)?.ok_or_else(|| die!(TIMEOUT, "timed out"))?;
    Link { scandir, name: &name, target: &target, service: &service, options: &wanted, deadline }.make()?;
    Ok(error::OK)
}

/// Refuses a name that a scanner would not see or that leads elsewhere.
pub(super) fn check_name(name: &CStr) -> Result<(), Die> {
    match name.to_bytes() {
        [] | [b'.' | b'/', ..] => Err(die!(USAGE, "invalid service name: ", name)),
        _ => Ok(()),
    }
}

/// The last component of a path. Slashes at its end do not matter.
fn base_name(path: &CStr) -> CString {
    let name = path.to_bytes().rsplit(|&b| b == b'/').find(|name| !name.is_empty());
    CString::new(name.unwrap_or(b"")).unwrap_or_default()
}
