//! The pid file: what it says, what it said before, and its removal.

use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, lstat, stat};

use crate::sys::fd::{self, open_file};
use crate::sys::{Errno, Pid};
use crate::warn;

/// Bytes of the file that are looked at.
const MOST: usize = 127;

/// What a pid file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// There is none, or only the old one that could not be removed.
    Missing,
    /// No number: empty, or something else.
    Invalid,
    /// It cannot be read.
    Unreadable(Errno),
    /// A number that a daemon may have.
    Number(Pid),
}

/// The number in the text of a pid file (spec/forking-daemons.md 3, rule 6): decimal, 2 to 2^31-1, blanks before it
/// and anything after its line or after a blank ignored.
fn parse(text: &[u8]) -> Option<Pid> {
    let word = text.trim_ascii_start().split(u8::is_ascii_whitespace).next()?;
    let number = crate::text::parse_u32(word)?;
    i32::try_from(number).ok().filter(|&n| n >= 2).map(Pid::from_raw)
}

/// By what a file is known to be the same, unchanged: device, inode, size, time of change, beginning.
#[derive(PartialEq, Eq, Debug)]
pub struct Fingerprint {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    text: Vec<u8>,
}

/// The file as it is now. Never waits, whatever is in its place, and opens nothing but a regular file: a daemon that
/// writes into a fifo would be killed when its reader leaves at once. EINVAL for all else.
fn read(path: &CStr) -> Result<Fingerprint, Errno> {
    if !is_regular(&stat(path)?) {
        return Err(Errno::EINVAL);
    }
    let file = File::from(open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, 0)?);
    let about = file.metadata().map_err(|_| Errno::EIO)?;
    let mut text = vec![0; MOST];
    let mut filled = 0;
    while filled < MOST {
        match fd::read(&file, &mut text[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    text.truncate(filled);
    Ok(Fingerprint {
        place: (about.dev(), about.ino()),
        size: about.size(),
        modified: (about.mtime(), about.mtime_nsec()),
        text,
    })
}

/// What the file says now. One that is still as it was before the start counts as missing.
pub fn content(path: &CStr, old: Option<&Fingerprint>) -> Content {
    match read(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Content::Missing,
        Err(Errno::EINVAL) => Content::Invalid,
        Err(errno) => Content::Unreadable(errno),
        Ok(now) if old == Some(&now) => Content::Missing,
        Ok(now) => parse(&now.text).map_or(Content::Invalid, Content::Number),
    }
}

/// Removes an old pid file before a start. What is no regular file is left alone, with a warning. If something is
/// still there it is remembered by the returned fingerprint.
pub fn remove_old(path: &CStr) -> Option<Fingerprint> {
    match lstat(path) {
        Ok(file) if is_regular(&file) => match nix::unistd::unlink(path) {
            Ok(()) | Err(Errno::ENOENT) => return None,
            Err(errno) => warn!(errno => "unable to remove the old pid file ", path),
        },
        Ok(_) => warn!("not removing the old pid file ", path, ": not a regular file"),
        Err(_) => return None,
    }
    read(path).ok()
}

/// Removes the pid file of a daemon that failed, if it is a regular file.
pub fn remove(path: &CStr) {
    if lstat(path).is_ok_and(|file| is_regular(&file)) {
        let _ = nix::unistd::unlink(path);
    }
}

fn is_regular(file: &FileStat) -> bool {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::CString;
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Place(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("pid")
        }

        fn path(&self) -> CString {
            CString::new(self.file().as_os_str().as_bytes()).unwrap()
        }
    }

    #[test]
    fn a_number_needs_no_newline_and_may_have_blanks_around() {
        for (text, want) in [
            ("1234\n", Some(1234)),
            ("1234", Some(1234)),
            ("  \t1234 started by me\n99\n", Some(1234)),
            ("1234\r\n", Some(1234)),
            ("2147483647", Some(i32::MAX)),
            ("2147483648", None),
            ("99999999999999999999999", None),
            ("1", None),
            ("0", None),
            ("-5", None),
            ("+5", None),
            ("12x", None),
            ("junk", None),
            ("", None),
            (" \n", None),
        ] {
            assert_eq!(parse(text.as_bytes()).map(Pid::as_raw), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_understood_or_refused(text in proptest::collection::vec(any::<u8>(), 0..MOST), pid in 2..i32::MAX) {
            prop_assert!(parse(&text).is_none_or(|p| p.as_raw() >= 2));
            prop_assert_eq!(parse(format!("{pid}\n").as_bytes()), Some(Pid::from_raw(pid)));
        }
    }

    #[test]
    fn an_old_file_is_removed() {
        let place = Place::new();
        std::fs::write(place.file(), "1234\n").unwrap();
        assert_eq!(remove_old(&place.path()), None);
        assert_eq!(content(&place.path(), None), Content::Missing);
        assert_eq!(remove_old(&place.path()), None);
    }

    #[test]
    fn what_is_no_regular_file_stays_and_counts_only_once_it_has_changed() {
        let place = Place::new();
        let target = place.0.path().join("target");
        std::fs::write(&target, "1234\n").unwrap();
        std::os::unix::fs::symlink(&target, place.file()).unwrap();
        let old = remove_old(&place.path());
        assert!(old.is_some() && place.file().exists());
        assert_eq!(content(&place.path(), old.as_ref()), Content::Missing);
        std::fs::write(&target, "12345\n").unwrap();
        assert_eq!(content(&place.path(), old.as_ref()), Content::Number(Pid::from_raw(12345)));
        remove(&place.path());
        assert!(place.file().exists());
    }

    #[test]
    fn nothing_in_the_place_of_the_file_blocks() {
        let place = Place::new();
        std::fs::create_dir(place.file()).unwrap();
        assert_eq!(remove_old(&place.path()), None);
        assert_eq!(content(&place.path(), None), Content::Invalid);
        std::fs::remove_dir(place.file()).unwrap();
        nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
        // A reader and a writer at once: what is in the fifo stays there.
        let mut fifo = File::options().read(true).write(true).open(place.file()).unwrap();
        fifo.write_all(b"1234\n").unwrap();
        assert_eq!(content(&place.path(), None), Content::Invalid);
        let mut text = [0; 5];
        fifo.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"1234\n");
        assert_eq!(content(c"/dev/zero", None), Content::Invalid);
        assert_eq!(content(c"/nonexistent/pid", None), Content::Missing);
        let long = CString::new([b'x'; 256]).unwrap();
        assert_eq!(content(&long, None), Content::Unreadable(Errno::ENAMETOOLONG));
    }
}
