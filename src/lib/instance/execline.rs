//! Scripts in execline's language, as s6 2.15.1 writes them: where its interpreter is installed, a generated service
//! directory is the original's to the letter (spec/local-services-and-instances.md 8, 9). Elsewhere the makers write
//! scripts for `/bin/sh`.

use crate::sys::exec;

/// A script under construction: one command, with its chain, per line.
#[derive(Debug)]
pub struct Script(Vec<u8>);

impl Script {
    /// An empty script for `execlineb` with this option; `None` if it is not in PATH. The other programs of execline
    /// are where it finds them, which need not be in PATH.
    pub fn begin(option: &str) -> Option<Script> {
        let interpreter = exec::find(c"execlineb")?;
        let mut script = Script(b"#!".to_vec());
        script.raw(interpreter.as_bytes()).raw(b" ").raw(option.as_bytes()).raw(b"\n");
        Some(script)
    }

    /// A line as it is.
    pub fn line(&mut self, text: &str) -> &mut Self {
        self.raw(text.as_bytes()).raw(b"\n")
    }

    /// A line: `text` as it is, then a word in quotes.
    pub fn line_with(&mut self, text: &str, word: &[u8]) -> &mut Self {
        self.raw(text.as_bytes()).raw(b" ").quoted(word).raw(b"\n")
    }

    /// Text as it is, without an end of line.
    pub fn raw(&mut self, text: &[u8]) -> &mut Self {
        self.0.extend_from_slice(text);
        self
    }

    /// A word in double quotes, with these and backslashes escaped.
    pub fn quoted(&mut self, word: &[u8]) -> &mut Self {
        self.0.push(b'"');
        for &byte in word {
            if byte == b'"' || byte == b'\\' {
                self.0.push(b'\\');
            }
            self.0.push(byte);
        }
        self.0.push(b'"');
        self
    }

    /// A word as it is if every reader takes it for one word, else in quotes.
    pub fn word(&mut self, word: &[u8]) -> &mut Self {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"_-./,:+@%^=".contains(b);
        if !word.is_empty() && word.iter().all(plain) { self.raw(word) } else { self.quoted(word) }
    }

    /// The finished script.
    pub fn text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_word_survives_execlineb(word in prop::collection::vec(1u8.., 0..30)) {
            let Some(mut script) = Script::begin("-P") else { return Ok(()) };
            script.raw(b"printf %s ").word(&word).raw(b"\n");
            let text = script.text();
            let mut lines = text.splitn(2, |&b| b == b'\n');
            let interpreter = String::from_utf8(lines.next().unwrap()[2..].to_vec()).unwrap();
            let command = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(lines.next().unwrap().to_vec());
            let mut words = interpreter.split(' ');
            let output = std::process::Command::new(words.next().unwrap()).arg("-Pc").arg(command).output().unwrap();
            prop_assert_eq!(output.stdout, word);
        }
    }
}
