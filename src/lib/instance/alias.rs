//! s6-alias: the names of daemontools and runit (spec/local-services-and-instances.md 11.1).

use std::ffi::CStr;

use crate::cli::{Args, CommandLine, Options};
use crate::error::{Die, Exit, Program, USAGE};
use crate::{die, info, warn};

/// Runs the program of this suite that does what a program of daemontools or runit does.
pub const PROGRAM: Program = Program { name: "s6-alias", usage: "s6-alias [ -v ] name options...", run };

/// What stands for a name.
enum Meaning {
    /// The program that takes the same command line.
    Program(&'static str),
    /// This command line, whatever was given.
    Line(&'static [&'static str]),
    /// `runsvdir`, whose command line is another.
    Scanner,
    /// Nothing, and why.
    None(&'static str),
}

use Meaning::{Line, Program as Like, Scanner};

const NAMES: &[(&str, Meaning)] = &[
    // daemontools
    ("envdir", Like("s6-envdir")),
    ("envuidgid", Like("s6-envuidgid")),
    ("fghack", Like("s6-fghack")),
    ("multilog", Like("s6-log")),
    ("pgrphack", Like("s6-setsid")),
    ("readproctitle", Meaning::None("s6-svscanboot runs a logger in its place")),
    ("setlock", Like("s6-setlock")),
    ("setuidgid", Like("s6-setuidgid")),
    ("softlimit", Like("s6-softlimit")),
    ("supervise", Like("s6-supervise")),
    ("svc", Like("s6-svc")),
    ("svok", Like("s6-svok")),
    ("svscan", Like("s6-svscan")),
    ("svscanboot", Line(&["s6-svscanboot", "-c", "/dev/console", "--", "/service"])),
    ("svstat", Like("s6-svstat")),
    ("tai64n", Like("s6-tai64n")),
    ("tai64nlocal", Like("s6-tai64nlocal")),
    // runit
    ("chpst", Like("s6-alias-chpst")),
    ("runit", Meaning::None("s6 is a supervision suite, not an init: s6-linux-init makes one of it")),
    ("runit-init", Meaning::None("s6 is a supervision suite, not an init: s6-linux-init makes one of it")),
    ("runsv", Like("s6-supervise")),
    ("runsvchdir", Meaning::None("change the links in the scan directory, or use s6-rc")),
    ("runsvdir", Scanner),
    ("sv", Like("s6-alias-sv")),
    ("svlogd", Meaning::None("s6-log has its directives on its command line, not in a file config")),
    ("utmpset", Meaning::None("the utmps package looks after utmp")),
];

fn run(args: Args) -> Result<Exit, Die> {
    let called_as = args.get(0).map_or(&b""[..], |word| base_name(word.to_bytes()));
    if called_as != PROGRAM.name.as_bytes() && find(called_as).is_some() {
        return become_meaning(args, false);
    }
    let mut options = Options::classic(args, "");
    let mut verbose = false;
    while let Some((letter, _)) = options.next()? {
        match letter {
            'v' => verbose = true,
            _ => return Err(options.unknown(letter)),
        }
    }
    if options.operands().is_empty() {
        return Err(Die::usage());
    }
    become_meaning(options.operands(), verbose)
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

fn find(name: &[u8]) -> Option<&'static Meaning> {
    NAMES.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, meaning)| meaning)
}

/// Becomes what the first of the words stands for, with the rest of them.
fn become_meaning(words: Args, verbose: bool) -> Result<Exit, Die> {
    let name = words.get(0).map_or(&b""[..], |word| base_name(word.to_bytes()));
    let arguments = words.from(1);
    let program = |program: &'static str| {
        if verbose {
            info!("the s6 version of ", name, " is ", program);
        }
        let mut line = CommandLine::default();
        line.word(program);
        line
    };
    match find(name) {
        None => Err(die!(USAGE, "unknown alias: ", name)),
        Some(Meaning::None(instead)) => Err(die!(USAGE, "nothing in s6 stands for ", name, ": ", *instead)),
        Some(Like(like)) => {
            let mut line = program(like);
            line.words(arguments);
            Ok(line.exec().into())
        }
        Some(Line(words)) => {
            let mut line = program(words[0]);
            words[1..].iter().for_each(|word| {
                line.word(word);
            });
            Ok(line.exec().into())
        }
        Some(Scanner) => {
            let mut line = program("s6-svscan");
            line.word("-t0").word(scan_directory(arguments)?.to_bytes());
            Ok(line.exec().into())
        }
    }
}

/// The directory that `runsvdir [ -P ] dir [ log ]` looks after.
fn scan_directory(arguments: Args) -> Result<&'static CStr, Die> {
    let mut rest = arguments;
    if rest.get(0) == Some(c"-P") {
        warn!("-P has no meaning: a service that wants a session of its own runs s6-setsid");
        rest = rest.from(1);
    }
    if rest.get(1).is_some() {
        warn!("a log argument has no meaning: s6-svscanboot starts a logger");
    }
    rest.get(0).ok_or_else(|| die!(USAGE, "runsvdir needs a directory"))
}
