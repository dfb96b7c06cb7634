//! Command lines: the option grammars of the suite, over lexopt.
//!
//! * classic: one-letter options, clustered (`-ud`), an argument attached or in the next word, whatever that is;
//!   any `--word` is wrong usage.
//! * long: also `--name` and `--name=value`, never `--name value`; a one-letter option whose argument is missing, or
//!   is exactly `--`, is taken as not given.
//! * gnu: only `--name`, `--name=value` and `--name value`, for what stands in for a program that takes all of them.
//!
//! In all of them, options end at the first other word, at a lone `-`, or after `--`; nothing is ever permuted
//! (spec/supervision.md 0, spec/events-and-fdholding.md 0).

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use crate::error::{Die, Exec};
use crate::sys::cptr::{self, CPtr};
use crate::sys::env;
use crate::{die, text, warn};

/// The words of a command line, as the kernel gave them.
#[derive(Clone, Copy)]
pub struct Args(&'static [CPtr<'static>]);

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Args {
    /// From an argv with its end mark; the first word is the program's name.
    pub fn new(argv: &'static [CPtr<'static>]) -> Self {
        Args(argv)
    }

    /// Number of words.
    pub fn len(self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is no word.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One word.
    pub fn get(self, index: usize) -> Option<&'static CStr> {
        self.0.get(index)?.get()
    }

    /// The words.
    pub fn iter(self) -> impl Iterator<Item = &'static CStr> + Clone {
        self.0.iter().map_while(|p| p.get())
    }

    /// The words from `index` on.
    pub fn from(self, index: usize) -> Args {
        Args(&self.0[index.min(self.len())..])
    }

    /// The words with their end mark, as exec and spawn take them.
    pub fn list(self) -> &'static [CPtr<'static>] {
        self.0
    }

    /// The words after the program's name, for programs without options.
    pub fn operands(self) -> Args {
        self.from(1)
    }
}

/// The argument of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(OsString);

impl Value {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_vec()
    }

    /// As a C string. An argument has no NUL in it.
    pub fn into_cstring(self) -> std::ffi::CString {
        std::ffi::CString::new(self.0.into_vec()).unwrap_or_default()
    }

    /// A 32-bit unsigned decimal number (spec/supervision.md 0); anything else is wrong usage.
    pub fn u32(&self) -> Result<u32, Die> {
        text::parse_u32(self.bytes()).ok_or_else(Die::usage)
    }

    /// A 64-bit unsigned decimal number; anything else is wrong usage.
    pub fn u64(&self) -> Result<u64, Die> {
        text::parse_u64(self.bytes()).ok_or_else(Die::usage)
    }

    /// A time limit in milliseconds; 0 is none.
    pub fn limit(&self) -> Result<Option<Duration>, Die> {
        Ok(text::limit(self.u32()?))
    }
}

/// A long option: its name and the letter it stands for. Whether it takes a value follows from the letter. One that has
/// no letter for users has one that is not ASCII, which they cannot give.
pub type Long = (&'static str, char);

/// The options of a command line, one after the other, then its operands.
#[derive(Debug)]
pub struct Options {
    parser: lexopt::Parser,
    args: Args,
    takes_value: &'static str,
    long: Option<&'static [Long]>,
    /// Whether the value of a long option may be the next word.
    spaced: bool,
    /// Whether a second dash is a letter like any other.
    dashes: bool,
    operands: Option<usize>,
}

impl Options {
    /// The classic grammar. `takes_value`: the letters with an argument.
    pub fn classic(args: Args, takes_value: &'static str) -> Self {
        let words = args.operands().iter().map(|a| OsString::from_vec(a.to_bytes().to_vec()));
        let mut parser = lexopt::Parser::from_args(words);
        parser.set_short_equals(false);
        Options { parser, args, takes_value, long: None, spaced: false, dashes: false, operands: None }
    }

    /// The classic grammar for a program that skips the letters it does not know: a second dash is one of them.
    pub fn lenient(args: Args, takes_value: &'static str) -> Self {
        Options { dashes: true, ..Self::classic(args, takes_value) }
    }

    /// The long grammar.
    pub fn long(args: Args, takes_value: &'static str, long: &'static [Long]) -> Self {
        Options { long: Some(long), ..Self::classic(args, takes_value) }
    }

    /// The gnu grammar. A name that is listed twice, with a letter that takes a value and with one that does not, takes
    /// one if it is attached.
    pub fn gnu(args: Args, takes_value: &'static str, long: &'static [Long]) -> Self {
        Options { spaced: true, ..Self::long(args, takes_value, long) }
    }

    /// The next option with its argument (empty if it takes none); `None` at the operands. A letter that the
    /// program does not know is for it to refuse, with [`Options::unknown`].
    #[expect(
        clippy::should_implement_trait,
        reason = "an Iterator of Results would need a ? and a Some around each use"
    )]
    pub fn next(&mut self) -> Result<Option<(char, Value)>, Die> {
        loop {
            if self.dashes {
                self.skip_dashes();
            }
            let before = self.remaining();
            match self.parser.next() {
                Ok(None) => {
                    self.operands = Some(self.args.len());
                    return Ok(None);
                }
                Ok(Some(lexopt::Arg::Value(_))) => {
                    self.operands = Some(self.args.len() - self.remaining().unwrap_or(0) - 1);
                    return Ok(None);
                }
                Ok(Some(lexopt::Arg::Short(letter))) => {
                    if self.spaced || (self.long.is_some() && !letter.is_ascii()) {
                        return Err(self.unknown(letter));
                    }
                    if let Some(value) = self.short_value(letter)? {
                        return Ok(Some((letter, value)));
                    }
                }
                Ok(Some(lexopt::Arg::Long(name))) => {
                    let name = name.to_owned();
                    return self.long_option(&name).map(Some);
                }
                Err(_) => return Err(Die::usage()),
            }
            debug_assert!(before != self.remaining() || before.is_none());
        }
    }

    /// Takes away the second dash, and all that follow it, of the next word; the word, if it is nothing but dashes.
    fn skip_dashes(&mut self) {
        while let Some(mut raw) = self.parser.try_raw_args()
            && let Some([b'-', b'-', letters @ ..]) = raw.peek().map(OsStr::as_bytes)
            && !letters.is_empty()
        {
            let word = letters.iter().position(|&b| b != b'-').map(|start| [b"-", &letters[start..]].concat());
            raw.next();
            let words: Vec<OsString> = word.map(OsString::from_vec).into_iter().chain(raw).collect();
            self.parser = lexopt::Parser::from_args(words);
            self.parser.set_short_equals(false);
        }
    }

    /// Words that are not parsed yet; `None` inside a cluster of letters.
    fn remaining(&mut self) -> Option<usize> {
        self.parser.try_raw_args().map(|raw| raw.as_slice().len())
    }

    /// The argument of a letter; `None` where the long grammar lets it pass as not given.
    fn short_value(&mut self, letter: char) -> Result<Option<Value>, Die> {
        if !self.takes_value.contains(letter) {
            return Ok(Some(Value(OsString::new())));
        }
        if self.long.is_none() {
            return self.parser.value().map(|v| Some(Value(v))).map_err(|_| Die::usage());
        }
        if let Some(attached) = self.parser.optional_value() {
            return Ok(Some(Value(attached)));
        }
        let mut rest = self.parser.raw_args().map_err(|_| Die::usage())?;
        match rest.peek() {
            Some(word) if word != "--" => Ok(rest.next().map(Value)),
            _ => Ok(None),
        }
    }

    fn long_option(&mut self, name: &str) -> Result<(char, Value), Die> {
        let Some(long) = self.long else { return Err(Die::usage()) };
        let attached = self.parser.optional_value();
        let mut found = long.iter().filter(|(known, _)| *known == name).map(|&(_, letter)| letter);
        let fits = |letter: &char| self.takes_value.contains(*letter) == attached.is_some();
        let letter = found.clone().find(fits).or(found.next());
        match (letter, attached) {
            (Some(letter), Some(value)) if self.takes_value.contains(letter) => Ok((letter, Value(value))),
            (Some(letter), None) if self.spaced && self.takes_value.contains(letter) => {
                self.parser.value().map(|v| (letter, Value(v))).map_err(|_| Die::usage())
            }
            (Some(letter), None) if !self.takes_value.contains(letter) => Ok((letter, Value(OsString::new()))),
            (Some(_), None) => Err(die!(100, "option --", name, " needs a value: --", name, "=VALUE")),
            (Some(_), Some(_)) => Err(die!(100, "option --", name, " takes no value")),
            (None, _) => Err(die!(100, "unrecognized option: --", name)),
        }
    }

    /// The error for a letter that the program does not know.
    pub fn unknown(&self, letter: char) -> Die {
        match self.long {
            None => Die::usage(),
            Some(_) => die!(100, "unrecognized option: -", String::from(letter)),
        }
    }

    /// The words after the options. To be called when [`Options::next`] has said `None`.
    pub fn operands(&self) -> Args {
        self.args.from(self.operands.unwrap_or(self.args.len()))
    }
}

/// The words of an execline block and what follows it; `None` if nothing ends it.
///
/// A block ends at an empty word. Each word in it is marked by one blank in front, which is taken away. A word without
/// the mark is taken as it is, unless EXECLINE_STRICT asks for a warning (1) or a refusal (more).
pub fn block(words: Args) -> Result<Option<(Vec<&'static CStr>, Args)>, Die> {
    let Some(length) = words.iter().position(CStr::is_empty) else { return Ok(None) };
    let strict = env::get("EXECLINE_STRICT").and_then(|value| text::parse_u32(value.to_bytes())).unwrap_or(0);
    let mut block = Vec::with_capacity(length);
    for word in words.iter().take(length) {
        let unmarked = word.to_bytes_with_nul().strip_prefix(b" ");
        match unmarked.and_then(|rest| CStr::from_bytes_with_nul(rest).ok()) {
            Some(rest) => block.push(rest),
            None if strict > 1 => return Err(die!(100, "unquoted argument in block: ", word)),
            None => {
                if strict == 1 {
                    warn!("unquoted argument in block: ", word);
                }
                block.push(word);
            }
        }
    }
    Ok(Some((block, words.from(length + 1))))
}

/// A command line put together word by word, for programs that become others.
#[derive(Debug, Default)]
pub struct CommandLine(Vec<CString>);

impl CommandLine {
    /// One that begins with this program's name.
    pub fn new(program: &CStr) -> Self {
        CommandLine(vec![program.to_owned()])
    }

    /// Adds a word. Bytes from a NUL on, which no argument of ours has, are lost.
    pub fn word(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        let word = word.as_ref().iter().copied().take_while(|&b| b != 0).collect::<Vec<u8>>();
        self.0.extend(CString::new(word));
        self
    }

    /// Adds some words of a command line as they are.
    pub fn words(&mut self, words: Args) -> &mut Self {
        self.0.extend(words.iter().map(CStr::to_owned));
        self
    }

    /// Adds an option if it is wanted.
    pub fn flag(&mut self, wanted: bool, option: &str) -> &mut Self {
        if wanted { self.word(option) } else { self }
    }

    /// Adds an option and its argument, if there is one.
    pub fn option(&mut self, option: &str, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            Some(value) => self.word(option).word(value),
            None => self,
        }
    }

    /// Adds an option and a number, if there is one.
    pub fn number(&mut self, option: &str, value: Option<impl Into<u64>>) -> &mut Self {
        self.option(option, value.map(|v| text::decimal(v).as_bytes().to_vec()))
    }

    /// Whether there is no word yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words with blanks between them, for messages.
    pub fn text(&self) -> Vec<u8> {
        self.0.iter().map(|word| word.to_bytes()).collect::<Vec<_>>().join(&b' ')
    }

    /// The program to become.
    pub fn exec(self) -> Exec {
        Exec::command(self.0)
    }
}

/// The words as a vector of pointers with an end mark, for a command line put together here.
pub fn argv<'a>(words: impl IntoIterator<Item = &'a CStr>) -> Vec<CPtr<'a>> {
    words.into_iter().map(CPtr::new).chain([cptr::CPtr::NULL]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Args {
        let list: Vec<CPtr<'static>> = std::iter::once(&"prog")
            .chain(words)
            .map(|w| CPtr::new(Box::leak(CString::new(*w).unwrap().into_boxed_c_str())))
            .chain([CPtr::NULL])
            .collect();
        Args::new(list.leak())
    }

    /// Parses to the end; the outcome as text: options, then operands after a bar.
    fn outcome(mut options: Options) -> String {
        let mut text = String::new();
        loop {
            match options.next() {
                Ok(Some((letter, value))) => {
                    text += &format!("{letter}{} ", String::from_utf8_lossy(value.bytes()));
                }
                Ok(None) => break,
                Err(die) => return format!("{text}error {}", die.code()),
            }
        }
        let rest: Vec<_> = options.operands().iter().map(|w| w.to_string_lossy().into_owned()).collect();
        format!("{text}| {}", rest.join(" "))
    }

    #[test]
    fn classic_options_follow_getopt() {
        let cases: &[(&[&str], &str)] = &[
            (&["-ab", "prog", "-x"], "a b | prog -x"),
            (&["-t5", "x"], "t5 | x"),
            (&["-t", "5", "x"], "t5 | x"),
            (&["-t", "-1"], "t-1 | "),
            (&["-t", "--", "x"], "t-- | x"),
            (&["-t=5"], "t=5 | "),
            (&["-at5"], "a t5 | "),
            (&["-a", "--", "-x"], "a | -x"),
            (&["p", "--", "q"], "| p -- q"),
            (&["-a", "-", "-b"], "a | - -b"),
            (&["--and"], "error 100"),
            (&["-t"], "error 100"),
            (&[], "| "),
        ];
        for (words, want) in cases {
            assert_eq!(outcome(Options::classic(args(words), "t")), *want, "{words:?}");
        }
    }

    #[test]
    fn lenient_options_have_dashes_among_their_letters() {
        let cases: &[(&[&str], &str)] = &[
            (&["--xt5", "--", "--y"], "x t5 | --y"),
            (&["--t", "--5", "---", "--x=", "-", "--y"], "t--5 x = | - --y"),
            (&["p", "--y"], "| p --y"),
            (&["---"], "| "),
            (&["--xt"], "x error 100"),
        ];
        for (words, want) in cases {
            assert_eq!(outcome(Options::lenient(args(words), "t")), *want, "{words:?}");
        }
    }

    #[test]
    fn a_block_ends_at_an_empty_word_and_loses_one_blank_per_word() {
        let (words, rest) = block(args(&[" a", "b", "  c", " ", "", "prog", ""]).operands()).unwrap().unwrap();
        assert_eq!(words, [c"a", c"b", c" c", c""]);
        assert_eq!(rest.iter().collect::<Vec<_>>(), [c"prog", c""]);
        assert!(block(args(&[" a", " "]).operands()).unwrap().is_none());
        let (words, rest) = block(args(&[""]).operands()).unwrap().unwrap();
        assert!(words.is_empty() && rest.is_empty());
    }

    #[test]
    fn gnu_options_take_the_next_word_unless_the_value_is_optional() {
        const LONG: &[Long] = &[("and", 'a'), ("timeout", 't'), ("pid", 'p'), ("pid", 'P')];
        let cases: &[(&[&str], &str)] = &[
            (&["--timeout", "5", "--and", "x"], "t5 a | x"),
            (&["--timeout=5", "--timeout", "--and"], "t5 t--and | "),
            (&["--pid", "5"], "p | 5"),
            (&["--pid=5", "--pid=", "x"], "P5 P | x"),
            (&["--timeout"], "error 100"),
            (&["--and=x"], "error 100"),
            (&["--and", "-a"], "a error 100"),
        ];
        for (words, want) in cases {
            assert_eq!(outcome(Options::gnu(args(words), "tP", LONG)), *want, "{words:?}");
        }
    }

    #[test]
    fn long_options_need_an_attached_value() {
        const LONG: &[Long] = &[("and", 'a'), ("timeout", 't'), ("only", '\u{100}')];
        let cases: &[(&[&str], &str)] = &[
            (&["--and", "--timeout=5", "x"], "a t5 | x"),
            (&["--timeout", "5"], "error 100"),
            (&["--and=x"], "error 100"),
            (&["--bogus"], "error 100"),
            (&["--timeout="], "t | "),
            (&["-a", "-t"], "a | "),
            (&["-t", "--", "x"], "| x"),
            (&["-t", "7", "--", "-x"], "t7 | -x"),
            (&["-at7", "x"], "a t7 | x"),
            (&["--only", "x"], "\u{100} | x"),
            (&["-\u{100}", "x"], "error 100"),
        ];
        for (words, want) in cases {
            assert_eq!(outcome(Options::long(args(words), "t", LONG)), *want, "{words:?}");
        }
    }
}
