//! Where every program begins: the C `main` of [`program!`](crate::program) lands here.

use std::sync::OnceLock;

use libc::{c_char, c_int};

use super::cptr::{self, CPtr};
use crate::cli::Args;
use crate::error::{self, Die, Exit, Program};

static PROGRAM: OnceLock<&'static Program> = OnceLock::new();

/// The program that runs, once [`start`] was called; before that (in unit tests) a nameless one.
pub fn program() -> &'static Program {
    static NONE: Program = Program { name: "s6", usage: "", run: |_| Ok(Exit::Code(0)) };
    PROGRAM.get().copied().unwrap_or(&NONE)
}

/// Runs the program that `choose` makes of the command line of a C `main`, and ends the process with its exit code.
///
/// # Safety
/// To be called once, from `main`, with the argc and argv that `main` was given.
pub unsafe fn start(choose: fn(Args) -> (&'static Program, Args), argc: c_int, argv: *const *const c_char) -> ! {
    // SAFETY: argv of main is null-terminated and lives as long as the process; argc may be 0 with a null argv[0].
    let argv: &'static [CPtr<'static>] = if argc > 0 { unsafe { cptr::slice_from_raw(argv) } } else { &[CPtr::NULL] };
    let (program, args) = choose(Args::new(argv));
    let _ = PROGRAM.set(program);
    catch_panics();
    let code = match (program.run)(args) {
        Ok(Exit::Code(code)) => code,
        Ok(Exit::Signal(number)) => super::signal::end_by(number),
        Ok(Exit::Exec(exec)) => {
            let die = exec.execute();
            die.print();
            die.code()
        }
        Err(die) => {
            die.print();
            die.code()
        }
    };
    end(code)
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

/// Ends the process at once, without atexit handlers: nothing of ours is buffered in the C library.
pub fn end(code: u8) -> ! {
    // SAFETY: _exit takes any int and does not return.
    unsafe { libc::_exit(code.into()) }
}

impl Die {
    /// Prints the message of this error on stderr, with the program's name in front.
    pub fn print(&self) {
        self.print_as(program());
    }
}

/// The C `main` of a program: `s6::program!(s6::supervision::svok);` in a file that has `#![no_main]`. That of the
/// multi-call binary is `s6::program!(choose s6::multicall::choose);`.
///
/// std's own main would ignore SIGPIPE, which a chain-loader would hand on, and its argument list is empty under
/// musl without it; so the arguments come from here and nothing else asks for them.
#[macro_export]
macro_rules! program {
    (choose $choose:expr) => {
        #[global_allocator]
        static ALLOCATOR: $crate::sys::arena::Arena = $crate::sys::arena::Arena;

        /// The C entry point.
        ///
        /// # Safety
        /// Called once, by the C runtime.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(argc: ::core::ffi::c_int, argv: *const *const ::core::ffi::c_char) -> ::core::ffi::c_int {
            // SAFETY: called once, by the C runtime, with what it gives to main.
            unsafe { $crate::sys::entry::start($choose, argc, argv) }
        }
    };
    ($($module:ident)::+) => {
        $crate::program!(choose |args| (&$($module)::+::PROGRAM, args));
    };
}
