//! What a notification says: the bytes of one datagram in, its assignments out
//! (spec/sd-notify-and-fdstore.md 1.2, 1.3).
//!
//! A message is a set: the order of its lines means nothing. Of an assignment with a value the first one counts. What
//! is unknown or malformed is as if it were not there, and the rest of the message stands.

use std::time::Duration;

use crate::sys::Errno;
use crate::text::{parse_u32, parse_u64};

/// The longest message, in bytes; a longer one is ignored whole.
pub const MOST: usize = 4096;
/// The longest name of a stored descriptor, in bytes.
pub const NAME: usize = 255;
/// The name of descriptors that came without a valid one.
pub const UNNAMED: &[u8] = b"stored";

/// Times are at most this long, so that adding one to a clock never overflows: 68 years.
const LONGEST: Duration = Duration::from_secs(i32::MAX as u64);

/// One datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram<'a> {
    /// BARRIER=1: the sender waits until its descriptor is closed. Whatever else such a message says is ignored.
    Barrier,
    /// Assignments.
    Message(Message<'a>),
}

/// The assignments of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Message<'a> {
    /// MAINPID, with MAINPIDFDID.
    pub main_pid: Option<MainPid>,
    /// MAINPIDFD=1: the one attached descriptor is a pidfd of the main process. Comes before `main_pid`.
    pub main_pidfd: bool,
    /// What the service says that it does.
    pub state: Option<State>,
    /// STATUS; empty clears it.
    pub status: Option<&'a str>,
    /// NOTIFYACCESS.
    pub access: Option<Access>,
    /// ERRNO, as a number.
    pub errno: Option<u16>,
    /// BUSERROR; empty clears it.
    pub bus_error: Option<&'a str>,
    /// VARLINKERROR; empty clears it.
    pub varlink_error: Option<&'a str>,
    /// EXTEND_TIMEOUT_USEC, not zero.
    pub extend: Option<Duration>,
    /// WATCHDOG.
    pub watchdog: Option<Watchdog>,
    /// WATCHDOG_USEC: the new interval, or none at all.
    pub watchdog_interval: Option<Interval>,
    /// RESTART_RESET=1: earlier deaths are to be forgotten.
    pub restart_reset: bool,
    /// What is to happen with the fd store.
    pub store: Option<Store<'a>>,
    /// X_S6_SERIAL, our own: what is to be stored was stored before, under this number, and is held elsewhere.
    pub serial: Option<u32>,
}

/// A new main process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MainPid {
    /// Its number, above 1.
    pub pid: i32,
    /// What the inode of its pidfd must be.
    pub inode: Option<u64>,
}

/// READY, RELOADING, STOPPING, the strongest of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// On its way down.
    Stopping,
    /// Started, or done with reloading.
    Ready,
    /// Reloaded, from beginning to end, since this moment: RELOADING and READY in one message.
    Reloaded(Option<u64>),
    /// Reloading since this moment of CLOCK_MONOTONIC, in microseconds, if it says.
    Reloading(Option<u64>),
}

/// Who is listened to (section 1.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// Nobody.
    None,
    /// The main process.
    #[default]
    Main,
    /// The main process and finish.
    Exec,
    /// Every process that descends from the supervisor.
    All,
}

impl Access {
    /// By its name.
    pub fn parse(word: &[u8]) -> Option<Access> {
        Some(match word {
            b"none" => Access::None,
            b"main" => Access::Main,
            b"exec" => Access::Exec,
            b"all" => Access::All,
            _ => return None,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Access::None => "none",
            Access::Main => "main",
            Access::Exec => "exec",
            Access::All => "all",
        }
    }
}

/// WATCHDOG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watchdog {
    /// All is well.
    Ping,
    /// Act as if the interval had passed.
    Trigger,
}

/// How often the service is to say that all is well; `None`: it need not.
pub type Interval = Option<Duration>;

/// FDSTORE and FDSTOREREMOVE, which wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store<'a> {
    /// Store the attached descriptors.
    Add {
        /// Under this name.
        name: &'a [u8],
        /// And drop those that are hung up.
        poll: bool,
    },
    /// Drop everything of this name.
    Remove(&'a [u8]),
}

/// The assignments in a datagram; `None` if the whole of it is to be ignored: too long, or with a NUL that is not its
/// last byte.
pub fn parse(payload: &[u8]) -> Option<Datagram<'_>> {
    let text = payload.strip_suffix(b"\0").unwrap_or(payload);
    if payload.len() > MOST || text.contains(&0) {
        return None;
    }
    let mut raw = Raw::default();
    for line in text.split(|&b| b == b'\n' || b == b'\r') {
        if let Some(equals) = line.iter().position(|&b| b == b'=') {
            raw.take(&line[..equals], &line[equals + 1..]);
        }
    }
    Some(if raw.barrier { Datagram::Barrier } else { Datagram::Message(raw.message()) })
}

/// The lines that mean something: flags that are there, and the first value of the others.
#[derive(Default)]
struct Raw<'a> {
    barrier: bool,
    ready: bool,
    reloading: bool,
    stopping: bool,
    main_pidfd: bool,
    restart_reset: bool,
    store: bool,
    remove: bool,
    unpolled: bool,
    main_pid: Option<&'a [u8]>,
    main_inode: Option<&'a [u8]>,
    monotonic: Option<&'a [u8]>,
    status: Option<&'a [u8]>,
    access: Option<&'a [u8]>,
    errno: Option<&'a [u8]>,
    bus_error: Option<&'a [u8]>,
    varlink_error: Option<&'a [u8]>,
    extend: Option<&'a [u8]>,
    watchdog: Option<&'a [u8]>,
    watchdog_interval: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    serial: Option<&'a [u8]>,
}

impl<'a> Raw<'a> {
    fn take(&mut self, key: &[u8], value: &'a [u8]) {
        let place = match (key, value) {
            (b"BARRIER", b"1") => return self.barrier = true,
            (b"READY", b"1") => return self.ready = true,
            (b"RELOADING", b"1") => return self.reloading = true,
            (b"STOPPING", b"1") => return self.stopping = true,
            (b"MAINPIDFD", b"1") => return self.main_pidfd = true,
            (b"RESTART_RESET", b"1") => return self.restart_reset = true,
            (b"FDSTORE", b"1") => return self.store = true,
            (b"FDSTOREREMOVE", b"1") => return self.remove = true,
            (b"FDPOLL", b"0") => return self.unpolled = true,
            (b"MAINPID", _) => &mut self.main_pid,
            (b"MAINPIDFDID", _) => &mut self.main_inode,
            (b"MONOTONIC_USEC", _) => &mut self.monotonic,
            (b"STATUS", _) => &mut self.status,
            (b"NOTIFYACCESS", _) => &mut self.access,
            (b"ERRNO", _) => &mut self.errno,
            (b"BUSERROR", _) => &mut self.bus_error,
            (b"VARLINKERROR", _) => &mut self.varlink_error,
            (b"EXTEND_TIMEOUT_USEC", _) => &mut self.extend,
            (b"WATCHDOG", _) => &mut self.watchdog,
            (b"WATCHDOG_USEC", _) => &mut self.watchdog_interval,
            (b"FDNAME", _) => &mut self.name,
            (b"X_S6_SERIAL", _) => &mut self.serial,
            _ => return,
        };
        place.get_or_insert(value);
    }

    fn message(&self) -> Message<'a> {
        Message {
            main_pid: self.main_pid.and_then(|pid| main_pid(pid, self.main_inode)),
            main_pidfd: self.main_pidfd,
            state: self.state(),
            status: self.status.and_then(|text| str::from_utf8(text).ok()),
            access: self.access.and_then(Access::parse),
            errno: self.errno.and_then(errno),
            bus_error: self.bus_error.and_then(error_name),
            varlink_error: self.varlink_error.and_then(error_name),
            extend: self.extend.and_then(parse_u64).filter(|&usec| usec != 0).map(duration),
            watchdog: match self.watchdog {
                Some(b"1") => Some(Watchdog::Ping),
                Some(b"trigger") => Some(Watchdog::Trigger),
                _ => None,
            },
            watchdog_interval: self.watchdog_interval.and_then(parse_u64).map(interval),
            restart_reset: self.restart_reset,
            store: self.store(),
            serial: self.serial.and_then(parse_u32),
        }
    }

    fn state(&self) -> Option<State> {
        let since = || self.monotonic.and_then(parse_u64);
        match (self.stopping, self.ready, self.reloading) {
            (true, _, _) => Some(State::Stopping),
            (false, true, true) => Some(State::Reloaded(since())),
            (false, true, false) => Some(State::Ready),
            (false, false, true) => Some(State::Reloading(since())),
            (false, false, false) => None,
        }
    }

    fn store(&self) -> Option<Store<'a>> {
        let name = self.name.filter(|name| is_name(name));
        match (self.remove, self.store) {
            (true, _) => name.map(Store::Remove),
            (false, true) => Some(Store::Add { name: name.unwrap_or(UNNAMED), poll: !self.unpolled }),
            (false, false) => None,
        }
    }
}

/// Whether descriptors can be stored under this name: printable ASCII without colon, perhaps empty.
pub fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME && name.iter().all(|&b| matches!(b, b' '..=b'~') && b != b':')
}

fn main_pid(pid: &[u8], inode: Option<&[u8]>) -> Option<MainPid> {
    let pid = i32::try_from(parse_u64(pid)?).ok().filter(|&pid| pid > 1)?;
    let inode = match inode {
        Some(text) => Some(parse_u64(text)?),
        None => None,
    };
    Some(MainPid { pid, inode })
}

fn duration(microseconds: u64) -> Duration {
    Duration::from_micros(microseconds).min(LONGEST)
}

fn interval(microseconds: u64) -> Interval {
    (!matches!(microseconds, 0 | u64::MAX)).then(|| duration(microseconds))
}

/// Printable ASCII without quotes and backslash.
fn error_name(name: &[u8]) -> Option<&str> {
    let safe = name.iter().all(|&b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\'' | b'\\'));
    str::from_utf8(name).ok().filter(|_| safe)
}

/// The highest error number that the kernel can return.
const HIGHEST_ERRNO: u16 = 4095;

/// An errno by number or by name.
fn errno(word: &[u8]) -> Option<u16> {
    if word.first() != Some(&b'E') {
        return parse_u64(word)?.try_into().ok().filter(|&n| n <= HIGHEST_ERRNO);
    }
    let known = match word {
        b"EWOULDBLOCK" => Errno::EAGAIN,
        b"ENOTSUP" => Errno::EOPNOTSUPP,
        #[cfg(target_os = "linux")]
        b"EDEADLOCK" => Errno::EDEADLK,
        _ => return (1..=HIGHEST_ERRNO).find(|&n| is_called(Errno::from_raw(n.into()), word)),
    };
    Some(known as u16)
}

/// Whether an errno has this name. Compares piecewise, for no memory is to be had for a message.
fn is_called(errno: Errno, word: &[u8]) -> bool {
    struct Expect<'a>(&'a [u8]);
    impl std::fmt::Write for Expect<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0 = self.0.strip_prefix(text.as_bytes()).ok_or(std::fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Expect(word);
    std::fmt::write(&mut rest, format_args!("{errno:?}")).is_ok() && rest.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(payload: &[u8]) -> Message<'_> {
        match parse(payload) {
            Some(Datagram::Message(message)) => message,
            other => panic!("{payload:?} is {other:?}"),
        }
    }

    #[test]
    fn flags_match_by_exact_line_anywhere() {
        for payload in ["READY=1", "READY=1\n", "STATUS=a\nREADY=1", "READY=1\r\nX_Y=2", "\n\nREADY=1\0"] {
            assert_eq!(message(payload.as_bytes()).state, Some(State::Ready), "{payload:?}");
        }
        for payload in ["READY=0", "READY=10", "READY=1 ", " READY=1", "READY", "READY=", "=1", "", "\n\n", "\0"] {
            assert_eq!(message(payload.as_bytes()), Message::default(), "{payload:?}");
        }
    }

    #[test]
    fn of_values_the_first_counts_and_a_carriage_return_ends_a_line() {
        assert_eq!(message(b"STATUS=one\nSTATUS=two").status, Some("one"));
        assert_eq!(message(b"STATUS=cr\r\nX=1").status, Some("cr"));
        assert_eq!(message(b"STATUS=").status, Some(""));
        assert_eq!(message(b"STATUS=\xff\xfe\nSTATUS=two").status, None);
        assert_eq!(message("STATUS=\u{e9} = \x1b".as_bytes()).status, Some("\u{e9} = \x1b"));
    }

    #[test]
    fn a_message_is_too_long_or_has_a_nul_in_the_middle_and_counts_for_nothing() {
        assert!(parse(&[b'a'; MOST]).is_some());
        assert!(parse(&[b'a'; MOST + 1]).is_none());
        assert!(parse(b"READY=1\0STATUS=x").is_none());
        assert!(parse(b"READY=1\0\0").is_none());
    }

    #[test]
    fn stopping_beats_ready_and_ready_ends_reloading() {
        for (payload, want) in [
            ("STOPPING=1\nREADY=1\nRELOADING=1", State::Stopping),
            ("READY=1\nRELOADING=1\nMONOTONIC_USEC=5", State::Reloaded(Some(5))),
            ("RELOADING=1\nMONOTONIC_USEC=5", State::Reloading(Some(5))),
            ("RELOADING=1\nMONOTONIC_USEC=x", State::Reloading(None)),
        ] {
            assert_eq!(message(payload.as_bytes()).state, Some(want), "{payload:?}");
        }
        assert_eq!(message(b"MONOTONIC_USEC=5").state, None);
    }

    #[test]
    fn main_pids_are_numbers_above_one_and_a_bad_inode_refuses_them() {
        assert_eq!(message(b"MAINPID=77").main_pid, Some(MainPid { pid: 77, inode: None }));
        assert_eq!(message(b"MAINPIDFDID=9\nMAINPID=77").main_pid, Some(MainPid { pid: 77, inode: Some(9) }));
        for payload in ["MAINPID=1", "MAINPID=0", "MAINPID=-3", "MAINPID=abc", "MAINPID=77\nMAINPIDFDID=x"] {
            assert_eq!(message(payload.as_bytes()).main_pid, None, "{payload}");
        }
        assert_eq!(message(b"MAINPID=4294967297").main_pid, None);
        assert!(message(b"MAINPIDFD=1").main_pidfd && !message(b"MAINPIDFD=2").main_pidfd);
    }

    #[test]
    fn errors_have_numbers_and_names() {
        for (word, want) in [
            ("2", Some(2)),
            ("0", Some(0)),
            ("4095", Some(4095)),
            ("4096", None),
            ("-5", None),
            ("foo", None),
            ("ENOENT", Some(libc::ENOENT as u16)),
            ("EWOULDBLOCK", Some(libc::EAGAIN as u16)),
            ("ENOTSUP", Some(libc::EOPNOTSUPP as u16)),
            ("EHWPOISON", cfg!(target_os = "linux").then_some(133)),
            ("ENOEN", None),
            ("ENOENTX", None),
            ("UnknownErrno", None),
            ("", None),
        ] {
            assert_eq!(message(format!("ERRNO={word}").as_bytes()).errno, want, "{word:?}");
        }
        assert_eq!(message(b"BUSERROR=org.x.Y\nVARLINKERROR=").bus_error, Some("org.x.Y"));
        assert_eq!(message(b"BUSERROR=org.x.Y\nVARLINKERROR=").varlink_error, Some(""));
        assert_eq!(message(b"BUSERROR=\x01").bus_error, None);
    }

    #[test]
    fn times_are_unsigned_microseconds() {
        let second = Duration::from_secs(1);
        assert_eq!(message(b"EXTEND_TIMEOUT_USEC=1000000").extend, Some(second));
        assert_eq!(message(b"WATCHDOG_USEC=1000000").watchdog_interval, Some(Some(second)));
        assert_eq!(message(b"WATCHDOG_USEC=0").watchdog_interval, Some(None));
        assert_eq!(message(b"WATCHDOG_USEC=18446744073709551615").watchdog_interval, Some(None));
        assert_eq!(message(b"EXTEND_TIMEOUT_USEC=18446744073709551614").extend, Some(LONGEST));
        for payload in ["EXTEND_TIMEOUT_USEC=0", "EXTEND_TIMEOUT_USEC=-1", "WATCHDOG=2", "WATCHDOG_USEC=abc"] {
            assert_eq!(message(payload.as_bytes()), Message::default(), "{payload}");
        }
    }

    #[test]
    fn removing_beats_storing_and_a_bad_name_is_no_name() {
        fn add(name: &[u8], poll: bool) -> Option<Store<'_>> {
            Some(Store::Add { name, poll })
        }
        assert_eq!(message(b"FDSTORE=1").store, add(b"stored", true));
        assert_eq!(message(b"FDSTORE=1\nFDNAME=").store, add(b"", true));
        assert_eq!(message(b"FDSTORE=1\nFDNAME=a b\nFDPOLL=0").store, add(b"a b", false));
        assert_eq!(message(b"FDSTORE=1\nFDNAME=a\nFDPOLL=1").store, add(b"a", true));
        assert_eq!(message(b"FDSTORE=1\nFDNAME=bad:name").store, add(b"stored", true));
        assert_eq!(message("FDSTORE=1\nFDNAME=\u{e9}".as_bytes()).store, add(b"stored", true));
        for (length, stored_as) in [(NAME, vec![b'n'; NAME]), (NAME + 1, b"stored".to_vec())] {
            let payload = [b"FDSTORE=1\nFDNAME=".as_slice(), &vec![b'n'; length]].concat();
            assert_eq!(message(&payload).store, add(&stored_as, true));
        }
        assert_eq!(message(b"FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=n").store, Some(Store::Remove(b"n")));
        assert_eq!(message(b"FDSTORE=1\nFDSTOREREMOVE=1").store, None);
        assert_eq!(message(b"FDNAME=n").store, None);
    }

    #[test]
    fn a_barrier_says_nothing_else() {
        assert_eq!(parse(b"BARRIER=1"), Some(Datagram::Barrier));
        assert_eq!(parse(b"BARRIER=1\nSTATUS=m"), Some(Datagram::Barrier));
        assert_eq!(message(b"BARRIER=2\nSTATUS=m").status, Some("m"));
    }

    const KEYS: &[&str] = &[
        "READY",
        "RELOADING",
        "STOPPING",
        "MONOTONIC_USEC",
        "STATUS",
        "NOTIFYACCESS",
        "ERRNO",
        "BUSERROR",
        "VARLINKERROR",
        "EXIT_STATUS",
        "MAINPID",
        "MAINPIDFDID",
        "MAINPIDFD",
        "WATCHDOG",
        "WATCHDOG_USEC",
        "EXTEND_TIMEOUT_USEC",
        "RESTART_RESET",
        "FDSTORE",
        "FDSTOREREMOVE",
        "FDNAME",
        "FDPOLL",
        "X_MORE",
        "",
    ];
    const VALUES: &[&str] = &["1", "0", "", "7", "-1", "main", "trigger", "ENOENT", "a:b", "\u{e9}", "x=y", "99999"];

    fn assignment() -> impl Strategy<Value = (&'static str, &'static str)> {
        (prop::sample::select(KEYS), prop::sample::select(VALUES))
    }

    fn payload(lines: &[(&str, &str)]) -> String {
        lines.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_ignored(
            bytes in prop::collection::vec(1u8..=255, 0..MOST + 100),
            nul in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = bytes;
            let nul = nul.map(|at| at.index(bytes.len() + 1));
            nul.inspect(|&at| bytes.insert(at, 0));
            let bad = bytes.len() > MOST || nul.is_some_and(|at| at + 1 != bytes.len());
            prop_assert_eq!(parse(&bytes).is_none(), bad);
        }

        #[test]
        fn the_order_of_different_keys_means_nothing(
            lines in prop::collection::vec(assignment(), 0..12),
            turn in 0usize..12,
        ) {
            let mut once: Vec<(&str, &str)> = Vec::new();
            for line in lines {
                if once.iter().all(|(key, _)| *key != line.0) {
                    once.push(line);
                }
            }
            let mut turned = once.clone();
            turned.rotate_left(turn.min(once.len()));
            turned.reverse();
            let (one, other) = (payload(&once), payload(&turned));
            prop_assert_eq!(parse(one.as_bytes()), parse(other.as_bytes()));
        }

        #[test]
        fn what_is_repeated_or_unknown_means_nothing(
            lines in prop::collection::vec(assignment(), 0..12),
            noise in "[ -~]{0,20}",
        ) {
            let plain = payload(&lines);
            let noisy = format!("X_{noise}\r\n{plain} STOPPING=1\n{plain}");
            prop_assert_eq!(parse(plain.as_bytes()), parse(noisy.as_bytes()));
        }

        #[test]
        fn names_that_pass_can_be_joined_by_colons(name in prop::collection::vec(any::<u8>(), 0..300)) {
            if is_name(&name) {
                prop_assert!(name.len() <= NAME && !name.contains(&b':') && name.is_ascii());
            }
        }
    }
}
