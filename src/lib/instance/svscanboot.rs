//! s6-svscanboot: the start of a supervision tree with a logger for whatever has none
//! (spec/local-services-and-instances.md 8).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chown, mkfifo};

use crate::cli::{Args, CommandLine, Long, Options, Value};
use crate::error::{Die, Exit, OrDie, Program, SYSTEM, USAGE};
use crate::events::fifodir::{self, Access, chmod, join};
use crate::events::subscription::Subscription;
use crate::instance::execline::Script;
use crate::instance::maker::Line;
use crate::instance::tree;
use crate::servicedir::files;
use crate::sys::fork::{self, Parent, Side};
use crate::sys::poll::{self, PollFd};
use crate::sys::{Errno, entry, env, fd};
use crate::users::{self, Key, User};
use crate::{die, text, warn};

/// Runs s6-svscan with its standard output and error going to a logger that it supervises.
pub const PROGRAM: Program = Program {
    name: "s6-svscanboot",
    usage: "s6-svscanboot [ -u ] [ -c console ] [ -D catchalldir ] [ -m mode ] [ -l user ] [ -o logoptions ] \
            [ -d notif ] [ -C services_max ] [ -L name_max ] [ -t rescan ] scandir",
    run,
};

const LONG: &[Long] = &[
    ("user", 'u'),
    ("console", 'c'),
    ("catchall-directory", 'D'),
    ("catchall-mode", 'm'),
    ("catchall-user", 'l'),
    ("catchall-options", 'o'),
    ("notification-fd", 'd'),
    ("services-max", 'C'),
    ("name-max", 'L'),
    ("timeout", 't'),
];

/// The logger's service, which s6-svscan knows by this name.
const LOGGER: &str = "s6-svscan-log";
/// The log directory, below /run or the user's directory.
const LOG_DIR: &str = "uncaught-logs";

/// How long the logger may take to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for, checked as far as it can be.
struct Boot {
    user_mode: bool,
    console: Option<CString>,
    log_dir: Option<Vec<u8>>,
    log_mode: u32,
    log_user: Option<Vec<u8>>,
    /// Directives, as they are written in a script.
    log_options: Vec<u8>,
    notification_fd: Option<RawFd>,
    services_most: Option<u32>,
    name_most: Option<u32>,
    rescan: Option<u32>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::long(args, "cDmlodCLt", LONG);
    let mut boot = Boot {
        user_mode: false,
        console: None,
        log_dir: None,
        log_mode: 0o2750,
        log_user: None,
        log_options: b"t".to_vec(),
        notification_fd: None,
        services_most: None,
        name_most: None,
        rescan: None,
    };
    while let Some((letter, value)) = options.next()? {
        boot.take(letter, value)?.ok_or_else(|| options.unknown(letter))?;
    }
    let scandir = options.operands().get(0).filter(|s| !s.is_empty()).ok_or_else(Die::usage)?;
    boot.start(scandir)
}

impl Boot {
    /// `None` for an unknown letter.
    fn take(&mut self, letter: char, value: Value) -> Result<Option<()>, Die> {
        let invalid = |what: &str| die!(USAGE, "invalid ", what, ": ", value.bytes());
        let number = |what: &str| text::parse_u32(value.bytes()).ok_or_else(|| invalid(what));
        match letter {
            'u' => self.user_mode = true,
            'c' => self.console = Some(value.into_cstring()),
            'D' => self.log_dir = Some(value.into_bytes()),
            'm' => self.log_mode = text::parse_octal(value.bytes()).ok_or_else(|| invalid("mode"))? & 0o7777,
            'l' => self.log_user = Some(value.into_bytes()),
            'o' => {
                split_words(value.bytes()).ok_or_else(|| invalid("log options"))?;
                self.log_options = value.into_bytes();
            }
            'd' => {
                let number = number("notification fd")?;
                let fd = RawFd::try_from(number).ok().filter(|&fd| fd >= 3);
                self.notification_fd = Some(fd.ok_or_else(|| die!(USAGE, "notification fd must be 3 or more"))?);
            }
            'C' => self.services_most = Some(number("number of services")?.clamp(4, 160_000)),
            'L' => self.name_most = Some(number("length of names")?.clamp(11, 1019)),
            't' => self.rescan = Some(number("timeout")?).filter(|&ms| ms != 0),
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    /// Becomes the scanner. Everything that can be wrong with the options is found before anything is written.
    fn start(&self, scandir: &CStr) -> Result<Exit, Die> {
        if self.notification_fd.is_some_and(|number| !fd::is_open(number)) {
            return Err(die!(SYSTEM, Errno::EBADF => "the notification fd is not open"));
        }
        let log_dir = self.log_dir()?;
        let log_user = self.log_user()?;
        fd::open_missing_standard().or_die("open", "/dev/null")?;
        let console = match &self.console {
            Some(path) => fd::open_file(path, OFlag::O_WRONLY | OFlag::O_NOCTTY, 0).or_die("open", path)?,
            None => fd::duplicate(fd::STDERR, 3).or_die("duplicate", "standard error")?,
        };

        let log_dir = self.make_log_dir(&log_dir, log_user.as_ref())?;
        let fifo = write_logger(scandir, &self.script(log_user.as_ref(), &log_dir))?;
        let console = if self.notification_fd == Some(3) { move_to(console, 4) } else { move_to(console, 3) }
            .or_die("move", "the console")?;
        let (reader, output) = open_fifo(&fifo).or_die("open", &fifo)?;
        self.hold_until_read(reader, &files::path(scandir, LOGGER), [console, output.as_raw_fd()]);
        fd::to_dev_null(0)
            .and_then(|()| fd::install(output.as_fd(), 1))
            .and_then(|()| fd::install(output.as_fd(), 2))
            .or_die("set up", "standard descriptors")?;

        let mut line = CommandLine::new(c"s6-svscan");
        line.number("-X", Some(console as u32))
            .number("-d", self.notification_fd.map(|fd| fd as u32))
            .number("-C", self.services_most)
            .number("-L", self.name_most)
            .number("-t", self.rescan)
            .word("--")
            .word(scandir.to_bytes());
        let failure = line.exec().execute();
        // Nobody reads the fifo.
        fd::borrow(console).and_then(|console| fd::install(console, 2)).or_die("restore", "standard error")?;
        Err(failure.with_code(SYSTEM))
    }

    /// Leaves a process behind that holds the reading end until the logger says that it reads: what is said meanwhile
    /// waits in the fifo, where else it would be lost and SIGPIPE end who says it. `others`: descriptors that are not
    /// for that process.
    fn hold_until_read(&self, reader: OwnedFd, logger: &CStr, others: [RawFd; 2]) {
        let event = files::path(logger, "event");
        let subscribed = fifodir::make(&event, Access::Group(Gid::effective()), false)
            .and_then(|()| Subscription::new(&event))
            .and_then(|subscription| Ok((fork::split(Parent::Nobody)?, subscription)));
        match subscribed {
            Ok((Side::Maker, subscription)) => subscription.leave(),
            Ok((Side::Helper, subscription)) => {
                others.into_iter().chain(self.notification_fd).for_each(fd::close);
                for number in 0..=2 {
                    let _ = fd::to_dev_null(number);
                }
                wait_for_logger(subscription, &reader);
                entry::end(0)
            }
            Err(errno) => warn!(errno => "unable to hold the fifo until the logger reads it"),
        }
    }

    /// The log directory as asked for: relative to the user's own for a user, else to where we are.
    fn log_dir(&self) -> Result<CString, Die> {
        let runtime_dir = || env::get("XDG_RUNTIME_DIR").ok_or_else(|| die!(USAGE, "XDG_RUNTIME_DIR not set"));
        let path = match (self.log_dir.as_deref(), self.user_mode) {
            (Some(path @ [b'/', ..]), _) | (Some(path), false) => path.to_vec(),
            (None, false) => [b"/run/", LOG_DIR.as_bytes()].concat(),
            (path, true) => [runtime_dir()?.to_bytes(), b"/", path.unwrap_or(LOG_DIR.as_bytes())].concat(),
        };
        Ok(CString::new(path).unwrap_or_default())
    }

    fn log_user(&self) -> Result<Option<User>, Die> {
        let Some(name) = &self.log_user else { return Ok(None) };
        if !Uid::effective().is_root() {
            warn!("not running as root: the logger runs as this user, not as ", name.as_slice());
            return Ok(None);
        }
        let user = users::user(Key::Name(name)).or_die("look up user", name)?;
        user.map(Some).ok_or_else(|| die!(SYSTEM, "unknown user: ", name.as_slice()))
    }

    /// Makes the log directory; returns its absolute path.
    fn make_log_dir(&self, path: &CStr, user: Option<&User>) -> Result<CString, Die> {
        tree::make_with_parents(path, 0o2755).or_die("make", path)?;
        if let Some(user) = user {
            chown(path, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))
                .or_die("change owner of", path)?;
        }
        chmod(path, self.log_mode).or_die("change mode of", path)?;
        tree::real_path(path).or_die("find the path of", path)
    }

    /// The logger's script.
    fn script(&self, user: Option<&User>, log_dir: &CStr) -> Vec<u8> {
        match Script::begin("-s1") {
            Some(script) => self.execline_script(script, user, log_dir),
            None => self.shell_script(user, log_dir),
        }
    }

    fn execline_script(&self, mut script: Script, user: Option<&User>, log_dir: &CStr) -> Vec<u8> {
        script.line("fdmove -c 1 2").line("redirfd -rnb 0 fifo");
        if let Some(user) = user {
            script.line_with("s6-setuidgid", &user.name);
        }
        script.line("exec -c").raw(b"s6-log -bpd3 -- ").raw(&self.log_options).raw(b" ");
        script.quoted(log_dir.to_bytes()).raw(b"\n").text()
    }

    /// A shell waits for a writer when it opens a fifo for reading; its own, open for a moment, is one.
    fn shell_script(&self, user: Option<&User>, log_dir: &CStr) -> Vec<u8> {
        let mut line = Line::exec();
        line.as_user(user.map(|user| user.name.as_slice())).words(&["env", "-i"]);
        line.raw(b"\"$(command -v s6-log)\"").words(&["-bpd3", "--"]);
        for directive in split_words(&self.log_options).unwrap_or_default() {
            line.word(&directive);
        }
        line.word(log_dir.to_bytes());
        [b"#!/bin/sh\nexec 1>&2\nexec 4<>fifo 0<fifo 4>&-\n", &line.0[..], b"\n"].concat()
    }
}

/// Words between blanks. Double quotes keep blanks, a backslash keeps any character. `None` if either has no end.
fn split_words(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b'\\' => word.get_or_insert_default().push(bytes.next()?),
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => words.extend(word.take()),
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    (!quoted).then_some(words)
}

/// Writes the logger's service directory in place of an old one; returns its fifo.
fn write_logger(scandir: &CStr, script: &[u8]) -> Result<CString, Die> {
    let dir = files::path(scandir, LOGGER);
    tree::remove(&dir).or_die("remove", &dir)?;
    tree::make_with_parents(&dir, 0o755).or_die("make", &dir)?;
    for (name, text, mode) in [(c"notification-fd", &b"3\n"[..], 0o644), (c"run", script, 0o755)] {
        let path = join(&dir, name);
        fd::open_file(&path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, mode)
            .and_then(|file| fd::write_all(&file, text))
            .and_then(|()| chmod(&path, mode))
            .or_die("write", &path)?;
    }
    let fifo = join(&dir, c"fifo");
    mkfifo(fifo.as_c_str(), Mode::S_IRUSR | Mode::S_IWUSR).or_die("make", &fifo)?;
    Ok(fifo)
}

/// Opens a fifo before anyone else does, for reading and for writing.
fn open_fifo(path: &CStr) -> Result<(OwnedFd, OwnedFd), Errno> {
    let reader = fd::open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?;
    fd::open_file(path, OFlag::O_WRONLY, 0).map(|writer| (reader, writer))
}

/// Waits until the logger is ready, or nobody is there who could write to it, for [`PATIENCE`] at most.
fn wait_for_logger(mut subscription: Subscription, fifo: &OwnedFd) {
    let deadline = Instant::now() + PATIENCE;
    let mut letters = [0; 64];
    loop {
        let mut fds = [PollFd::new(subscription.as_fd(), poll::IN), PollFd::new(fifo.as_fd(), 0)];
        let waited = poll::wait(&mut fds, Some(deadline));
        if waited.is_err() || fds[1].hung_up() || deadline <= Instant::now() {
            return;
        }
        match subscription.read(&mut letters) {
            Ok(count) if !letters[..count].contains(&b'U') => {}
            Err(Errno::EAGAIN) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Moves a descriptor for the next program; returns its new number.
fn move_to(fd: OwnedFd, number: RawFd) -> Result<RawFd, Errno> {
    fd::hand_over(fd, number).map(|()| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_script() {
        let split = |text: &str| split_words(text.as_bytes()).map(|words| words.join(&b'|'));
        for (text, want) in [
            ("t s1000000  n20", Some("t|s1000000|n20")),
            ("!\"gzip -nq9\" t", Some("!gzip -nq9|t")),
            (r#"a\ b "" "x\"y""#, Some("a b||x\"y")),
            ("", Some("")),
            ("\"open", None),
            ("open\\", None),
        ] {
            assert_eq!(split(text), want.map(|w| w.as_bytes().to_vec()), "{text}");
        }
    }
}
