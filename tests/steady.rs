//! The steady state allocates nothing: s6-supervise and s6-svscan run in this binary, under an allocator that counts,
//! and a longer life must take no more allocations than a short one.
//!
//! Without the usual harness: the program under test is the whole process, as it is in a supervision tree.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use s6::cli::Args;
use s6::error::Program;
use s6::sys::cptr::CPtr;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: hands everything on to the system's allocator.
#[allow(unsafe_code, reason = "an allocator cannot be had otherwise")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The variable by which this binary asks itself to be the program under test.
const ROLE: &str = "S6_TEST_ROLE";

fn main() {
    match std::env::var(ROLE) {
        Ok(role) => become_program(&role),
        Err(_) => {
            let supervise = |restarts| allocations("s6-supervise", restarts, "exit 0");
            assert_same("s6-supervise, 3 and 15 restarts", supervise(3), supervise(15));
            let svscan = |restarts| allocations("s6-svscan", restarts, "exit 0");
            assert_same("s6-svscan, 1 and 3 restarts of a supervisor", svscan(1), svscan(3));
            println!("2 passed, 0 failed");
        }
    }
}

fn assert_same(what: &str, short: u64, long: u64) {
    assert_eq!(short, long, "{what}: allocations");
    println!("{what}: {short} allocations each");
}

/// Runs a program to its end and prints how many allocations that took.
fn become_program(role: &str) {
    let program: &Program = s6::programs::find(role.as_bytes()).expect("a program");
    let argv: Vec<CPtr<'static>> = [role, "."]
        .iter()
        .map(|word| CPtr::new(Box::leak(CString::new(*word).unwrap().into_boxed_c_str())))
        .chain([CPtr::NULL])
        .collect();
    let args = Args::new(argv.leak());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (program.run)(args).expect("the program ends well");
    let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
    println!("{count}");
}

/// The allocations of a program whose child dies `restarts` times, and which then is told to leave.
fn allocations(role: &str, restarts: usize, run: &str) -> u64 {
    let scratch = tempfile::tempdir().unwrap();
    let script = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let lives = scratch.path().join("lives");
    // Each life is noted; the last one tells the supervisor to leave, the earlier ones to start the next without pause.
    let note = format!("echo >> {0}; n=$(wc -l < {0})", lives.display());
    let (dir, search) = match role {
        "s6-supervise" => {
            let next = "printf u > supervise/control".to_owned();
            script(
                &scratch.path().join("run"),
                &format!("{note}; if [ $n -gt {restarts} ]; then kill -TERM $PPID; fi; {run}"),
            );
            script(&scratch.path().join("finish"), &next);
            (scratch.path().to_owned(), String::new())
        }
        _ => {
            let scan = scratch.path().join("scan");
            std::fs::create_dir_all(scan.join("service")).unwrap();
            script(
                &scratch.path().join("bin/s6-supervise"),
                &format!("{note}; if [ $n -gt {restarts} ]; then printf t > .s6-svscan/control; fi; {run}"),
            );
            (scan, scratch.path().join("bin").display().to_string() + ":")
        }
    };
    let path = search + &std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let output = Command::new(std::env::current_exe().unwrap())
        .env(ROLE, role)
        .env("PATH", path)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("{role}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}
