//! s6-connlimit: a limit on the connections of one client (spec/local-services-and-instances.md 2.5).

use crate::cli::Args;
use crate::error::{self, Die, Exec, Exit, Program, USAGE};
use crate::sys::env;
use crate::{die, text};

/// Runs a program unless its client has more connections than `${PROTO}CONNMAX`.
pub const PROGRAM: Program = Program { name: "s6-connlimit", usage: "s6-connlimit prog...", run };

fn run(args: Args) -> Result<Exit, Die> {
    let proto = match env::get("PROTO") {
        Some(proto) if proto.is_empty() => return Err(die!(USAGE, "empty $PROTO")),
        Some(proto) => proto.to_bytes(),
        None => return Err(die!(USAGE, "PROTO not set")),
    };
    let number = |suffix: &[u8]| -> Result<Option<u32>, Die> {
        let name = [proto, suffix].concat();
        match env::get(&name) {
            None => Ok(None),
            Some(value) => match text::parse_u32(value.to_bytes()) {
                None => Err(die!(USAGE, "invalid $", name)),
                number => Ok(number),
            },
        }
    };
    let current = number(b"CONNNUM")?.ok_or_else(|| die!(USAGE, proto, "CONNNUM not set"))?;
    // The number of connections that were there before this one: a maximum of n lets n + 1 through.
    if let Some(most) = number(b"CONNMAX")?
        && current > most
    {
        return Err(die!(1, "number of connections from this client is over ", text::decimal(most)));
    }
    let operands = args.operands();
    if operands.is_empty() { Ok(error::OK) } else { Ok(Exec::operands(operands).into()) }
}
