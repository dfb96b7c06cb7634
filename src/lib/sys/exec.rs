//! Executing a program by PATH search, in this process or in a child that must not allocate.

use std::ffi::{CStr, CString};

use nix::unistd::{AccessFlags, access};

use super::Errno;
use super::cptr::{self, CPtr};
use super::env;

/// PATH when the variable is not set.
const DEFAULT_PATH: &[u8] = b"/usr/bin:/bin";

/// The PATH of this process, by which programs are looked up.
pub fn search_path() -> &'static [u8] {
    env::get("PATH").map_or(DEFAULT_PATH, CStr::to_bytes)
}

/// Where in PATH a program is; `None` if it is not, or must not be executed.
pub fn find(name: &CStr) -> Option<CString> {
    let executable = |path: &CString| access(path.as_c_str(), AccessFlags::X_OK).is_ok();
    let candidate = |dir: &[u8]| CString::new([dir, b"/", name.to_bytes()].concat()).ok();
    search_path().split(|&b| b == b':').filter(|dir| !dir.is_empty()).filter_map(candidate).find(executable)
}

/// Replaces the process image by `argv[0]`, looked up in the PATH this process has now; returns only on failure.
pub fn exec(argv: &[CPtr<'_>], envp: &[CPtr<'_>]) -> Errno {
    match argv.first().and_then(|p| p.get()) {
        Some(file) => exec_file(file, argv, envp),
        None => Errno::EINVAL,
    }
}

/// As [`exec`], with a file that is not `argv[0]`.
pub fn exec_file(file: &CStr, argv: &[CPtr<'_>], envp: &[CPtr<'_>]) -> Errno {
    exec_in(search_path(), file, argv, envp)
}

/// The search of spec/logging-and-chainloaders.md 1.3: a name with a slash as it is, else every non-empty
/// component of `path`. ENOENT goes on; EACCES, EPERM, EISDIR and ENOTDIR go on but win over ENOENT at the end;
/// anything else ends the search. Does not allocate: it runs in a child that shares its parent's memory.
pub(super) fn exec_in(path: &[u8], file: &CStr, argv: &[CPtr<'_>], envp: &[CPtr<'_>]) -> Errno {
    let name = file.to_bytes();
    if name.is_empty() {
        return Errno::EACCES;
    }
    if name.contains(&b'/') {
        return execve(file, argv, envp);
    }
    search(path, name, argv, envp)
}

/// The search proper. Not inlined: its buffer would cost every supervisor, whose run is no name, a page of stack.
#[inline(never)]
fn search(path: &[u8], name: &[u8], argv: &[CPtr<'_>], envp: &[CPtr<'_>]) -> Errno {
    let mut outcome = Errno::ENOENT;
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    for dir in path.split(|&b| b == b':').filter(|d| !d.is_empty()) {
        let Some(candidate) = join(&mut buffer, dir, name) else {
            outcome = Errno::ENAMETOOLONG;
            continue;
        };
        match execve(candidate, argv, envp) {
            Errno::ENOENT => {}
            errno @ (Errno::EACCES | Errno::EPERM | Errno::EISDIR | Errno::ENOTDIR) => outcome = errno,
            errno => return errno,
        }
    }
    outcome
}

/// `dir/name` in `buffer`, or `None` if it does not fit.
fn join<'b>(buffer: &'b mut [u8], dir: &[u8], name: &[u8]) -> Option<&'b CStr> {
    let length = dir.len() + 1 + name.len();
    let target = buffer.get_mut(..=length)?;
    target[..dir.len()].copy_from_slice(dir);
    target[dir.len()] = b'/';
    target[dir.len() + 1..length].copy_from_slice(name);
    target[length] = 0;
    CStr::from_bytes_with_nul(target).ok()
}

fn execve(file: &CStr, argv: &[CPtr<'_>], envp: &[CPtr<'_>]) -> Errno {
    // SAFETY: file is a C string, argv and envp are null-terminated arrays of C strings (as_raw checks the end).
    unsafe { libc::execve(file.as_ptr(), cptr::as_raw(argv), cptr::as_raw(envp)) };
    Errno::last()
}
