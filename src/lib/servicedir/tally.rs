//! `supervise/death_tally`: the last deaths of a service, 14 bytes each, oldest first (spec/supervision.md 2.2).

use crate::sys::wait::WaitStatus;
use crate::tai::{PACKED, Tai64n};

/// Bytes of one entry.
pub const ENTRY: usize = PACKED + 2;
/// Entries that are ever kept.
pub const MOST: usize = 4096;

/// One death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// When; the same stamp as in the status of that moment.
    pub stamp: Tai64n,
    /// The exit code, or 128 + signal.
    pub code: u8,
    /// The signal, 0 after an exit.
    pub signal: u8,
}

impl Death {
    /// A death with this wait status.
    pub fn new(stamp: Tai64n, status: WaitStatus) -> Self {
        match status.signal() {
            Some(signal) => Death { stamp, code: 128u8.wrapping_add(signal), signal },
            None => Death { stamp, code: status.code().unwrap_or(0), signal: 0 },
        }
    }

    /// The bytes of the entry.
    pub fn pack(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        out[..PACKED].copy_from_slice(&self.stamp.pack());
        out[PACKED] = self.code;
        out[PACKED + 1] = self.signal;
        out
    }

    /// From the bytes of an entry.
    pub fn unpack(bytes: &[u8; ENTRY]) -> Self {
        let mut stamp = [0; PACKED];
        stamp.copy_from_slice(&bytes[..PACKED]);
        Death { stamp: Tai64n::unpack(&stamp), code: bytes[PACKED], signal: bytes[PACKED + 1] }
    }
}

/// The entries of a file, oldest first; `None` if its size is no multiple of an entry's.
pub fn unpack(bytes: &[u8]) -> Option<impl DoubleEndedIterator<Item = Death> + ExactSizeIterator> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    rest.is_empty().then(|| entries.iter().map(Death::unpack))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_stamp_code_signal() {
        let stamp = Tai64n { seconds: 1, nanoseconds: 2 };
        assert_eq!(Death::new(stamp, WaitStatus::exited(7)).pack(), [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 7, 0]);
        assert_eq!(Death::new(stamp, WaitStatus::from_raw(9)).pack()[PACKED..], [137, 9]);
    }

    #[test]
    fn a_file_of_odd_size_is_none() {
        assert!(unpack(&[0; ENTRY + 1]).is_none());
        assert_eq!(unpack(&[0; 3 * ENTRY]).unwrap().len(), 3);
    }
}
