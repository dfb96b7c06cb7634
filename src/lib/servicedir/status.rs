//! `supervise/status`: 35 bytes that say what a service is doing (spec/supervision.md 2.1).

use std::ffi::CStr;

use crate::sys::Errno;
use crate::sys::fd;
use crate::sys::wait::WaitStatus;
use crate::tai::{PACKED, Tai64n};

/// Bytes of the file. Readers take more and ignore the rest; less is an error.
pub const SIZE: usize = 35;

/// The state of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Last start or death of run.
    pub stamp: Tai64n,
    /// Last time the service became ready: up and notified, or down with finish done.
    pub readystamp: Tai64n,
    /// The process: run's, finish's while finishing, 0 when there is none.
    pub pid: u64,
    /// How the last run ended.
    pub wait_status: WaitStatus,
    /// The service was stopped by SIGSTOP.
    pub paused: bool,
    /// `pid` is finish's.
    pub finishing: bool,
    /// The service is to be up.
    pub wanted_up: bool,
    /// Up and notified, or down and ready to start.
    pub ready: bool,
}

impl Status {
    const PAUSED: u8 = 1;
    const FINISHING: u8 = 2;
    const WANTED_UP: u8 = 4;
    const READY: u8 = 8;

    /// Whether run is there.
    pub fn is_up(&self) -> bool {
        self.pid != 0 && !self.finishing
    }

    /// Whether the supervisor has not started run yet.
    pub fn is_never_started(&self) -> bool {
        self.pid == 0 && !self.finishing && self.paused
    }

    /// The bytes of the file.
    pub fn pack(&self) -> [u8; SIZE] {
        let flag = |on, bit| if on { bit } else { 0 };
        let mut out = [0; SIZE];
        out[..PACKED].copy_from_slice(&self.stamp.pack());
        out[PACKED..2 * PACKED].copy_from_slice(&self.readystamp.pack());
        out[24..32].copy_from_slice(&self.pid.to_be_bytes());
        out[32..34].copy_from_slice(&self.wait_status.raw().to_be_bytes());
        out[34] = flag(self.paused, Self::PAUSED)
            | flag(self.finishing, Self::FINISHING)
            | flag(self.wanted_up, Self::WANTED_UP)
            | flag(self.ready, Self::READY);
        out
    }

    /// From the bytes of the file; EPIPE if there are fewer than [`SIZE`].
    pub fn unpack(bytes: &[u8]) -> Result<Status, Errno> {
        let stamp = |bytes: &[u8]| bytes.first_chunk().map(Tai64n::unpack).ok_or(Errno::EPIPE);
        let rest = bytes.get(2 * PACKED..SIZE).ok_or(Errno::EPIPE)?;
        let flags = rest[10];
        Ok(Status {
            stamp: stamp(bytes)?,
            readystamp: stamp(&bytes[PACKED..])?,
            pid: rest[..8].iter().fold(0, |sum, &b| sum << 8 | u64::from(b)),
            wait_status: WaitStatus::from_raw(i32::from(u16::from_be_bytes([rest[8], rest[9]]))),
            paused: flags & Self::PAUSED != 0,
            finishing: flags & Self::FINISHING != 0,
            wanted_up: flags & Self::WANTED_UP != 0,
            ready: flags & Self::READY != 0,
        })
    }

    /// Reads the status of the service directory `dir`.
    pub fn read(dir: &CStr) -> Result<Status, Errno> {
        let mut buffer = [0; SIZE];
        let path = super::files::path(dir, "supervise/status");
        Status::unpack(fd::read_file(&path, &mut buffer)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let status = Status {
            stamp: Tai64n { seconds: 0x4000_0000_0000_0001, nanoseconds: 2 },
            readystamp: Tai64n { seconds: 0x4000_0000_0000_0003, nanoseconds: 4 },
            pid: 0x0102,
            wait_status: WaitStatus::exited(111),
            wanted_up: true,
            ready: true,
            ..Status::default()
        };
        let want = [
            64, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 64, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 2, 111, 0,
            12,
        ];
        assert_eq!(status.pack(), want);
    }

    #[test]
    fn a_short_file_is_an_error_and_a_long_one_is_not() {
        assert_eq!(Status::unpack(&[0; SIZE - 1]), Err(Errno::EPIPE));
        assert_eq!(Status::unpack(&[0; SIZE + 9]), Ok(Status::default()));
    }

    proptest! {
        #[test]
        fn any_bytes_survive_but_for_unknown_flags(bytes in prop::collection::vec(any::<u8>(), SIZE)) {
            let mut bytes = bytes;
            bytes[34] &= 0x0f;
            prop_assert_eq!(Status::unpack(&bytes).unwrap().pack().to_vec(), bytes);
        }
    }
}
