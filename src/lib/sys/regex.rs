//! POSIX extended regular expressions, by the C library: the one grammar that users of the suite know.
//!
//! Nothing in the suite calls setlocale, so `.` is one byte and letters are ASCII (spec/events-and-fdholding.md 2.5).

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use super::Errno;

/// A compiled expression: always initialised, and in a box that is never opened, because POSIX does not say that a
/// `regex_t` may be moved.
pub struct Regex(Box<MaybeUninit<libc::regex_t>>);

/// Why an expression does not compile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// EINVAL, or ENOMEM when the expression asks for too much.
    pub errno: Errno,
    /// The C library's words for it.
    pub reason: Vec<u8>,
}

impl Regex {
    /// Compiles an expression. The empty one matches everything; one with a NUL in it is invalid.
    pub fn compile(pattern: &[u8]) -> Result<Regex, Invalid> {
        let pattern = CString::new(if pattern.is_empty() { b".*" } else { pattern })
            .map_err(|_| Invalid { errno: Errno::EINVAL, reason: b"NUL byte".to_vec() })?;
        let mut regex = Box::new(MaybeUninit::<libc::regex_t>::uninit());
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: the pointer leads to room for one regex_t that regcomp is to fill, at the address where it stays.
        let code = unsafe { libc::regcomp(regex.as_mut_ptr(), pattern.as_ptr(), flags) };
        if code == 0 { Ok(Regex(regex)) } else { Err(invalid(code, regex.as_ptr())) }
    }

    /// Whether the text, up to its first NUL or its end, contains a match.
    ///
    /// The C library wants a NUL at the end: a text that brings its own is not copied.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.matches(text, 0)
    }

    /// As [`Regex::is_match`], for a text whose beginning was lost: `^` does not match there.
    pub fn is_match_in_rest(&self, text: &[u8]) -> bool {
        self.matches(text, libc::REG_NOTBOL)
    }

    fn matches(&self, text: &[u8], flags: libc::c_int) -> bool {
        let text: Cow<'_, CStr> = match CStr::from_bytes_until_nul(text) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(CString::new(text).unwrap_or_default()),
        };
        let (none, nowhere) = (0, std::ptr::null_mut());
        // SAFETY: a compiled regex_t, a C string, and no array of matches as REG_NOSUB allows.
        unsafe { libc::regexec(self.0.as_ptr(), text.as_ptr(), none, nowhere, flags) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp, freed once.
        unsafe { libc::regfree(self.0.as_mut_ptr()) }
    }
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Regex")
    }
}

fn invalid(code: libc::c_int, regex: *const libc::regex_t) -> Invalid {
    let mut reason = vec![0; 128];
    // SAFETY: regerror writes at most the given length, NUL included; regex is the one that regcomp refused.
    unsafe { libc::regerror(code, regex, reason.as_mut_ptr().cast(), reason.len()) };
    reason.truncate(reason.iter().position(|&b| b == 0).unwrap_or(0));
    Invalid { errno: if code == libc::REG_ESPACE { Errno::ENOMEM } else { Errno::EINVAL }, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_extended_unanchored_and_byte_wise() {
        for (pattern, text, want) in [
            (&b"^(u|d){2}$"[..], &b"ud"[..], true),
            (b"^(u|d){2}$", b"uud", false),
            (b"b", b"abc", true),
            (b"", b"", true),
            (b"", b"x", true),
            (b"^a.b$", b"a\xffb", true),
            (b"^a..b$", b"a\xc3\xa9b", true),
            (b"c", b"ab\0c", false),
            (b"ab$", b"ab\0c", true),
        ] {
            let regex = Regex::compile(pattern).unwrap();
            assert_eq!(regex.is_match(text), want, "{}", pattern.escape_ascii());
        }
    }

    #[test]
    fn the_rest_of_a_text_has_no_beginning() {
        let regex = Regex::compile(b"^a").unwrap();
        assert!(regex.is_match(b"ab"));
        assert!(!regex.is_match_in_rest(b"ab"));
    }

    #[test]
    fn an_invalid_expression_comes_with_a_reason() {
        for pattern in [&b"("[..], b"[", b"a{2,1}", b"a\0b"] {
            let invalid = Regex::compile(pattern).unwrap_err();
            assert_eq!(invalid.errno, Errno::EINVAL);
            assert!(!invalid.reason.is_empty());
        }
    }
}
