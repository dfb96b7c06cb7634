//! Other users, for the tests that run as root.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::{Scratch, bin_dir, finish};

/// The uid and gid of a user who may do nothing.
pub const NOBODY: u32 = 65534;

/// Whether this is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A directory of programs that any user may run: copies, since the originals may lie below a closed directory. The
/// scratch directory itself is opened.
///
/// Made by another process: a copy that this one has open for writing, while another thread forks, cannot be executed.
pub fn for_everyone(scratch: &Scratch, names: &[&str]) -> PathBuf {
    let dir = scratch.path("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let copied = finish(Command::new("cp").args(names.iter().map(|name| bin_dir().join(name))).arg(&dir));
    assert_eq!(copied.code, 0, "{}", copied.err);
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}
