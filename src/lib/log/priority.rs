//! The `<code>` that begins a syslog message, by name (spec/logging-and-chainloaders.md 5).

use crate::text::parse_u32;

const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

const FACILITIES: [&str; 25] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", UNKNOWN,
    UNKNOWN, UNKNOWN, UNKNOWN, "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7", "mark",
];

const UNKNOWN: &str = "unknown";

/// Writes `message` with its code, if it begins with one, replaced by `FACILITY.PRIORITY: `.
pub fn decode(message: &[u8], out: &mut Vec<u8>) {
    let mut text = message;
    if let Some((code, rest)) = split(message) {
        let facility = FACILITIES.get((code as usize & 0x3f8) >> 3).unwrap_or(&UNKNOWN);
        for piece in [facility, ".", PRIORITIES[code as usize & 7], ": "] {
            out.extend_from_slice(piece.as_bytes());
        }
        text = rest;
    }
    out.extend_from_slice(text);
}

/// The code and what follows it.
fn split(message: &[u8]) -> Option<(u32, &[u8])> {
    let text = message.strip_prefix(b"<")?;
    let end = text.iter().position(|b| !b.is_ascii_digit())?;
    let rest = text[end..].strip_prefix(b">")?;
    Some((parse_u32(&text[..end])?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_names_and_anything_else_is_text() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"<13>hello", b"user.notice: hello"),
            (b"<0>k", b"kern.emerg: k"),
            (b"<12>", b"user.warn: "),
            (b"<013> o", b"user.notice:  o"),
            (b"<96>a", b"unknown.emerg: a"),
            (b"<191>z", b"local7.debug: z"),
            (b"<192>m", b"mark.emerg: m"),
            (b"<200>m", b"unknown.emerg: m"),
            (b"<1024>m", b"kern.emerg: m"),
            (b"<>e", b"<>e"),
            (b"<1", b"<1"),
            (b"<", b"<"),
            (b"", b""),
            (b"<-1>n", b"<-1>n"),
            (b"<4294967296>m", b"<4294967296>m"),
        ];
        for (message, want) in cases {
            let mut out = Vec::new();
            decode(message, &mut out);
            assert_eq!(out, *want, "{}", message.escape_ascii());
        }
    }
}
