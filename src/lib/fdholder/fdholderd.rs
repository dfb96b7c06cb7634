//! s6-fdholderd: the server (spec/events-and-fdholding.md 4)

use std::ffi::{CStr, CString};

use crate::cli::{Args, Options};
use crate::die;
use crate::error::{Die, Exit, OrDie, Program};
use crate::fdholder::server::{Server, Settings};
use crate::local::access::Rules;
use crate::local::cdb::Cdb;
use crate::sys::fd::{self, STDIN, STDOUT};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, socket};
use crate::unixmessage::MAX_FDS;
use crate::warn;

/// Exits 0 after SIGTERM, plus 1 if descriptors are lost, plus 2 if clients are.
pub const PROGRAM: Program = Program {
    name: "s6-fdholderd",
    usage: "s6-fdholderd [ -1 ] [ -v verbosity ] [ -c maxconn ] [ -n maxfds ] [ -t timeout ] [ -T lameducktimeout ] \
            [ -i rulesdir | -x rulesfile ]",
    run,
};

/// The most clients that can be asked for.
const MOST_CLIENTS: u32 = 256;
/// Descriptors of a server that are neither held nor clients': the standard three, rules, and some to spare.
const OWN: usize = 16;

/// Where the rules are.
enum Source {
    Directory(CString),
    File(CString),
}

impl Source {
    fn open(&self) -> Result<Rules, Errno> {
        match self {
            Source::Directory(path) => Ok(Rules::Directory(path.clone())),
            Source::File(path) => Cdb::open(path).map(Rules::File),
        }
    }

    fn path(&self) -> &CStr {
        let (Source::Directory(path) | Source::File(path)) = self;
        path
    }
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut notify = false;
    let mut source = None;
    let mut settings = Settings { verbose: true, clients: 16, descriptors: 1000, patience: None, farewell: None };
    let mut options = Options::classic(args, "vcntTix");
    while let Some((letter, value)) = options.next()? {
        match letter {
            '1' => notify = true,
            'v' => settings.verbose = value.u32()? > 0,
            'c' => settings.clients = value.u32()?.clamp(1, MOST_CLIENTS) as usize,
            'n' => settings.descriptors = value.u32()?.max(1) as usize,
            't' => settings.patience = value.limit()?,
            'T' => settings.farewell = value.limit()?,
            'i' => source = Some(Source::Directory(value.into_cstring())),
            'x' => source = Some(Source::File(value.into_cstring())),
            _ => return Err(options.unknown(letter)),
        }
    }
    let source = source.ok_or_else(Die::usage)?;
    make_room(&mut settings)?;
    if !socket::is_socket(STDIN) {
        return Err(die!(100, "standard input is not a socket"));
    }
    if notify && !fd::is_open(1) {
        return Err(die!(100, "option -1 was given, but standard output is closed"));
    }
    fd::open_missing_standard().or_die("open", "/dev/null")?;
    let rules = source.open().or_die("open", source.path())?;
    if !socket::is_listening(STDIN) {
        return Err(die!(111, "standard input is a socket that does not listen"));
    }
    fd::set_nonblocking(STDIN, true).or_die("prepare", "the socket")?;
    signal::neutralise(Signal::SIGPIPE).or_die("trap", "signals")?;
    signal::trap(&[Signal::SIGTERM, Signal::SIGHUP]).or_die("trap", "signals")?;
    if notify {
        let _ = fd::write(STDOUT, b"\n");
    }
    fd::to_dev_null(1).or_die("close", "standard output")?;
    let verbose = settings.verbose;
    if verbose
        && let Source::Directory(path) = &source
        && let Err(errno) = nix::sys::stat::stat(path.as_c_str())
    {
        warn!(errno => "nobody is admitted: unable to look at the rules in ", source.path());
    }
    let reopen = || match source.open() {
        Ok(rules) => Some(rules),
        Err(_) if !verbose => None,
        Err(errno) => {
            warn!(errno => "unable to open ", source.path(), ", keeping the old rules");
            None
        }
    };
    Server::new(settings, rules).serve(reopen).map(Exit::Code)
}

/// Bounds the number of descriptors by what the system grants, and asks for what clients need on top.
fn make_room(settings: &mut Settings) -> Result<(), Die> {
    let limit = fd::limit().or_die("get", "the limit of open files")?;
    if limit < 7 {
        return Err(die!(111, "the limit of open files is too low"));
    }
    if settings.descriptors > limit {
        settings.descriptors = limit - 6;
    }
    // Where this is not granted, a client may have to wait, or be dropped with what it sends.
    fd::raise_limit(settings.descriptors + settings.clients + 2 * MAX_FDS + OWN);
    Ok(())
}
