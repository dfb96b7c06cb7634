//! Stamps for people: `2017-01-01 00:00:00.000000000` (spec/logging-and-chainloaders.md 2).

use crate::sys::calendar::{Calendar, Zone, break_down};
use crate::tai::Tai64n;

/// Writes stamps in one zone. Breaking a time down is slow, so the last second is remembered.
#[derive(Debug)]
pub struct Human {
    zone: Zone,
    /// Whether the local zone counts leap seconds itself, as those of the "right" kind do.
    knows_leap_seconds: bool,
    second: Option<u64>,
    text: Vec<u8>,
}

/// Unix time of the end of the first leap second.
const FIRST_LEAP: u64 = 78796800;

impl Human {
    /// For one zone.
    pub fn new(zone: Zone) -> Self {
        let knows_leap_seconds = zone == Zone::Local && break_down(FIRST_LEAP, zone).is_some_and(|c| c.second == 60);
        Human { zone, knows_leap_seconds, second: None, text: Vec::new() }
    }

    /// The text of a stamp; `None` if it is from before 1970, or the C library cannot hold its year, or there are
    /// too many nanoseconds in its second.
    pub fn text(&mut self, stamp: Tai64n) -> Option<&[u8]> {
        if self.second != Some(stamp.seconds) {
            let calendar = self.calendar(stamp)?;
            self.second = None;
            self.text.clear();
            write_date(&mut self.text, calendar);
            self.second = Some(stamp.seconds);
        }
        if stamp.nanoseconds >= 1_000_000_000 {
            return None;
        }
        let dot = self.text.iter().rposition(|&b| b == b'.').unwrap_or(0);
        self.text.truncate(dot + 1);
        push_padded(&mut self.text, stamp.nanoseconds.into(), 9);
        Some(&self.text)
    }

    fn calendar(&self, stamp: Tai64n) -> Option<Calendar> {
        let unix = stamp.to_unix()?;
        if self.knows_leap_seconds {
            return break_down(stamp.seconds - Tai64n::from_unix(0, 0).seconds, self.zone);
        }
        let calendar = break_down(unix.seconds, self.zone)?;
        Some(Calendar { second: calendar.second + u8::from(unix.leap), ..calendar })
    }
}

/// Everything up to the dot.
fn write_date(out: &mut Vec<u8>, date: Calendar) {
    push_padded(out, date.year.unsigned_abs(), 4);
    let rest = [(b'-', date.month), (b'-', date.day), (b' ', date.hour), (b':', date.minute), (b':', date.second)];
    for (separator, number) in rest {
        out.push(separator);
        push_padded(out, number.into(), 2);
    }
    out.push(b'.');
}

fn push_padded(out: &mut Vec<u8>, number: u64, width: usize) {
    let digits = crate::text::decimal(number);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.as_bytes().len())));
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(label: &[u8; 25]) -> Option<String> {
        let stamp = Tai64n::parse(label)?;
        Human::new(Zone::Utc).text(stamp).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    #[test]
    fn leap_seconds_are_second_sixty_and_then_gone() {
        assert_eq!(utc(b"@400000000000000a00000000").unwrap(), "1970-01-01 00:00:00.000000000");
        assert_eq!(utc(b"@4000000004b2580a00000001").unwrap(), "1972-06-30 23:59:60.000000001");
        assert_eq!(utc(b"@40000000586846a43b9ac9ff").unwrap(), "2016-12-31 23:59:60.999999999");
        assert_eq!(utc(b"@40000000586846a500000000").unwrap(), "2017-01-01 00:00:00.000000000");
    }

    #[test]
    fn what_is_no_time_has_no_text() {
        assert_eq!(utc(b"@000000000000000000000000"), None);
        assert_eq!(utc(b"@ffffffffffffffff00000000"), None);
        assert_eq!(utc(b"@40000000586846a53b9aca00"), None);
    }

    #[test]
    fn only_the_fraction_changes_within_a_second() {
        let mut human = Human::new(Zone::Utc);
        let mut stamp = Tai64n::from_unix(1_700_000_000, 5);
        assert_eq!(human.text(stamp).unwrap(), b"2023-11-14 22:13:20.000000005");
        stamp.nanoseconds = 123_456_789;
        assert_eq!(human.text(stamp).unwrap(), b"2023-11-14 22:13:20.123456789");
        stamp.seconds = 0;
        assert_eq!(human.text(stamp), None);
        stamp.seconds = Tai64n::from_unix(1_700_000_001, 0).seconds;
        assert_eq!(human.text(stamp).unwrap(), b"2023-11-14 22:13:21.123456789");
    }
}
