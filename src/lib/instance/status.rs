//! s6-instance-status: s6-svstat for an instance (spec/local-services-and-instances.md 10).

use crate::cli::{Args, CommandLine, Options};
use crate::die;
use crate::error::{Die, Exit, Program, USAGE};
use crate::events::fifodir::join;
use crate::instance::create::{INSTANCE, check_operands};
use crate::servicedir::files;

/// Prints the status of an instance.
pub const PROGRAM: Program = Program {
    name: "s6-instance-status",
    usage: "s6-instance-status [ -uwNrpest | -o fields ] [ -n ] service name",
    run,
};

/// The most fields at a time.
const MOST_FIELDS: usize = 16;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "o");
    let mut line = CommandLine::new(c"s6-svstat");
    let mut fields = 0;
    while let Some((letter, value)) = options.next()? {
        match letter {
            'o' => {
                let list = value.bytes().strip_suffix(b",").unwrap_or(value.bytes());
                if list.split(|&b| b == b',').any(<[u8]>::is_empty) {
                    return Err(die!(USAGE, "empty field name"));
                }
                fields += list.split(|&b| b == b',').count();
                line.option("-o", Some(value.bytes()));
            }
            'n' => {
                line.word("-n");
            }
            field if "uwNrpest".contains(field) => {
                fields += 1;
                line.word([b'-', field as u8]);
            }
            _ => return Err(options.unknown(letter)),
        }
    }
    if fields > MOST_FIELDS {
        return Err(die!(USAGE, "too many fields"));
    }
    let operands = options.operands();
    let (Some(service), Some(name)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    check_operands(service, name)?;
    line.word("--").word(join(&files::path(service, INSTANCE), name).as_bytes());
    Ok(line.exec().into())
}
