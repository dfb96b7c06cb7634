//! s6-ftrig-listen: starts a program and waits for letters in several fifodirs (spec/events-and-fdholding.md 1).

use super::ftrig::{self, End, Expectation};
use super::ftrig_listen1::TIMED_OUT;
use crate::cli::{self, Args, Options};
use crate::die;
use crate::error::{Die, Exit, OK, Program, USAGE};

/// Subscribes to fifodirs, then starts a program and waits for matches in all of them, or in one.
pub const PROGRAM: Program = Program {
    name: "s6-ftrig-listen",
    usage: "s6-ftrig-listen [ -a | -o ] [ -t timeout ] fifodir1 regexp1 [ fifodir2 regexp2 ... ] \"\" prog...",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "t", &[("and", 'a'), ("or", 'o'), ("timeout", 't')]);
    let (mut any, mut deadline) = (false, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'a' => any = false,
            'o' => any = true,
            't' => deadline = ftrig::deadline(&value)?,
            other => return Err(options.unknown(other)),
        }
    }
    let unterminated = || die!(USAGE, "the list of fifodirs and expressions does not end: an empty word is missing");
    let (pairs, program) = cli::block(options.operands())?.ok_or_else(unterminated)?;
    let (pairs, rest) = pairs.as_chunks();
    if pairs.is_empty() || !rest.is_empty() || program.is_empty() {
        return Err(Die::usage());
    }
    ftrig::prepare()?;
    let expected = pairs.iter().map(|[fifodir, pattern]| Expectation::new(fifodir, pattern));
    let expected = expected.collect::<Result<Vec<_>, Die>>()?;
    ftrig::start(program)?;
    match ftrig::wait(expected, any, deadline)? {
        End::Matched(_) => Ok(OK),
        End::TimedOut => Err(die!(TIMED_OUT, "timed out while waiting for matches")),
        End::Signal(number) => Ok(Exit::Signal(number)),
    }
}
