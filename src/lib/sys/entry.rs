//! The two ends of a process: the C `main` and `_exit`.

use libc::{c_char, c_int};

use super::cptr::{self, CPtr};

/// The command line of a C `main`, with its end mark.
///
/// # Safety
/// argc and argv are those that `main` was given.
pub unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> &'static [CPtr<'static>] {
    // SAFETY: argv of main is null-terminated and lives as long as the process; argc may be 0 with a null argv[0].
    if argc > 0 { unsafe { cptr::slice_from_raw(argv) } } else { &[CPtr::NULL] }
}

/// Ends the process at once, without atexit handlers: nothing of ours is buffered in the C library.
pub fn end(code: u8) -> ! {
    // SAFETY: _exit takes any int and does not return.
    unsafe { libc::_exit(code.into()) }
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
            // SAFETY: this is what the C runtime gives to main.
            $crate::start::start($choose, unsafe { $crate::sys::entry::arguments(argc, argv) })
        }
    };
    ($($module:ident)::+) => {
        $crate::program!(choose |args| (&$($module)::+::PROGRAM, args));
    };
}
