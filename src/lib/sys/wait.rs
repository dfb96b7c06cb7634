//! Children that ended: the raw wait status, as status files and finish scripts need it.

use super::{Errno, Pid};

/// What waitpid said of a child that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WaitStatus(i32);

impl WaitStatus {
    /// From the host's raw value (exit code in the second byte, signal in the low seven bits, 0x80 core dump).
    pub const fn from_raw(raw: i32) -> Self {
        WaitStatus(raw)
    }

    /// An ordinary exit with `code`.
    pub const fn exited(code: u8) -> Self {
        WaitStatus((code as i32) << 8)
    }

    /// The low 16 bits, as files and wire formats hold them.
    pub const fn raw(self) -> u16 {
        self.0 as u16
    }

    /// The exit code, or `None` for a death by signal.
    pub const fn code(self) -> Option<u8> {
        if self.0 & 0x7f == 0 { Some((self.0 >> 8) as u8) } else { None }
    }

    /// The signal that killed it, or `None` for an exit.
    pub const fn signal(self) -> Option<u8> {
        if self.0 & 0x7f == 0 { None } else { Some((self.0 & 0x7f) as u8) }
    }

    /// The one number that stands for this status when a program ends as its child did: the code if below 128,
    /// 128 for larger codes, 128 + signal (spec/logging-and-chainloaders.md 1.2).
    pub const fn estatus(self) -> u8 {
        match (self.code(), self.signal()) {
            (_, Some(signal)) => 128 + signal,
            (Some(code), None) if code < 128 => code,
            _ => 128,
        }
    }
}

/// Which children [`reap`] looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Any child, also one adopted as a subreaper or as process 1.
    Any,
    /// One child.
    One(Pid),
}

/// Takes one dead child off the kernel's hands; `None` when there is none now (or none at all).
pub fn reap(which: Which) -> Option<(Pid, WaitStatus)> {
    wait(which, libc::WNOHANG).ok().flatten()
}

/// Whether there is any child, dead ones that nobody has reaped included. For a subreaper: whether anything that
/// descends from it is left.
pub fn has_children() -> bool {
    is_there(libc::P_ALL, 0)
}

/// Whether `pid` is a child, perhaps a dead one that nobody has reaped.
pub fn is_child(pid: Pid) -> bool {
    pid.as_raw() > 0 && is_there(libc::P_PID, pid.as_raw() as libc::id_t)
}

fn is_there(kind: libc::idtype_t, id: libc::id_t) -> bool {
    // SAFETY: siginfo_t is a plain C struct, zero is a valid value, and waitid fills it through a valid pointer.
    let outcome = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(kind, id, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT))
    };
    outcome != Err(Errno::ECHILD)
}

/// A dead child that is not reaped yet, and stays so.
pub fn dead() -> Option<Pid> {
    // SAFETY: siginfo_t is a plain C struct, zero is a valid value, and waitid fills it through a valid pointer. Its pid
    // is valid after a successful waitid, and zero if no child was found.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)).ok()?;
        info.si_pid()
    };
    (pid > 0).then(|| Pid::from_raw(pid))
}

/// Waits until `pid`, a child, ends. Retries when a signal interrupts.
pub fn wait_for(pid: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match wait(Which::One(pid), 0) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn wait(which: Which, options: libc::c_int) -> Result<Option<(Pid, WaitStatus)>, Errno> {
    let pid = match which {
        Which::Any => -1,
        Which::One(pid) => pid.as_raw(),
    };
    let mut raw = 0;
    // SAFETY: waitpid writes one int through a valid pointer.
    let got = Errno::result(unsafe { libc::waitpid(pid, &mut raw, options) })?;
    Ok((got > 0).then(|| (Pid::from_raw(got), WaitStatus(raw))))
}
