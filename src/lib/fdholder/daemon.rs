//! s6-fdholder-daemon: a server that listens on a socket in the file system, put together from parts
//! (spec/events-and-fdholding.md 4)

use crate::cli::{Args, CommandLine, Options};
use crate::error::{Die, Exit, Program};
use crate::local::ipcserver::Ids;

/// Becomes s6-fdholderd, in the end.
pub const PROGRAM: Program = Program {
    name: "s6-fdholder-daemon",
    usage: "s6-fdholder-daemon [ -v verbosity ] [ -d | -D ] [ -1 ] [ -c maxconn ] [ -n maxfds ] [ -b backlog ] \
            [ -G gid,... ] [ -g gid ] [ -u uid ] [ -U ] [ -t timeout ] [ -T lameducktimeout ] \
            [ -i rulesdir | -x rulesfile ] socket",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let (mut notify, mut no_reuse, mut ids) = (false, false, Ids::default());
    let (mut verbosity, mut clients, mut descriptors, mut backlog) = (None, None, None, None);
    let (mut patience, mut farewell, mut rules) = (None, None, None);
    let mut options = Options::classic(args, "vcnbGgutTix");
    while let Some((letter, value)) = options.next()? {
        match letter {
            '1' => notify = true,
            'd' => no_reuse = false,
            'D' => no_reuse = true,
            'v' => verbosity = Some(value.u32()?).filter(|&verbosity| verbosity != 1),
            'c' => clients = Some(value.u32()?.max(1)),
            'n' => descriptors = Some(value.u32()?.max(1)),
            'b' => backlog = Some(value.u32()?),
            't' => patience = Some(value.u32()?).filter(|&limit| limit != 0),
            'T' => farewell = Some(value.u32()?).filter(|&limit| limit != 0),
            'u' | 'g' | 'G' | 'U' => ids.option(letter, value)?,
            'i' => rules = Some(("-i", value.into_bytes())),
            'x' => rules = Some(("-x", value.into_bytes())),
            _ => return Err(options.unknown(letter)),
        }
    }
    let path = options.operands().get(0).ok_or_else(Die::usage)?;
    let (kind, rules) = rules.ok_or_else(Die::usage)?;
    let mut line = CommandLine::new(c"s6-ipcserver-socketbinder");
    line.flag(no_reuse, "-D").number("-b", backlog).word("--").word(path.to_bytes());
    ids.put_on(&mut line);
    line.word("s6-fdholderd")
        .number("-v", verbosity)
        .flag(notify, "-1")
        .number("-c", clients)
        .number("-n", descriptors)
        .number("-t", patience)
        .number("-T", farewell)
        .option(kind, Some(rules));
    Ok(line.exec().into())
}
