//! s6-ipcserver: the super-server's command line, translated (spec/local-services-and-instances.md 2.1).

use std::ffi::CStr;

use crate::cli::{Args, CommandLine, Options, Value};
use crate::error::{Die, Exit, Program};
use crate::text;

/// Binds a socket, drops privileges, serves: by three other programs, in one process.
pub const PROGRAM: Program = Program {
    name: "s6-ipcserver",
    usage: "s6-ipcserver [ -q | -Q | -v ] [ -d | -D ] [ -P | -p ] [ -1 ] [ -c maxconn ] [ -C localmaxconn ] \
            [ -b backlog ] [ -a perms ] [ -G gid,... ] [ -g gid ] [ -u uid ] [ -U ] path prog...",
    run,
};

/// How much the server says.
#[derive(Default, PartialEq)]
enum Verbosity {
    Quiet,
    #[default]
    Usual,
    Chatty,
}

/// What is passed on to the three programs.
#[derive(Default)]
struct Settings {
    verbosity: Verbosity,
    no_reuse: bool,
    no_credentials: bool,
    notify: bool,
    connections: Option<u32>,
    connections_per_uid: Option<u32>,
    backlog: Option<u32>,
    mode: Option<u32>,
    ids: Ids,
}

/// The identity to take after the binding: what the options `-u`, `-g`, `-G` and `-U` say, here and of
/// s6-fdholder-daemon.
#[derive(Debug, Default)]
pub struct Ids {
    from_environment: bool,
    uid: Option<u32>,
    gid: Option<u32>,
    groups: Option<Vec<u8>>,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "cCbaGgu");
    let mut settings = Settings::default();
    while let Some((letter, value)) = options.next()? {
        match letter {
            'q' => settings.verbosity = Verbosity::Quiet,
            'Q' => settings.verbosity = Verbosity::Usual,
            'v' => settings.verbosity = Verbosity::Chatty,
            'd' => settings.no_reuse = false,
            'D' => settings.no_reuse = true,
            'P' => settings.no_credentials = true,
            'p' => settings.no_credentials = false,
            '1' => settings.notify = true,
            'c' => settings.connections = Some(value.u32()?.max(1)),
            'C' => settings.connections_per_uid = Some(value.u32()?.max(1)),
            'b' => settings.backlog = Some(value.u32()?.max(1)),
            'a' => {
                let mode = text::parse_octal(value.bytes()).ok_or_else(Die::usage)? & 0o777;
                settings.mode = (mode != 0o777).then_some(mode);
            }
            'u' | 'g' | 'G' | 'U' => settings.ids.option(letter, value)?,
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(_)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };
    let mut line = settings.command_line(path);
    line.words(operands.from(1));
    Ok(line.exec().into())
}

impl Settings {
    /// The words up to the program that serves one connection.
    fn command_line(&self, path: &CStr) -> CommandLine {
        let mut line = CommandLine::new(c"s6-ipcserver-socketbinder");
        line.flag(self.no_reuse, "-D")
            .number("-b", self.backlog)
            .option("-a", self.mode.map(|mode| format!("{mode:04o}")))
            .word("--")
            .word(path.to_bytes());
        self.ids.put_on(&mut line);
        line.word("s6-ipcserverd")
            .flag(self.verbosity == Verbosity::Quiet, "-v0")
            .flag(self.verbosity == Verbosity::Chatty, "-v2")
            .flag(self.notify, "-1")
            .flag(self.no_credentials, "-P")
            .number("-c", self.connections)
            .number("-C", self.connections_per_uid)
            .word("--");
        line
    }
}

impl Ids {
    /// Takes one of its options.
    pub fn option(&mut self, letter: char, value: Value) -> Result<(), Die> {
        match letter {
            // 0 stands for "leave it", as in s6-applyuidgid.
            'u' => self.uid = Some(value.u32()?).filter(|&id| id != 0),
            'g' => self.gid = Some(value.u32()?).filter(|&id| id != 0),
            'G' if value.bytes().first().is_none_or(u8::is_ascii_digit) => self.groups = Some(value.into_bytes()),
            'U' => *self = Ids { from_environment: true, ..Ids::default() },
            _ => return Err(Die::usage()),
        }
        Ok(())
    }

    /// The words that take it, if there is anything to take.
    pub fn put_on(&self, line: &mut CommandLine) {
        if self.from_environment || self.uid.is_some() || self.gid.is_some() || self.groups.is_some() {
            line.word("s6-applyuidgid")
                .flag(self.from_environment, "-Uz")
                .number("-u", self.uid)
                .number("-g", self.gid)
                .option("-G", self.groups.as_ref())
                .word("--");
        }
    }
}
