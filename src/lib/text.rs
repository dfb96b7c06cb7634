//! Numbers, signal names and the other small grammars that the whole suite shares (spec/supervision.md 0).

use std::ffi::CStr;
use std::time::Duration;

/// A decimal number of at most 20 digits, written without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    /// The digits at the end, and a NUL.
    text: [u8; Decimal::DIGITS + 1],
    start: usize,
}

impl Decimal {
    const DIGITS: usize = 20;

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..Self::DIGITS]
    }

    /// The digits as a C string, for an argv.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.text[self.start..]).unwrap_or(c"")
    }
}

/// `number` in decimal digits.
pub fn decimal(number: impl Into<u64>) -> Decimal {
    let mut rest = number.into();
    let mut out = Decimal { text: [0; Decimal::DIGITS + 1], start: Decimal::DIGITS };
    loop {
        out.start -= 1;
        out.text[out.start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out;
        }
    }
}

/// A whole word of decimal digits that fits 64 bits: no sign, no blank, at least one digit.
pub fn parse_u64(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// A whole word of decimal digits that fits 32 bits.
pub fn parse_u32(word: &[u8]) -> Option<u32> {
    parse_u64(word)?.try_into().ok()
}

/// A whole word of octal digits that fits 32 bits: a mode.
pub fn parse_octal(word: &[u8]) -> Option<u32> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u32, |sum, digit| {
        let digit = (b'0'..b'8').contains(digit).then(|| u32::from(digit - b'0'))?;
        sum.checked_mul(8)?.checked_add(digit)
    })
}

/// A word as a shell reads it back: as it is if nothing in it means anything, else in single quotes.
pub fn shell_word(word: &[u8]) -> Vec<u8> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./,:+@%^".contains(b);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_vec();
    }
    let parts: Vec<&[u8]> = word.split(|&b| b == b'\'').collect();
    [b"'", &parts.join(&br"'\''"[..])[..], b"'"].concat()
}

/// A time limit in milliseconds: 0 is none, and what C programs cannot hold as an int is endless too.
pub fn limit(milliseconds: u32) -> Option<Duration> {
    (1..=i32::MAX as u32).contains(&milliseconds).then(|| Duration::from_millis(milliseconds.into()))
}

/// Text that a terminal may be shown: byte by byte as it is but for backslashes, control characters and what is not
/// ASCII, which become `\\`, `\a` to `\r`, `\0xHH` (spec/events-and-fdholding.md 4, s6-fdholder-list).
pub fn quote(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => out.extend(br"\\"),
            7..=13 => out.extend([b'\\', b"abtnvfr"[usize::from(byte - 7)]]),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\0x{byte:02x}").bytes()),
        }
    }
    out
}

/// Text between double quotes that drives no terminal: UTF-8 as it is, but for quotes and backslashes, which get a
/// backslash in front, control characters (C0, DEL and C1), and what is no UTF-8: `\\a` to `\\r`, `\\0xHH` for each byte.
pub fn quote_utf8(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    let hexadecimal = |out: &mut Vec<u8>, byte: &u8| out.extend(format!("\\0x{byte:02x}").bytes());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            match character {
                '\\' | '"' => out.extend([b'\\', character as u8]),
                '\x07'..='\x0d' => out.extend([b'\\', b"abtnvfr"[character as usize - 7]]),
                _ if character.is_control() => encoded.iter().for_each(|byte| hexadecimal(&mut out, byte)),
                _ => out.extend_from_slice(encoded),
            }
        }
        chunk.invalid().iter().for_each(|byte| hexadecimal(&mut out, byte));
    }
    out.push(b'"');
    out
}

/// Signal names with their numbers on this system. The first name of a number is the one that is printed: IOT, not
/// ABRT, CLD, not CHLD, IO, not POLL, as the original prints them.
const SIGNALS: &[(&str, i32)] = &[
    #[cfg(target_os = "linux")]
    ("IOT", libc::SIGABRT),
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    #[cfg(target_os = "linux")]
    ("CLD", libc::SIGCHLD),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    #[cfg(target_os = "linux")]
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    #[cfg(target_os = "linux")]
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    #[cfg(target_os = "linux")]
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The highest signal number that is taken: Linux has 64.
const HIGHEST_SIGNAL: u32 = 64;

/// A signal by name, in any case, with or without `SIG`, or by number, also as `SIG15`.
pub fn parse_signal(word: &[u8]) -> Option<i32> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix(b"SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = SIGNALS.iter().find(|(known, _)| known.as_bytes() == name) {
        return Some(number);
    }
    parse_u32(name).filter(|n| (1..=HIGHEST_SIGNAL).contains(n)).map(|n| n as i32)
}

/// The name of a signal with its `SIG`, as the original prints it; `SIG???` if it has none.
pub fn signal_name(number: i32) -> String {
    match SIGNALS.iter().find(|&&(_, known)| known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => "SIG???".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_words_of_digits() {
        for (word, want) in [("0", Some(0)), ("007", Some(7)), ("4294967295", Some(u32::MAX)), ("4294967296", None)] {
            assert_eq!(parse_u32(word.as_bytes()), want, "{word}");
        }
        for word in ["", "+3", "-1", " 3", "3 ", "3x", "0x3", "99999999999999999999999"] {
            assert_eq!(parse_u32(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn modes_are_whole_words_of_octal_digits() {
        for (word, want) in [("0", Some(0)), ("02750", Some(0o2750)), ("37777777777", Some(u32::MAX))] {
            assert_eq!(parse_octal(word.as_bytes()), want, "{word}");
        }
        for word in ["", "8", "0o7", "-7", "7 ", "40000000000"] {
            assert_eq!(parse_octal(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn a_shell_reads_words_back_as_they_were() {
        for (word, quoted) in
            [("s6-log", "s6-log"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(shell_word(word.as_bytes()), quoted.as_bytes());
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_survive_a_shell(word in proptest::collection::vec(1u8.., 0..30)) {
            let script = [b"printf %s ", &shell_word(&word)[..]].concat();
            let script = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(script);
            let output = std::process::Command::new("/bin/sh").arg("-c").arg(script).env("LC_ALL", "C").output().unwrap();
            proptest::prop_assert_eq!(output.stdout, word);
        }
    }

    #[test]
    fn decimals_print_all_numbers() {
        for number in [0, 9, 10, 4096, u64::MAX] {
            assert_eq!(decimal(number).as_bytes(), number.to_string().as_bytes());
            assert_eq!(decimal(number).as_c_str().to_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn signals_have_names_in_any_case_and_numbers() {
        for (word, want) in [
            ("TERM", Some(15)),
            ("sigterm", Some(15)),
            ("15", Some(15)),
            ("SIG15", Some(15)),
            ("iot", Some(6)),
            ("ABRT", Some(6)),
        ] {
            assert_eq!(parse_signal(word.as_bytes()), want, "{word}");
        }
        for word in ["", "SIG", "bogus", "0", "65", "99999999999", "-1"] {
            assert_eq!(parse_signal(word.as_bytes()), None, "{word}");
        }
        assert_eq!(signal_name(15), "SIGTERM");
        assert_eq!(signal_name(63), "SIG???");
    }

    #[test]
    fn quoted_text_is_printable_ascii() {
        let text: Vec<u8> = (0..=255).collect();
        let quoted = quote(&text);
        assert!(quoted.is_ascii() && quoted.iter().all(|b| !b.is_ascii_control()));
        assert_eq!(quote(b"a b\"'"), b"a b\"'");
        assert_eq!(quote(b"\\\x06\x07\x08\t\n\x0b\x0c\r\x7f\xe9"), br"\\\0x06\a\b\t\n\v\f\r\0x7f\0xe9");
    }

    #[test]
    fn quoted_utf8_is_legible_and_drives_no_terminal() {
        let quoted = |text: &[u8]| String::from_utf8(quote_utf8(text)).unwrap();
        assert_eq!(quoted("caf\u{e9} \u{65e5}".as_bytes()), "\"caf\u{e9} \u{65e5}\"");
        assert_eq!(quoted(b"\x1b[31m \"a\\\" \t\r\x7f"), r#""\0x1b[31m \"a\\\" \t\r\0x7f""#);
        assert_eq!(quoted("\u{9b}31m".as_bytes()), r#""\0xc2\0x9b31m""#);
        assert_eq!(quoted(b"a\xffb\xc3"), r#""a\0xffb\0xc3""#);
        for byte in 0..=255u8 {
            assert!(!quoted(&[byte]).chars().any(char::is_control), "{byte}");
        }
    }

    #[test]
    fn the_zero_limit_is_none() {
        assert_eq!(limit(0), None);
        assert_eq!(limit(5), Some(Duration::from_millis(5)));
        assert_eq!(limit(u32::MAX), None);
    }
}
