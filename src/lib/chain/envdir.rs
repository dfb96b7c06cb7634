//! s6-envdir, and environment directories: a file for each variable (spec/logging-and-chainloaders.md 10). Access
//! rules read them too, in the default style.

use std::ffi::{CStr, CString};

use nix::fcntl::OFlag;

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exec, Exit, Program, SYSTEM};
use crate::sys::env::Env;
use crate::sys::{Errno, dir, fd};

/// Changes the environment as a directory says, then executes the rest of its command line.
pub const PROGRAM: Program =
    Program { name: "s6-envdir", usage: "s6-envdir [ -I | -i ] [ -n ] [ -f ] [ -L ] [ -c nullchar ] dir prog...", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut style = Style::DEFAULT;
    let mut may_be_missing = false;
    let mut options = Options::classic(args, "c");
    while let Some((letter, value)) = options.next()? {
        match letter {
            'I' => may_be_missing = true,
            'i' => may_be_missing = false,
            'n' => style.keep_end = true,
            'f' => style.whole_file = true,
            'L' => style.any_length = true,
            'c' => {
                style.nul = *value.bytes().first().ok_or_else(|| die!(SYSTEM, "the argument of -c is empty"))?;
            }
            letter => return Err(options.unknown(letter)),
        }
    }
    let (Some(directory), program) = (options.operands().get(0), options.operands().from(1)) else {
        return Err(Die::usage());
    };
    if program.is_empty() {
        return Err(Die::usage());
    }
    let mut env = Env::inherited();
    let read = for_each(directory, style, |name, value| {
        match value {
            Some(value) => env.set(name, &value),
            None => env.unset(name),
        };
    });
    match read {
        Err(failure) if may_be_missing && failure.is_missing(directory) => {}
        Err(Failure { path, errno }) => return Err(die!(SYSTEM, errno => "unable to read ", path)),
        Ok(()) => {}
    }
    Ok(Exec::operands(program).with_env(env).into())
}

/// Bytes of a file that count, unless it may be of any length.
const SHORT: usize = 4095;

/// How the contents of a file become a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// The whole file less one final newline, not only its first line without trailing blanks (`-f`).
    pub whole_file: bool,
    /// Nothing is cut from the end, neither blanks nor, of a whole file, its final newline (`-n`).
    pub keep_end: bool,
    /// Also what comes after the first 4095 bytes (`-L`).
    pub any_length: bool,
    /// What takes the place of a NUL byte, which a variable cannot hold (`-c`).
    pub nul: u8,
}

impl Style {
    /// That of s6-envdir without options.
    pub const DEFAULT: Style = Style { whole_file: false, keep_end: false, any_length: false, nul: b'\n' };

    /// The value that a file stands for; `None`, from an empty file, removes the variable.
    fn value(self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            return None;
        }
        let length = match (self.whole_file, self.keep_end) {
            (true, true) => bytes.len(),
            (true, false) => bytes.strip_suffix(b"\n").unwrap_or(&bytes).len(),
            (false, keep_end) => {
                let line = bytes.split(|&b| b == b'\n').next().unwrap_or(b"");
                let last = line.iter().rposition(|b| !b" \t\r".contains(b));
                if keep_end { line.len() } else { last.map_or(0, |i| i + 1) }
            }
        };
        bytes.truncate(length);
        bytes.iter_mut().filter(|b| **b == 0).for_each(|b| *b = self.nul);
        Some(bytes)
    }
}

/// What could not be read.
#[derive(PartialEq, Eq, Debug)]
pub struct Failure {
    /// The directory, or a file in it.
    pub path: CString,
    /// Why.
    pub errno: Errno,
}

impl Failure {
    /// Whether it is `directory` itself that does not exist.
    pub fn is_missing(&self, directory: &CStr) -> bool {
        self.errno == Errno::ENOENT && self.path.as_c_str() == directory
    }
}

/// Calls `each` with every variable that the directory names and its value, or `None` if it is to be removed, in
/// directory order. Names that begin with a dot or contain `=` are skipped. Whatever cannot be read as a file, a
/// subdirectory too, is a failure.
pub fn for_each(directory: &CStr, style: Style, mut each: impl FnMut(&[u8], Option<Vec<u8>>)) -> Result<(), Failure> {
    let mut failed = directory.to_owned();
    dir::for_each(directory, |name| {
        if name.to_bytes().starts_with(b".") || name.to_bytes().contains(&b'=') {
            return Ok(());
        }
        let path = crate::events::fifodir::join(directory, name);
        let bytes = read(&path, style.any_length).inspect_err(|_| failed = path)?;
        each(name.to_bytes(), style.value(bytes));
        Ok(())
    })
    .map_err(|errno| Failure { path: failed, errno })
}

fn read(path: &CStr, any_length: bool) -> Result<Vec<u8>, Errno> {
    if any_length {
        fd::read_to_end(fd::open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?)
    } else {
        fd::read_file(path, &mut [0; SHORT]).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_decides_what_counts() {
        let style = |whole_file, keep_end| Style { whole_file, keep_end, ..Style::DEFAULT };
        let cases: &[(&[u8], Style, &[u8])] = &[
            (b"one", Style::DEFAULT, b"one"),
            (b"one\ntwo\n", Style::DEFAULT, b"one"),
            (b"  a b \t\r \n", Style::DEFAULT, b"  a b"),
            (b"\n", Style::DEFAULT, b""),
            (b"   \nx", Style::DEFAULT, b""),
            (b"a\0b\0", Style::DEFAULT, b"a\nb\n"),
            (b"a \nb", style(false, true), b"a "),
            (b"a \nb\n\n", style(true, false), b"a \nb\n"),
            (b"a \nb\n\n", style(true, true), b"a \nb\n\n"),
            (b"a\0b", Style { nul: b'_', ..Style::DEFAULT }, b"a_b"),
        ];
        for (bytes, style, want) in cases {
            assert_eq!(style.value(bytes.to_vec()).as_deref(), Some(*want), "{:?} {style:?}", bytes.escape_ascii());
        }
        assert_eq!(Style::DEFAULT.value(Vec::new()), None);
    }

    #[test]
    fn only_the_first_bytes_count_unless_any_length_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = CString::new(dir.path().to_str().unwrap()).unwrap();
        std::fs::write(dir.path().join("LONG"), [b'x'; 5000]).unwrap();
        std::fs::write(dir.path().join(".hidden"), "y").unwrap();
        std::fs::write(dir.path().join("a=b"), "y").unwrap();
        for (any_length, want) in [(false, SHORT), (true, 5000)] {
            let mut seen = Vec::new();
            let style = Style { any_length, ..Style::DEFAULT };
            for_each(&path, style, |name, value| seen.push((name.to_vec(), value.unwrap().len()))).unwrap();
            assert_eq!(seen, [(b"LONG".to_vec(), want)]);
        }
    }

    #[test]
    fn what_is_no_file_is_a_failure_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("SUB")).unwrap();
        let path = CString::new(dir.path().to_str().unwrap()).unwrap();
        for any_length in [false, true] {
            let style = Style { any_length, ..Style::DEFAULT };
            let failure = for_each(&path, style, |_, _| ()).unwrap_err();
            assert!(failure.path.to_bytes().ends_with(b"/SUB"));
            assert_eq!(failure.errno, Errno::EISDIR);
        }
        let missing = for_each(c"/nonexistent", Style::DEFAULT, |_, _| ()).unwrap_err();
        assert_eq!(missing, Failure { path: c"/nonexistent".to_owned(), errno: Errno::ENOENT });
    }
}
