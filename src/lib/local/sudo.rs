//! s6-sudo, and what its two ends say to each other (spec/local-services-and-instances.md 5.1, 5.4).
//!
//! The server greets; the client sends one message with its three standard descriptors, which is a [`Request`]; the
//! server answers one byte, 0 or an errno, when the program has started or could not be, and the four bytes of its
//! wait status when it has ended.

use std::ffi::CStr;

use crate::cli::{Args, CommandLine, Options};
use crate::error::{Die, Exit, Program};
use crate::sys::Errno;

/// Runs a program that a server chose, with this process's standard descriptors.
pub const PROGRAM: Program = Program {
    name: "s6-sudo",
    usage: "s6-sudo [ -q | -Q | -v ] [ -p bindpath ] [ -l localname ] [ -e ] [ -t timeout ] [ -T timeoutrun ] \
            path [ args... ]",
    run,
};

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "pltT");
    let (mut verbosity, mut bind_path, mut local_name) = (1u32, None, None);
    let (mut no_environment, mut limit, mut run_limit) = (false, 0, 0);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'q' => verbosity = verbosity.saturating_sub(1),
            'Q' => verbosity = 1,
            'v' => verbosity = verbosity.saturating_add(1),
            'p' => bind_path = Some(value.into_bytes()),
            'l' => local_name = Some(value.into_bytes()),
            'e' => no_environment = true,
            't' => limit = value.u32()?,
            'T' => run_limit = value.u32()?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let path = operands.get(0).ok_or_else(Die::usage)?;
    let mut line = CommandLine::new(c"s6-ipcclient");
    line.flag(verbosity == 0, "-Q");
    for _ in 1..verbosity.min(4) {
        line.word("-v");
    }
    line.option("-p", bind_path).option("-l", local_name).word("--").word(path.to_bytes());
    line.word("s6-sudoc").flag(no_environment, "-e").number("-t", Some(limit)).number("-T", Some(run_limit)).word("--");
    line.words(operands.from(1));
    Ok(line.exec().into())
}

/// What the server says first.
pub const SERVER_BANNER: &[u8; 15] = b"s6-sudo b v1.0\n";
/// How the client's message begins.
const CLIENT_BANNER: &[u8; 15] = b"s6-sudo a v1.0\n";
/// Bytes of a message before the strings: the banner and four numbers.
const HEADER: usize = CLIENT_BANNER.len() + 16;
/// The most arguments, and the most variables.
const MOST_STRINGS: u32 = 131_072;
/// Descriptors in the client's message: its standard three.
pub const DESCRIPTORS: usize = 3;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The end of the command line.
    pub args: Vec<&'a CStr>,
    /// Its environment, `NAME=value` each.
    pub env: Vec<&'a CStr>,
}

/// Why a message is no request.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The server's exit code.
    pub code: u8,
    /// What the client is told; nothing in most cases, so that it sees the end of the connection.
    pub answer: Option<Errno>,
    /// For the server's log.
    pub reason: &'static str,
}

const fn invalid(reason: &'static str) -> Refusal {
    Refusal { code: crate::error::USAGE, answer: None, reason }
}

impl<'a> Request<'a> {
    /// From the body of the client's message. `needs_args`: the server has no command line of its own.
    pub fn parse(body: &'a [u8], needs_args: bool) -> Result<Self, Refusal> {
        let (header, strings) = body.split_first_chunk::<HEADER>().ok_or(invalid("message too short"))?;
        let (banner, numbers) = header.split_at(CLIENT_BANNER.len());
        if banner != CLIENT_BANNER {
            return Err(invalid("wrong client banner"));
        }
        let number = |i: usize| numbers[4 * i..][..4].iter().fold(0u32, |sum, &b| sum << 8 | u32::from(b));
        let (args, env, args_length, env_length) = (number(0), number(1), number(2), number(3));
        if u64::from(args_length) + u64::from(env_length) != strings.len() as u64 {
            return Err(invalid("lengths do not add up"));
        }
        if args > MOST_STRINGS || env > MOST_STRINGS {
            return Err(invalid("too many arguments or variables"));
        }
        if needs_args && args == 0 {
            return Err(invalid("no program to run"));
        }
        let (args_text, env_text) = strings.split_at(args_length as usize);
        let args = split(args_text, args)?;
        let env = split(env_text, env)?;
        if !env.iter().all(|variable| variable.to_bytes().contains(&b'=')) {
            return Err(Refusal { answer: Some(Errno::EINVAL), ..invalid("a variable without a value") });
        }
        Ok(Request { args, env })
    }

    /// The body of a message.
    pub fn encode(&self) -> Vec<u8> {
        let length = |strings: &[&CStr]| strings.iter().map(|s| s.count_bytes() + 1).sum::<usize>();
        let mut body = CLIENT_BANNER.to_vec();
        for number in [self.args.len(), self.env.len(), length(&self.args), length(&self.env)] {
            // What does not fit is far more than a message can have, which is checked before it is sent.
            body.extend((number as u32).to_be_bytes());
        }
        for string in self.args.iter().chain(&self.env) {
            body.extend_from_slice(string.to_bytes_with_nul());
        }
        body
    }
}

/// The first `count` strings of a text; what follows them is of no interest.
fn split(mut text: &[u8], count: u32) -> Result<Vec<&CStr>, Refusal> {
    let mut strings = Vec::new();
    for _ in 0..count {
        let string = CStr::from_bytes_until_nul(text).map_err(|_| Refusal {
            code: crate::error::SYSTEM,
            answer: Some(Errno::EINVAL),
            reason: "fewer arguments or variables than announced",
        })?;
        text = &text[string.count_bytes() + 1..];
        strings.push(string);
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::CString;

    fn strings(text: &'static str) -> impl Strategy<Value = Vec<CString>> {
        prop::collection::vec(text.prop_map(|s| CString::new(s).unwrap()), 0..8)
    }

    fn encode(args: &[CString], env: &[CString]) -> Vec<u8> {
        let list = |strings: &[CString]| strings.iter().map(|s| s.as_c_str().to_owned()).collect::<Vec<_>>();
        let (args, env) = (list(args), list(env));
        Request { args: args.iter().map(|s| s.as_c_str()).collect(), env: env.iter().map(|s| s.as_c_str()).collect() }
            .encode()
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let body = encode(&[c"one".into(), c"".into()], &[c"A=b".into()]);
        assert_eq!(body, b"s6-sudo a v1.0\n\0\0\0\x02\0\0\0\x01\0\0\0\x05\0\0\0\x04one\0\0A=b\0");
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        let good = encode(&[c"x".into()], &[]);
        let with = |at: usize, byte: u8| {
            let mut body = good.clone();
            body[at] = byte;
            body
        };
        let code = |body: &[u8]| Request::parse(body, true).map_err(|r| (r.code, r.answer)).err();
        assert_eq!(code(&good), None);
        assert_eq!(code(&good[..30]), Some((100, None)));
        assert_eq!(code(&with(8, b'b')), Some((100, None)), "banner");
        assert_eq!(code(&with(26, 3)), Some((100, None)), "lengths");
        assert_eq!(code(&with(15, 1)), Some((100, None)), "count");
        assert_eq!(code(&with(18, 3)), Some((111, Some(Errno::EINVAL))), "too few strings");
        assert_eq!(code(&encode(&[], &[])), Some((100, None)), "nothing to run");
        assert_eq!(code(&encode(&[c"x".into()], &[c"NOVALUE".into()])), Some((100, Some(Errno::EINVAL))));
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(args in strings("[a-z =]{0,9}"), env in strings("[A-Z]{0,3}=[a-z=]{0,5}")) {
            let body = encode(&args, &env);
            let request = Request::parse(&body, false).unwrap();
            prop_assert_eq!(request.args, args.iter().map(|s| s.as_c_str()).collect::<Vec<_>>());
            prop_assert_eq!(request.env, env.iter().map(|s| s.as_c_str()).collect::<Vec<_>>());
        }

        /// Any bytes are a request or are refused; every string of a request comes from the message.
        #[test]
        fn nonsense_is_refused(
            args in strings("[a-z]{0,4}"), env in strings("[A-Z]=[a-z]{0,4}"),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length in any::<prop::sample::Index>(),
        ) {
            let mut body = encode(&args, &env);
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            body.truncate(length.index(body.len() + 1));
            if let Ok(request) = Request::parse(&body, false) {
                let strings = request.args.iter().chain(&request.env);
                prop_assert!(strings.map(|s| s.count_bytes() + 1).sum::<usize>() + HEADER <= body.len());
            }
        }
    }
}
