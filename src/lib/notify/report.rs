//! What a service said last, and the file `supervise/notify` that shows it (spec/sd-notify-and-fdstore.md 4.3): text
//! in the protocol's own grammar.

use std::ffi::CStr;

use nix::fcntl::OFlag;

use super::grammar::{self, Access, Interval, Message};
use crate::servicedir::files;
use crate::sys::fd;
use crate::text::decimal;

/// What a service said of itself, and who is listened to.
#[derive(Debug, Default)]
pub struct Report {
    status: String,
    errno: Option<u16>,
    bus_error: String,
    varlink_error: String,
    /// Whose messages count.
    pub access: Access,
    /// How often it must say that it works.
    pub watchdog: Interval,
}

/// What the file says beside that.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// STATE.
    pub state: &'static str,
    /// RESULT: how the last run ended.
    pub result: &'static str,
    /// FDSTORE: how many descriptors are stored.
    pub stored: usize,
    /// FDSTORE: how many may be.
    pub max: usize,
}

impl Report {
    /// A new run has said nothing yet.
    pub fn clear(&mut self, access: Access, watchdog: Interval) {
        self.status.clear();
        self.errno = None;
        self.bus_error.clear();
        self.varlink_error.clear();
        (self.access, self.watchdog) = (access, watchdog);
    }

    /// Takes what a message says.
    pub fn take(&mut self, message: &Message<'_>) {
        let texts = [
            (&mut self.status, message.status),
            (&mut self.bus_error, message.bus_error),
            (&mut self.varlink_error, message.varlink_error),
        ];
        for (place, text) in texts {
            if let Some(text) = text {
                place.clear();
                place.push_str(text);
            }
        }
        self.errno = message.errno.or(self.errno);
        self.access = message.access.unwrap_or(self.access);
        self.watchdog = message.watchdog_interval.unwrap_or(self.watchdog);
    }

    /// The bytes of the file, appended to `out`.
    pub fn render(&self, beside: Circumstances, out: &mut Vec<u8>) {
        let mut put = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.push(b'\n');
        };
        put(&[b"STATE=", beside.state.as_bytes()]);
        for (key, text) in
            [("STATUS=", &self.status), ("BUSERROR=", &self.bus_error), ("VARLINKERROR=", &self.varlink_error)]
        {
            if !text.is_empty() {
                put(&[key.as_bytes(), text.as_bytes()]);
            }
        }
        if let Some(errno) = self.errno {
            put(&[b"ERRNO=", decimal(errno).as_bytes()]);
        }
        put(&[b"NOTIFYACCESS=", self.access.name().as_bytes()]);
        let interval = self.watchdog.map_or(0, |interval| interval.as_micros() as u64);
        put(&[b"WATCHDOG_USEC=", decimal(interval).as_bytes()]);
        put(&[b"RESULT=", beside.result.as_bytes()]);
        let (stored, max) = (decimal(beside.stored as u64), decimal(beside.max as u64));
        put(&[b"FDSTORE=", stored.as_bytes(), b"/", max.as_bytes()]);
    }
}

/// More than the file ever has: three texts, each from a message, and a few short lines.
const MOST: usize = 4 * grammar::MOST;

/// The bytes of the file of a service directory; none if there is no such file.
pub fn read(dir: &CStr) -> Vec<u8> {
    let path = files::path(dir, "supervise/notify");
    // Most services have none, and then it costs no memory.
    let Ok(file) = fd::open_file(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) else { return Vec::new() };
    let mut bytes = vec![0; MOST];
    let length = fd::read(&file, &mut bytes).unwrap_or(0);
    bytes.truncate(length);
    bytes
}

/// The value of a key in the bytes of the file.
pub fn value<'a>(file: &'a [u8], key: &str) -> Option<&'a [u8]> {
    file.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::grammar::{Datagram, parse};
    use std::time::Duration;

    fn take(report: &mut Report, payload: &str) {
        let Some(Datagram::Message(message)) = parse(payload.as_bytes()) else { panic!("{payload} is no message") };
        report.take(&message);
    }

    fn shown(report: &Report) -> Vec<u8> {
        let mut out = Vec::new();
        report.render(Circumstances { state: "ready", result: "success", stored: 2, max: 8 }, &mut out);
        out
    }

    #[test]
    fn a_report_shows_what_was_said_last() {
        let mut report = Report::default();
        take(&mut report, "STATUS=x=\u{e9}\nERRNO=2\nBUSERROR=a.b\nNOTIFYACCESS=all\nWATCHDOG_USEC=5");
        take(&mut report, "READY=1\nERRNO=-5");
        let file = shown(&report);
        for (key, wanted) in [
            ("STATE", "ready"),
            ("STATUS", "x=\u{e9}"),
            ("ERRNO", "2"),
            ("BUSERROR", "a.b"),
            ("NOTIFYACCESS", "all"),
            ("WATCHDOG_USEC", "5"),
            ("RESULT", "success"),
            ("FDSTORE", "2/8"),
        ] {
            assert_eq!(value(&file, key), Some(wanted.as_bytes()), "{key}");
        }
        assert_eq!(value(&file, "VARLINKERROR"), None);
        take(&mut report, "STATUS=\nWATCHDOG_USEC=0");
        assert_eq!(value(&shown(&report), "STATUS"), None);
        assert_eq!(value(&shown(&report), "WATCHDOG_USEC"), Some(&b"0"[..]));
    }

    #[test]
    fn a_new_run_has_said_nothing() {
        let mut report = Report::default();
        take(&mut report, "STATUS=x\nERRNO=2\nBUSERROR=a.b\nNOTIFYACCESS=all");
        report.clear(Access::Exec, Some(Duration::from_micros(7)));
        let wanted = "STATE=ready\nNOTIFYACCESS=exec\nWATCHDOG_USEC=7\nRESULT=success\nFDSTORE=2/8\n";
        assert_eq!(String::from_utf8(shown(&report)).unwrap(), wanted);
    }
}
