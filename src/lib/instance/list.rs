//! s6-instance-list (spec/local-services-and-instances.md 10).

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{self, Die, Exit, OrDie, Program, USAGE};
use crate::instance::create::INSTANCE;
use crate::instance::link;
use crate::servicedir::files;
use crate::sys::{dir, fd};

/// Prints the names of a service's instances.
pub const PROGRAM: Program = Program { name: "s6-instance-list", usage: "s6-instance-list service", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "");
    if let Some((letter, _)) = options.next()? {
        return Err(options.unknown(letter));
    }
    let service = options.operands().get(0).ok_or_else(Die::usage)?;
    if service.is_empty() {
        return Err(die!(USAGE, "invalid service"));
    }
    let scandir = files::path(service, INSTANCE);
    link::check_scanner(&scandir)?;
    let mut names = Vec::new();
    dir::for_each(&scandir, |name| {
        if !name.to_bytes().starts_with(b".") {
            names.extend_from_slice(name.to_bytes());
            names.push(b'\n');
        }
        Ok(())
    })
    .or_die("read", &scandir)?;
    fd::write_all(fd::STDOUT, &names).or_die("write to", "standard output")?;
    Ok(error::OK)
}
