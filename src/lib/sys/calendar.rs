//! Unix time broken down into date and time of day, by the C library, which knows the local zone.

use std::mem::MaybeUninit;

/// Which zone a time is shown in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// That of TZ or /etc/localtime, as it was when it was first asked for.
    Local,
    /// None: Greenwich.
    Utc,
}

/// A date and a time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calendar {
    /// Year, 1970 or so and later.
    pub year: i64,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, from 0.
    pub hour: u8,
    /// Minute, from 0.
    pub minute: u8,
    /// Second, from 0; 60 is a leap second of a zone that has them.
    pub second: u8,
}

/// Breaks a Unix time down; `None` if the year is more than the C library can hold.
pub fn break_down(seconds: u64, zone: Zone) -> Option<Calendar> {
    let time = seconds.try_into().ok()?;
    let mut tm = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: a time_t to read and room for a tm; the pointer that comes back is null or to that room, now filled.
    let tm = unsafe {
        let result = match zone {
            Zone::Local => libc::localtime_r(&time, tm.as_mut_ptr()),
            Zone::Utc => libc::gmtime_r(&time, tm.as_mut_ptr()),
        };
        result.as_ref()?
    };
    let small = |number: libc::c_int| u8::try_from(number).ok();
    Some(Calendar {
        year: i64::from(tm.tm_year) + 1900,
        month: small(tm.tm_mon + 1)?,
        day: small(tm.tm_mday)?,
        hour: small(tm.tm_hour)?,
        minute: small(tm.tm_min)?,
        second: small(tm.tm_sec)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greenwich_needs_no_zone() {
        let want = Calendar { year: 2023, month: 11, day: 14, hour: 22, minute: 13, second: 20 };
        assert_eq!(break_down(1_700_000_000, Zone::Utc), Some(want));
        assert_eq!(break_down(0, Zone::Utc).map(|c| (c.year, c.month, c.day)), Some((1970, 1, 1)));
        assert_eq!(break_down(1 << 62, Zone::Utc), None);
    }
}
