//! What s6-instance-maker and s6-usertree-maker write alike: service directories, for a scan directory or as sources
//! for s6-rc, and their loggers (spec/local-services-and-instances.md 9). What was made is removed after a failure.
//!
//! Where execline is installed, the scripts are those that s6 writes; elsewhere they are for `/bin/sh`, with every word
//! quoted, and run nothing but programs of this suite. Both do the same.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat};

use crate::cli::Value;
use crate::die;
use crate::error::{Die, OrDie, USAGE};
use crate::events::fifodir::join;
use crate::instance::execline::Script;
use crate::instance::tree;
use crate::servicedir::files;
use crate::sys::{Errno, dir, fd};
use crate::text::{decimal, shell_word};

/// How a logger logs.
#[derive(Debug)]
pub struct LoggerOptions {
    user: Option<Vec<u8>>,
    /// Bit 0: TAI64N stamps, bit 1: readable ones.
    stamps: u32,
    files: u32,
    file_size: u64,
    /// Of all old files together; 0 is no limit.
    most: u64,
    prefix: Option<Vec<u8>>,
}

impl Default for LoggerOptions {
    fn default() -> Self {
        LoggerOptions { user: None, stamps: 1, files: 10, file_size: 1_000_000, most: 0, prefix: None }
    }
}

impl LoggerOptions {
    /// Takes an option; `false` if it is not about logging.
    pub fn take(&mut self, letter: char, value: &Value) -> Result<bool, Die> {
        match letter {
            'l' => self.user = Some(value.bytes().to_vec()),
            't' => self.stamps = value.u32()?,
            'n' => self.files = value.u32()?,
            's' => self.file_size = value.u64()?,
            'S' => self.most = value.u64()?,
            'P' => self.prefix = Some(value.bytes().to_vec()),
            _ => return Ok(false),
        }
        if self.stamps > 3 { Err(die!(USAGE, "the type of stamps must be 0, 1, 2 or 3")) } else { Ok(true) }
    }

    /// What s6-log is told, but for the directory.
    fn directives(&self) -> Vec<Vec<u8>> {
        let number = |letter: &str, number: u64| [letter.as_bytes(), decimal(number).as_bytes()].concat();
        let mut list = Vec::new();
        list.extend((self.stamps & 1 != 0).then(|| b"t".to_vec()));
        list.extend((self.stamps & 2 != 0).then(|| b"T".to_vec()));
        list.extend([number("n", self.files.into()), number("s", self.file_size)]);
        list.extend((self.most != 0).then(|| number("S", self.most)));
        list.extend(self.prefix.iter().map(|prefix| [b"p", &prefix[..]].concat()));
        list
    }

    /// The script that logs to `log_dir`.
    pub fn script(&self, log_dir: &[u8]) -> Vec<u8> {
        match Script::begin("-P") {
            Some(script) => self.execline_script(script, log_dir),
            None => self.shell_script(log_dir),
        }
    }

    fn execline_script(&self, mut script: Script, log_dir: &[u8]) -> Vec<u8> {
        if let Some(user) = &self.user {
            script.line_with("s6-setuidgid", user);
        }
        script.raw(b"s6-log -bd3 -- ");
        for directive in self.directives() {
            script.word(&directive).raw(b" ");
        }
        script.quoted(log_dir).raw(b"\n").text()
    }

    fn shell_script(&self, log_dir: &[u8]) -> Vec<u8> {
        let mut line = Line::exec();
        line.as_user(self.user.as_deref()).words(&["s6-log", "-bd3", "--"]);
        for directive in self.directives() {
            line.word(&directive);
        }
        line.word(log_dir);
        [b"#!/bin/sh\n", &line.0[..], b"\n"].concat()
    }
}

/// A command of a shell script.
#[derive(Debug)]
pub struct Line(pub Vec<u8>);

impl Line {
    /// One that the shell becomes.
    pub fn exec() -> Self {
        Line(b"exec".to_vec())
    }

    /// Adds a word that the shell leaves as it is.
    pub fn word(&mut self, word: &[u8]) -> &mut Self {
        self.raw(&shell_word(word))
    }

    /// Adds some words.
    pub fn words(&mut self, words: &[&str]) -> &mut Self {
        for word in words {
            self.word(word.as_bytes());
        }
        self
    }

    /// Adds a word in the language of the shell.
    pub fn raw(&mut self, word: &[u8]) -> &mut Self {
        self.0.push(b' ');
        self.0.extend_from_slice(word);
        self
    }

    /// What follows runs as this user, if there is one.
    pub fn as_user(&mut self, user: Option<&[u8]>) -> &mut Self {
        if let Some(user) = user {
            self.words(&["s6-setuidgid"]).word(user);
        }
        self
    }
}

/// The names of sources for s6-rc: `service[/logger[/pipeline]]`.
#[derive(Debug)]
pub struct RcNames {
    /// The service.
    pub service: CString,
    /// Its logger.
    pub logger: Option<CString>,
    pipeline: Option<CString>,
}

impl RcNames {
    /// From the argument of an option.
    pub fn parse(text: &[u8]) -> Result<Self, Die> {
        let parts: Vec<&[u8]> = text.split(|&b| b == b'/').collect();
        let is_name = |part: &&[u8]| !part.is_empty() && !part.starts_with(b".") && !part.contains(&b'\n');
        if parts.len() > 3 || !parts.iter().all(is_name) {
            return Err(die!(USAGE, "invalid s6-rc name: ", text.escape_ascii().to_string()));
        }
        let name = |i: usize| parts.get(i).map(|part| CString::new(*part).unwrap_or_default());
        Ok(RcNames { service: name(0).unwrap_or_default(), logger: name(1), pipeline: name(2) })
    }
}

/// A service and its logger, to be written.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The directory that is asked for.
    pub dir: &'a CStr,
    /// The names, if the result is for s6-rc.
    pub rc: Option<&'a RcNames>,
    /// The script of the service.
    pub run: Vec<u8>,
    /// The script of the logger, if there is one.
    pub log_run: Option<Vec<u8>>,
}

impl Plan<'_> {
    /// Writes all of it, and what `more` adds to the directory of the service; or nothing.
    pub fn carry_out(&self, more: impl FnOnce(&CStr) -> Result<(), Die>) -> Result<(), Die> {
        let mut made = Vec::new();
        let outcome = match self.rc {
            None => self.write_service_directory(&mut made, more),
            Some(names) => self.write_sources(&mut made, names, more),
        };
        if outcome.is_err() {
            for path in made.iter().rev() {
                let _ = tree::remove(path);
            }
        }
        outcome
    }

    /// For a scan directory.
    fn write_service_directory(
        &self,
        made: &mut Vec<CString>,
        more: impl FnOnce(&CStr) -> Result<(), Die>,
    ) -> Result<(), Die> {
        make(made, self.dir)?;
        write_service(self.dir, &self.run, true)?;
        if let Some(log_run) = &self.log_run {
            let log = files::path(self.dir, "log");
            make(made, &log)?;
            write_service(&log, log_run, true)?;
        }
        more(self.dir)
    }

    /// For s6-rc-compile: a directory each for the service and its logger, in one that may be there.
    fn write_sources(
        &self,
        made: &mut Vec<CString>,
        names: &RcNames,
        more: impl FnOnce(&CStr) -> Result<(), Die>,
    ) -> Result<(), Die> {
        if !files::exists(self.dir) {
            make(made, self.dir)?;
        }
        let service = join(self.dir, &names.service);
        make(made, &service)?;
        write_service(&service, &self.run, false)?;
        write_line(&service, "type", b"longrun")?;
        if let (Some(logger), Some(log_run)) = (&names.logger, &self.log_run) {
            write_line(&service, "producer-for", logger.as_bytes())?;
            let log = join(self.dir, logger);
            make(made, &log)?;
            write_service(&log, log_run, false)?;
            write_line(&log, "type", b"longrun")?;
            write_line(&log, "consumer-for", names.service.as_bytes())?;
            if let Some(pipeline) = &names.pipeline {
                write_line(&log, "pipeline-name", pipeline.as_bytes())?;
            }
        }
        more(&service)
    }
}

/// Makes a new directory, to be removed after a failure.
fn make(made: &mut Vec<CString>, path: &CStr) -> Result<(), Die> {
    dir::make(path, 0o755).or_die("make", path)?;
    made.push(path.to_owned());
    Ok(())
}

/// What every service has: its script, and the descriptor on which s6-svscan and s6-log say that they are ready.
fn write_service(dir: &CStr, run: &[u8], executable: bool) -> Result<(), Die> {
    write_line(dir, "notification-fd", b"3")?;
    let file = write(dir, "run", run)?;
    if executable {
        make_executable(&file).or_die("make executable", &files::path(dir, "run"))?;
    }
    Ok(())
}

fn write_line(dir: &CStr, name: &str, text: &[u8]) -> Result<(), Die> {
    write(dir, name, &[text, b"\n"].concat()).map(drop)
}

/// Writes a new file, with a mode by the umask.
fn write(dir: &CStr, name: &str, text: &[u8]) -> Result<OwnedFd, Die> {
    let path = files::path(dir, name);
    let file = fd::open_file(&path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o666).or_die("make", &path)?;
    fd::write_all(&file, text).or_die("write", &path)?;
    Ok(file)
}

/// Who may read it may execute it.
fn make_executable(file: &OwnedFd) -> Result<(), Errno> {
    let mode = fstat(file)?.st_mode & 0o777;
    fchmod(file, Mode::from_bits_truncate(mode | (mode & 0o444) >> 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_quotes_what_it_is_told() {
        let options = LoggerOptions {
            user: Some(b"log user".to_vec()),
            stamps: 3,
            files: 5,
            file_size: 1234,
            most: 99,
            prefix: Some(b"my $pre: ".to_vec()),
        };
        let script = "#!/bin/sh\nexec s6-setuidgid 'log user' s6-log -bd3 -- t T n5 s1234 S99 'pmy $pre: ' '/a b'\n";
        assert_eq!(options.shell_script(b"/a b"), script.as_bytes());
        let script = "#!/bin/sh\nexec s6-log -bd3 -- t n10 s1000000 /var/log/x\n";
        assert_eq!(LoggerOptions::default().shell_script(b"/var/log/x"), script.as_bytes());
    }

    #[test]
    fn rc_names_have_one_to_three_parts() {
        for (text, parts) in [("s", 1), ("s/l", 2), ("s/l/p", 3), ("s x/l", 2)] {
            let names = RcNames::parse(text.as_bytes()).unwrap();
            assert_eq!(1 + usize::from(names.logger.is_some()) + usize::from(names.pipeline.is_some()), parts);
        }
        for text in ["", "/l", "s/", "s//p", "s/l/p/q", "a\nb", "..", "s/.l"] {
            assert_eq!(RcNames::parse(text.as_bytes()).map_err(|die| die.code()).err(), Some(100), "{text:?}");
        }
    }
}
