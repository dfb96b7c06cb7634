//! s6-instance-create (spec/local-services-and-instances.md 10), and the names that all the instance programs use.

use std::ffi::{CStr, CString};

use nix::sys::stat::{Mode, lstat};
use nix::unistd::mkdir;

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, TIMEOUT, USAGE};
use crate::events::fifodir::join;
use crate::instance::link::{self, Link, Service};
use crate::instance::tree;
use crate::instance::turn::Turn;
use crate::servicedir::files;
use crate::sys::Errno;

/// Makes an instance from a service's template and starts it.
pub const PROGRAM: Program = Program {
    name: "s6-instance-create",
    usage: "s6-instance-create [ -d | -D ] [ -f ] [ -P ] [ -t timeout ] service name",
    run,
};

/// The scan directory of an instanced service.
pub(super) const INSTANCE: &str = "instance";
/// The copies of its template.
pub(super) const INSTANCES: &str = "instances";

/// Refuses an empty service and a name that is no name of an instance.
pub(super) fn check_operands(service: &CStr, name: &CStr) -> Result<(), Die> {
    if service.is_empty() {
        return Err(die!(USAGE, "invalid service"));
    }
    let name = name.to_bytes();
    if matches!(name, [] | [b'.', ..]) || name.iter().any(|b| b" \t\x0c\r\n/".contains(b)) {
        return Err(die!(USAGE, "invalid instance name: ", name.escape_ascii().to_string()));
    }
    Ok(())
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, link::Options::WITH_VALUE);
    let mut wanted = link::Options::default();
    while let Some((letter, value)) = options.next()? {
        if !wanted.take(letter, &value)? {
            return Err(options.unknown(letter));
        }
    }
    let operands = options.operands();
    let (Some(service), Some(name)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    check_operands(service, name)?;
    let (scandir, instances) = (files::path(service, INSTANCE), files::path(service, INSTANCES));
    for dir in [&instances, &scandir] {
        match mkdir(dir.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            failure => failure.or_die("make", dir)?,
        }
    }
    link::check_scanner(&scandir)?;
    link::trap_signals()?;
    let deadline = wanted.deadline();
    let _turn = Turn::wait(&scandir, name, deadline)?.ok_or_else(|| die!(TIMEOUT, "timed out"))?;

    let copy = join(&instances, name);
    if lstat(copy.as_c_str()).is_ok() {
        return Err(die!(USAGE, "instance ", name, " of ", service, " already exists"));
    }
    let target = CString::new([b"../instances/", name.to_bytes()].concat()).unwrap_or_default();
    let created = tree::copy(&files::path(service, "template"), &copy).and_then(|()| Service::examine(&copy)).and_then(
        |service| {
            Link { scandir: &scandir, name, target: &target, service: &service, options: &wanted, deadline }.make()
        },
    );
    if created.is_err() {
        let _ = tree::remove(&copy);
    }
    created.map(|()| error::OK)
}
