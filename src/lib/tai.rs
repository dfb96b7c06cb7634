//! TAI64N time stamps: wall-clock moments as they leave a process, on disk, on the wire and in names.
//!
//! The label's seconds are 2^62 + 10 + Unix time + leap seconds so far (spec/logging-and-chainloaders.md 2).
//! Deadlines inside a process are [`std::time::Instant`]s, never these.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a packed stamp: 8 of seconds, 4 of nanoseconds, big-endian.
pub const PACKED: usize = 12;
/// Bytes of the text form: `@` and 24 hex digits.
pub const TEXT: usize = 25;

/// Unix time of the first second after each leap second.
const LEAP_SECONDS: [u64; 27] = [
    78796800, 94694400, 126230400, 157766400, 189302400, 220924800, 252460800, 283996800, 315532800, 362793600,
    394329600, 425865600, 489024000, 567993600, 631152000, 662688000, 709948800, 741484800, 773020800, 820454400,
    867715200, 915148800, 1136073600, 1230768000, 1341100800, 1435708800, 1483228800,
];

/// The label of Unix time 0.
const EPOCH: u64 = (1 << 62) + 10;

/// A moment: seconds as in the label, and nanoseconds. Orders by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tai64n {
    /// Label seconds.
    pub seconds: u64,
    /// Nanoseconds, below 10^9 in a sane stamp.
    pub nanoseconds: u32,
}

/// A Unix time, or the leap second that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnixTime {
    /// Seconds since 1970.
    pub seconds: u64,
    /// Whether this is second :60, one after `seconds`.
    pub leap: bool,
}

impl Tai64n {
    /// The wall clock now.
    pub fn now() -> Self {
        Self::from_system(SystemTime::now())
    }

    /// A moment of the wall clock; what lies before 1970 counts as 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_unix(since.as_secs(), since.subsec_nanos())
    }

    /// A Unix time.
    pub fn from_unix(seconds: u64, nanoseconds: u32) -> Self {
        // Nearly every time is after the last leap second, so look from the end.
        let leaps = LEAP_SECONDS.iter().rposition(|&t| t <= seconds).map_or(0, |i| i + 1);
        Tai64n { seconds: EPOCH + seconds + leaps as u64, nanoseconds }
    }

    /// Back to Unix time; `None` for labels before 1970.
    pub fn to_unix(self) -> Option<UnixTime> {
        let tai = self.seconds.checked_sub(EPOCH)?;
        let mut earlier = 0;
        for (i, &t) in LEAP_SECONDS.iter().enumerate() {
            match (t + i as u64).cmp(&tai) {
                std::cmp::Ordering::Less => earlier = i as u64 + 1,
                std::cmp::Ordering::Equal => return Some(UnixTime { seconds: tai - i as u64 - 1, leap: true }),
                std::cmp::Ordering::Greater => break,
            }
        }
        Some(UnixTime { seconds: tai - earlier, leap: false })
    }

    /// The packed form.
    pub fn pack(self) -> [u8; PACKED] {
        let mut out = [0; PACKED];
        out[..8].copy_from_slice(&self.seconds.to_be_bytes());
        out[8..].copy_from_slice(&self.nanoseconds.to_be_bytes());
        out
    }

    /// From the packed form.
    pub fn unpack(bytes: &[u8; PACKED]) -> Self {
        let (seconds, nanoseconds) = bytes.split_at(8);
        Tai64n {
            seconds: seconds.iter().fold(0, |sum, &b| sum << 8 | u64::from(b)),
            nanoseconds: nanoseconds.iter().fold(0, |sum, &b| sum << 8 | u32::from(b)),
        }
    }

    /// The text form: `@` and 24 lower-case hex digits.
    pub fn text(self) -> [u8; TEXT] {
        let mut out = [b'@'; TEXT];
        for (i, byte) in self.pack().into_iter().enumerate() {
            out[1 + 2 * i] = HEX[usize::from(byte >> 4)];
            out[2 + 2 * i] = HEX[usize::from(byte & 15)];
        }
        out
    }

    /// From the text form, in either case.
    pub fn parse(text: &[u8; TEXT]) -> Option<Self> {
        let (b'@', digits) = text.split_first()? else { return None };
        let mut packed = [0; PACKED];
        for (byte, pair) in packed.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex(pair[0])? << 4) | hex(pair[1])?;
        }
        Some(Self::unpack(&packed))
    }

    /// The moment `length` later.
    pub fn after(self, length: Duration) -> Self {
        let nanoseconds = u64::from(self.nanoseconds) + u64::from(length.subsec_nanos());
        Tai64n {
            seconds: self.seconds.saturating_add(length.as_secs()).saturating_add(nanoseconds / 1_000_000_000),
            nanoseconds: (nanoseconds % 1_000_000_000) as u32,
        }
    }

    /// A moment that never comes.
    pub fn never() -> Self {
        Self::now().after(Duration::from_secs(1 << 61))
    }

    /// Whether this moment is so far from now that it is meant never to come.
    pub fn is_never(self) -> bool {
        self >= Self::now().after(Duration::from_secs(1 << 60))
    }

    /// How long before `later` this is; zero if it is not.
    pub fn until(self, later: Self) -> Duration {
        if later <= self {
            return Duration::ZERO;
        }
        let borrow = u64::from(later.nanoseconds < self.nanoseconds);
        let nanoseconds =
            (u64::from(later.nanoseconds) + borrow * 1_000_000_000).saturating_sub(self.nanoseconds.into());
        Duration::new((later.seconds - self.seconds).saturating_sub(borrow), nanoseconds.min(999_999_999) as u32)
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn hex(digit: u8) -> Option<u8> {
    Some((digit as char).to_digit(16)? as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_count_leap_seconds() {
        for (unix, label) in [
            (0, "@400000000000000a00000000"),
            (78796799, "@4000000004b2580900000000"),
            (78796800, "@4000000004b2580b00000000"),
            (1483228799, "@40000000586846a300000000"),
            (1483228800, "@40000000586846a500000000"),
            (1700000000, "@400000006553f12500000000"),
        ] {
            assert_eq!(Tai64n::from_unix(unix, 0).text(), label.as_bytes());
        }
    }

    #[test]
    fn a_leap_second_is_second_sixty() {
        let leap = Tai64n::parse(b"@40000000586846a400000000").unwrap();
        assert_eq!(leap.to_unix(), Some(UnixTime { seconds: 1483228799, leap: true }));
        assert_eq!(Tai64n { seconds: 5, nanoseconds: 0 }.to_unix(), None);
    }

    proptest! {
        #[test]
        fn unix_time_survives_the_label(seconds in 0u64..10_000_000_000, nanos in 0u32..1_000_000_000) {
            let stamp = Tai64n::from_unix(seconds, nanos);
            prop_assert_eq!(stamp.to_unix(), Some(UnixTime { seconds, leap: false }));
            prop_assert_eq!(Tai64n::parse(&stamp.text()), Some(stamp));
            prop_assert_eq!(Tai64n::unpack(&stamp.pack()), stamp);
        }

        #[test]
        fn lengths_add_up(a in 0u64..1 << 40, an in 0u32..1_000_000_000, ms in 0u64..1 << 40) {
            let start = Tai64n { seconds: a, nanoseconds: an };
            let length = Duration::from_millis(ms);
            prop_assert_eq!(start.until(start.after(length)), length);
        }
    }
}
