//! s6-instance-control: s6-svc for an instance (spec/local-services-and-instances.md 10).

use crate::cli::{Args, CommandLine, Options};
use crate::die;
use crate::error::{Die, Exit, Program, USAGE};
use crate::events::fifodir::join;
use crate::instance::create::{INSTANCE, check_operands};
use crate::servicedir::files;

/// Sends commands to the supervisor of an instance.
pub const PROGRAM: Program = Program {
    name: "s6-instance-control",
    usage: "s6-instance-control [ -wu | -wU | -wd | -wD | -wr | -wR ] [ -T timeout ] [ -abqhkti12pcyroduDUxO ] \
            service name",
    run,
};

/// The commands, as s6-svc has them.
const COMMANDS: &str = "abqhkti12pcyroduDUxO";
/// The most of them at a time.
const MOST_COMMANDS: usize = 62;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "wT");
    let (mut wait, mut limit, mut commands) = (None, None, String::new());
    while let Some((letter, value)) = options.next()? {
        match letter {
            'w' => match value.bytes() {
                [state, ..] if b"dDuUrR".contains(state) => wait = Some([*state]),
                _ => return Err(Die::usage()),
            },
            'T' => limit = Some(value.u32()?),
            command if COMMANDS.contains(command) => commands.push(command),
            _ => return Err(options.unknown(letter)),
        }
    }
    if commands.len() > MOST_COMMANDS {
        return Err(die!(USAGE, "too many commands"));
    }
    let operands = options.operands();
    let (Some(service), Some(name)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    check_operands(service, name)?;
    let mut line = CommandLine::new(c"s6-svc");
    line.option("-w", wait).number("-T", limit);
    if !commands.is_empty() {
        line.word([b"-", commands.as_bytes()].concat());
    }
    line.word("--").word(join(&files::path(service, INSTANCE), name).as_bytes());
    Ok(line.exec().into())
}
