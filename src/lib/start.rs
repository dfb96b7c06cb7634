//! Where every program begins: the `main` of [`program!`](crate::program) comes here with its command line, and the
//! process ends here, unless it executes something else.

use std::sync::OnceLock;

use crate::cli::Args;
use crate::error::{self, Die, Exit, Program};
use crate::sys::cptr::CPtr;
use crate::sys::entry::end;
use crate::sys::signal;

/// Runs the program that `choose` makes of the command line, and ends the process with its exit code. To be called once.
pub fn start(choose: fn(Args) -> (&'static Program, Args), argv: &'static [CPtr<'static>]) -> ! {
    let (program, args) = choose(Args::new(argv));
    error::set_program(program);
    catch_panics();
    let die: Die = match (program.run)(args) {
        Ok(Exit::Code(code)) => end(code),
        Ok(Exit::Signal(number)) => signal::end_by(number),
        Ok(Exit::Exec(exec)) => exec.execute(),
        Err(die) => die,
    };
    die.print();
    end(die.code())
}

/// What a program still does when a bug shows, if it needs to.
static LAST_WORDS: OnceLock<fn()> = OnceLock::new();

/// When a bug shows: a message, then `last_words`, then exit code 101. There is no unwinding.
pub fn on_panic(last_words: fn()) {
    let _ = LAST_WORDS.set(last_words);
}

/// Captures nothing, so that it takes no heap in a process that otherwise has none.
fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        error::report("fatal: internal error: ", &[&info.to_string()], None);
        if let Some(last_words) = LAST_WORDS.get() {
            last_words();
        }
        end(error::BUG);
    }));
}
