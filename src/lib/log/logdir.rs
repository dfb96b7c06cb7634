//! A logdir: the files that [`rotate`](super::rotate) speaks of (spec/logging-and-chainloaders.md 15.3 to 15.6).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, stat};
use nix::unistd::{fsync, linkat, mkdir, unlink};

use super::outlet::Outlet;
use super::rotate::{Core, File, Step, Suffix, recovery};
use super::script::{Parameters, Processor};
use crate::cli::argv;
use crate::error::{Die, OrDie, SYSTEM};
use crate::events::fifodir::{chmod, join};
use crate::sys::cptr::CPtr;
use crate::sys::fd::{self, open_file};
use crate::sys::spawn::{Redirect, Spawn};
use crate::sys::wait::{self, Which};
use crate::sys::{Errno, Pid, dir, lock};
use crate::tai::{TEXT, Tai64n};
use crate::text::decimal;
use crate::{die, warn};

/// Length of the name of an archive: a label, a dot, a letter.
const ARCHIVE: usize = TEXT + 2;
/// The bit that says that a file is complete.
const COMPLETE: u32 = 0o100;
/// Labels, a nanosecond apart, that are tried for an archive. The first is free unless somebody plays with the clock.
const LABELS: usize = 1000;

/// A logdir that lines are written to.
#[derive(Debug)]
pub struct Logdir<'a> {
    files: Files<'a>,
    core: Core,
    current: OwnedFd,
    /// Held for life.
    _lock: OwnedFd,
    processor: Option<Pid>,
    /// The lines.
    pub outlet: Outlet,
}

/// The directory and everything in it that is not open.
#[derive(Debug)]
struct Files<'a> {
    parameters: Parameters<'a>,
    /// Mode of a file that is not complete: 0666 less the umask.
    mode: u32,
    /// Whether warnings are wanted.
    warnings: bool,
    /// The label of the last archive.
    label: Tai64n,
}

impl<'a> Logdir<'a> {
    /// Makes the directory if it is not there, locks it, and puts in order what a killed logger left in it.
    pub fn open(parameters: Parameters<'a>, mode: u32, warnings: bool, now: Instant) -> Result<Self, Die> {
        let mut files = Files { parameters, mode, warnings, label: Tai64n::default() };
        let path = files.parameters.path;
        match mkdir(path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            failure => failure.or_die("make directory", path)?,
        }
        let lock = open_file(&join(path, c"lock"), OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o666);
        let lock = lock.or_die("open the lock of", path)?;
        if !lock::try_lock(&lock, lock::Kind::Exclusive).or_die("lock", path)? {
            return Err(die!(SYSTEM, "unable to lock ", path, ": another s6-log writes to it"));
        }
        let is_complete = |file| files.is_complete(file).or_die("look at files in", path);
        let steps = recovery(is_complete(File::Current)?, is_complete(File::Processed)?);
        for step in steps {
            files.perform(*step).or_die("clean up", path)?;
        }
        if !steps.is_empty() {
            files.open(File::State, OFlag::O_WRONLY | OFlag::O_CREAT).or_die("make state in", path)?;
        }
        let current = files.open_current().or_die("open current in", path)?;
        fchmod(&current, Mode::from_bits_truncate(mode as libc::mode_t)).or_die("set the mode of current in", path)?;
        let size = fstat(&current).or_die("look at current in", path)?.st_size;
        let Parameters { threshold, period, retry, ref processor, .. } = files.parameters;
        let size = size.try_into().unwrap_or(0);
        let core = Core::new(size, threshold, period, retry, processor.is_some(), now);
        Ok(Logdir { files, core, current, _lock: lock, processor: None, outlet: Outlet::default() })
    }

    /// Writes and rotates as far as it goes now. `text` is what the outlet's lines were pushed from.
    pub fn advance(&mut self, text: &[u8], now: Instant) {
        loop {
            while let Some(step) = self.core.step(self.outlet.is_empty(), now) {
                match self.perform(step) {
                    Ok(()) => self.core.done(),
                    Err(errno) => {
                        self.files.complain(step, errno);
                        self.core.failed(now);
                    }
                }
            }
            let share = self.core.share(self.outlet.front(text), now);
            if share.is_empty() {
                return;
            }
            match fd::write(&self.current, share) {
                Ok(bytes) => {
                    let ends_line = share[..bytes].ends_with(b"\n");
                    self.outlet.advance(bytes);
                    self.core.wrote(bytes, ends_line);
                }
                Err(_) => self.core.write_failed(now),
            }
        }
    }

    /// Rotates, now or as soon as the rotation under way has ended.
    pub fn rotate(&mut self) {
        self.core.rotate();
    }

    /// No more lines will come.
    pub fn end(&mut self) {
        self.core.end();
    }

    /// Whether everything is on the disk and in order.
    pub fn has_ended(&self) -> bool {
        self.core.has_ended()
    }

    /// Whether lines wait, or will have to.
    pub fn is_stuck(&self) -> bool {
        !self.outlet.is_empty() || self.core.is_stuck()
    }

    /// When to [`advance`](Self::advance) again in any case.
    pub fn deadline(&self) -> Option<Instant> {
        self.core.deadline()
    }

    /// A child has ended: looks whether it was the processor.
    pub fn reap(&mut self, now: Instant) {
        let Some(pid) = self.processor else { return };
        let Some((_, status)) = wait::reap(Which::One(pid)) else { return };
        self.processor = None;
        let well = status.code() == Some(0);
        if !well && self.files.warnings {
            let (how, number) = match status.signal() {
                Some(signal) => ("was killed by signal ", signal),
                None => ("exited ", status.code().unwrap_or(0)),
            };
            warn!("the processor of ", self.files.parameters.path, " ", how, decimal(number), ", it will run again");
        }
        self.core.processor_ended(well, now);
    }

    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        match step {
            Step::Sync(File::Current) => fsync(&self.current),
            Step::MarkComplete(File::Current) => {
                fchmod(&self.current, Mode::from_bits_truncate((self.files.mode | COMPLETE) as libc::mode_t))
            }
            Step::NewCurrent => {
                self.current = self.files.open_current()?;
                Ok(())
            }
            Step::StartProcessor => {
                match self.files.start_processor()? {
                    Some(pid) => self.processor = Some(pid),
                    None => self.core.nothing_to_process(),
                }
                Ok(())
            }
            step => self.files.perform(step),
        }
    }
}

impl Files<'_> {
    fn path(&self, file: File) -> CString {
        join(self.parameters.path, &CString::new(file.name()).unwrap_or_default())
    }

    fn open(&self, file: File, flags: OFlag) -> Result<OwnedFd, Errno> {
        open_file(&self.path(file), flags | OFlag::O_NONBLOCK, 0o666)
    }

    fn open_current(&self) -> Result<OwnedFd, Errno> {
        self.open(File::Current, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    fn is_complete(&self, file: File) -> Result<bool, Errno> {
        match stat(self.path(file).as_c_str()) {
            Ok(found) => Ok(found.st_mode & COMPLETE as libc::mode_t != 0),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Does a step for which nothing need be open. If a file is not there, nothing need be done.
    fn perform(&mut self, step: Step) -> Result<(), Errno> {
        let done = match step {
            Step::Sync(file) => self.open(file, OFlag::O_WRONLY).and_then(fsync),
            Step::Rename(from, to) => {
                renameat(AT_FDCWD, self.path(from).as_c_str(), AT_FDCWD, self.path(to).as_c_str())
            }
            Step::MarkComplete(file) => chmod(&self.path(file), self.mode | COMPLETE),
            Step::Archive(file, suffix) => self.archive(file, suffix, false),
            Step::ArchiveUnlessLinked(file, suffix) => self.archive(file, suffix, true),
            Step::Remove(file) => unlink(self.path(file).as_c_str()),
            Step::Trim => self.trim(),
            // These need an open `current`, or give a child.
            Step::NewCurrent | Step::StartProcessor => Err(Errno::ENOTSUP),
        };
        if done == Err(Errno::ENOENT) { Ok(()) } else { done }
    }

    fn archive(&mut self, file: File, suffix: Suffix, unless_linked: bool) -> Result<(), Errno> {
        let path = self.path(file);
        let found = stat(path.as_c_str())?;
        if found.st_size == 0 || (unless_linked && found.st_nlink > 1) {
            return Ok(());
        }
        let letter = match suffix {
            Suffix::S => b's',
            Suffix::U => b'u',
        };
        // Two archives of the same moment are a nanosecond apart.
        self.label = self.label.after(std::time::Duration::from_nanos(1)).max(Tai64n::now());
        for _ in 0..LABELS {
            let name = CString::new([&self.label.text()[..], b".", &[letter]].concat()).unwrap_or_default();
            let target = join(self.parameters.path, &name);
            match linkat(AT_FDCWD, path.as_c_str(), AT_FDCWD, target.as_c_str(), AtFlags::empty()) {
                Err(Errno::EEXIST) => self.label = self.label.after(std::time::Duration::from_nanos(1)),
                other => return other,
            }
        }
        Err(Errno::EEXIST)
    }

    /// Removes the oldest archives while there are too many or they are too large. What cannot be removed is left.
    fn trim(&self) -> Result<(), Errno> {
        let mut names: Vec<CString> = Vec::new();
        dir::for_each(self.parameters.path, |name| {
            if is_archive(name.to_bytes()) {
                names.push(name.to_owned());
            }
            Ok(())
        })?;
        names.sort_unstable();
        let size = |name: &CStr| match stat(join(self.parameters.path, name).as_c_str()) {
            Ok(found) => u64::try_from(found.st_size).unwrap_or(0),
            Err(_) => 0,
        };
        let is_limited = self.parameters.total > 0;
        let sizes: Vec<u64> = names.iter().map(|name| if is_limited { size(name) } else { 0 }).collect();
        let mut total: u64 = sizes.iter().sum();
        let mut count = names.len();
        for (name, size) in names.iter().zip(sizes) {
            if count <= self.parameters.archives as usize && total <= self.parameters.total {
                break;
            }
            let path = join(self.parameters.path, name);
            match unlink(path.as_c_str()) {
                Err(errno) if errno != Errno::ENOENT && self.warnings => warn!(errno => "unable to remove ", path),
                _ => {}
            }
            count -= 1;
            total -= size;
        }
        Ok(())
    }

    /// Starts the processor in the directory: `previous` is its input, `processed` its output, descriptors 4 and 5
    /// are `state` and `newstate`. `None` if there is no `previous`.
    fn start_processor(&self) -> Result<Option<Pid>, Errno> {
        let previous = match self.open(File::Previous, OFlag::O_RDONLY) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        };
        let fresh = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let processed = self.open(File::Processed, fresh)?;
        let state = self.open(File::State, OFlag::O_RDONLY | OFlag::O_CREAT)?;
        let new_state = self.open(File::NewState, fresh)?;
        let redirects = [(&previous, 0), (&processed, 1), (&state, 4), (&new_state, 5)];
        let redirects = redirects.map(|(fd, to)| Redirect::new(fd.as_fd(), to));
        let start = |words: &[CPtr<'_>]| {
            let directory = Some(self.parameters.path);
            Spawn { redirects: &redirects, directory, ..Spawn::new(words) }.start()
        };
        let shell = |command: &CStr| start(&argv([c"/bin/sh", c"-c", command]));
        match &self.parameters.processor {
            None => Ok(None),
            Some(Processor::Shell(command)) => shell(command).map(Some),
            Some(Processor::Execline(command)) => match start(&argv([c"execlineb", c"-Pc", command])) {
                Err(Errno::ENOENT) => shell(command).map(Some),
                other => other.map(Some),
            },
        }
    }

    fn complain(&self, step: Step, errno: Errno) {
        if !self.warnings {
            return;
        }
        let (verb, name) = match step {
            Step::Sync(file) => ("sync", file.name()),
            Step::Rename(file, _) => ("rename", file.name()),
            Step::NewCurrent => ("open", File::Current.name()),
            Step::MarkComplete(file) => ("change the mode of", file.name()),
            Step::Archive(file, _) | Step::ArchiveUnlessLinked(file, _) => ("archive", file.name()),
            Step::Remove(file) => ("remove", file.name()),
            Step::Trim => ("list archives in", ""),
            Step::StartProcessor => ("start a processor for", File::Previous.name()),
        };
        warn!(errno => "unable to ", verb, " ", self.parameters.path, "/", name);
    }
}

/// Whether a name is that of an archive, ours to remove.
fn is_archive(name: &[u8]) -> bool {
    let parts = name.split_first_chunk::<TEXT>();
    name.len() == ARCHIVE
        && parts.is_some_and(|(label, rest)| Tai64n::parse(label).is_some() && b".s.u".chunks(2).any(|end| end == rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_archives_are_archives() {
        for (name, want) in [
            (&b"@400000006553f12500000000.s"[..], true),
            (b"@400000006553f12500000000.u", true),
            (b"@400000006553f12500000000", false),
            (b"@400000006553f12500000000.x", false),
            (b"@400000006553f12500000000.sx", false),
            (b"@40000000655Xf12500000000.s", false),
            (b"current", false),
        ] {
            assert_eq!(is_archive(name), want, "{}", name.escape_ascii());
        }
    }
}
