//! Control fifos, from the side that writes commands (spec/supervision.md 5), and "is it running?".

use std::ffi::CStr;

use nix::fcntl::OFlag;

use super::files;
use crate::sys::{Errno, Pid, fd, lock};

/// Why commands could not be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Nobody listens: no control directory, or a fifo without reader.
    NotListening,
    /// The control directory is there but its fifo is not, or it is not a directory.
    Broken,
    /// A system call failed; with ENOENT and its like, the directory itself is missing.
    System(Errno),
}

/// Writes `commands`, in one write, to `dir/subdir/control`. An empty string only asks whether somebody listens.
pub fn send(dir: &CStr, subdir: &str, commands: &[u8]) -> Result<(), Failure> {
    let subdir = files::path(dir, subdir);
    let fifo = files::path(&subdir, "control");
    let control = match fd::open_file(&fifo, OFlag::O_WRONLY | OFlag::O_NONBLOCK, 0) {
        Ok(control) => control,
        Err(Errno::ENXIO) => return Err(Failure::NotListening),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR) => return Err(look_closer(dir, &subdir)),
        Err(errno) => return Err(Failure::System(errno)),
    };
    fd::set_nonblocking(&control, false).map_err(Failure::System)?;
    fd::write_all(&control, commands).map_err(Failure::System)
}

/// What is missing when the fifo cannot be opened: the directory, its control directory, or only the fifo.
fn look_closer(dir: &CStr, subdir: &CStr) -> Failure {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    if let Err(errno) = fd::open_file(dir, directory, 0) {
        return Failure::System(errno);
    }
    match fd::open_file(subdir, directory, 0) {
        Err(Errno::ENOENT) => Failure::NotListening,
        Ok(_) | Err(_) => Failure::Broken,
    }
}

/// Whether a supervisor holds `dir/subdir/lock`.
pub fn is_running(dir: &CStr, subdir: &str) -> Result<bool, Errno> {
    Ok(supervisor(dir, subdir)?.is_some())
}

/// The supervisor that holds `dir/subdir/lock`; its number is 0 if it is in a PID namespace out of sight.
pub fn supervisor(dir: &CStr, subdir: &str) -> Result<Option<Pid>, Errno> {
    let path = files::path(&files::path(dir, subdir), "lock");
    lock::holder(&fd::open_file(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?)
}
