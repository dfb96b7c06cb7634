//! How a program ends and what it says: exit codes, the one error type, messages.
//!
//! A message is one line on stderr, written by one system call, and begins with the program's name
//! (spec/supervision.md 0). Paths in it are bytes as they are.

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::Args;
use crate::sys::cptr::CPtr;
use crate::sys::env::{self, Env};
use crate::sys::poll::{self, PollFd};
use crate::sys::{self, Errno};

/// A program of the suite.
#[derive(Debug)]
pub struct Program {
    /// Its name, as in messages.
    pub name: &'static str,
    /// Its synopsis, as in a usage message and its man page.
    pub usage: &'static str,
    /// What it does.
    pub run: fn(Args) -> Result<Exit, Die>,
}

static PROGRAM: OnceLock<&'static Program> = OnceLock::new();

/// From now on messages are from this program. Counts once.
pub fn set_program(program: &'static Program) {
    let _ = PROGRAM.set(program);
}

/// The program that runs; in unit tests, a nameless one.
pub fn program() -> &'static Program {
    static NONE: Program = Program { name: "s6", usage: "", run: |_| Ok(OK) };
    PROGRAM.get().copied().unwrap_or(&NONE)
}

/// How a program ends when nothing failed.
#[derive(Debug)]
pub enum Exit {
    /// With this exit code.
    Code(u8),
    /// By becoming another program.
    Exec(Exec),
    /// By the trapped signal that told it to, after it has cleaned up.
    Signal(i32),
}

/// Success.
pub const OK: Exit = Exit::Code(0);

/// The program that a chain-loader becomes.
#[derive(Debug)]
pub struct Exec {
    argv: Cow<'static, [Cow<'static, CStr>]>,
    env: Option<Env>,
    called: Option<CString>,
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

impl Exec {
    /// A command line made here.
    pub fn command(argv: Vec<CString>) -> Self {
        Exec { argv: argv.into_iter().map(Cow::Owned).collect(), env: None, called: None }
    }

    /// The rest of our own command line.
    pub fn operands(argv: Args) -> Self {
        Exec { argv: argv.iter().map(Cow::Borrowed).collect(), env: None, called: None }
    }

    /// With a changed environment. PATH is still searched as this process has it.
    pub fn with_env(self, env: Env) -> Self {
        Exec { env: Some(env), ..self }
    }

    /// Under another name than that of its file: its `argv[0]`.
    pub fn called(self, name: CString) -> Self {
        Exec { called: Some(name), ..self }
    }

    /// The command line.
    pub fn argv(&self) -> &[Cow<'static, CStr>] {
        &self.argv
    }

    /// Becomes the program; returns only on failure: 127 if there is no such program, 126 for anything else.
    pub fn execute(&self) -> Die {
        let file = self.argv.first().map_or(c"", |a| a.as_ref());
        let name = self.called.as_deref().unwrap_or(file);
        let rest = self.argv.iter().skip(1).map(|a| CPtr::new(a));
        let argv: Vec<CPtr<'_>> = std::iter::once(CPtr::new(name)).chain(rest).chain([CPtr::NULL]).collect();
        let own = self.env.as_ref().map(Env::list);
        let errno = sys::exec::exec_file(file, &argv, own.as_deref().unwrap_or(env::environ_list()));
        Die::new(exec_code(errno), message(&[&"unable to exec ", &file]), Some(errno))
    }
}

impl From<Exec> for Exit {
    fn from(exec: Exec) -> Self {
        Exit::Exec(exec)
    }
}

/// 127 for a program that does not exist, 126 for any other failure to execute.
pub fn exec_code(errno: Errno) -> u8 {
    if errno == Errno::ENOENT { 127 } else { 126 }
}

/// Wrong usage, invalid value.
pub const USAGE: u8 = 100;
/// Internal inconsistency.
pub const BUG: u8 = 101;
/// A system call failed.
pub const SYSTEM: u8 = 111;
/// A time limit ran out.
pub const TIMEOUT: u8 = 99;

/// The end of a program that cannot go on: an exit code and one line that says why.
#[derive(Debug, PartialEq, Eq)]
pub struct Die {
    code: u8,
    kind: Kind,
    errno: Option<Errno>,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Fatal(Vec<u8>),
    Usage,
    Silent,
}

impl Die {
    /// Wrong usage: prints the synopsis, exits 100.
    pub fn usage() -> Die {
        Die { code: USAGE, kind: Kind::Usage, errno: None }
    }

    /// A refusal with a message and, if a system call was the cause, its errno. See [`die!`](crate::die).
    pub fn new(code: u8, message: Vec<u8>, errno: Option<Errno>) -> Die {
        Die { code, kind: Kind::Fatal(message), errno }
    }

    /// An exit code that speaks for itself.
    pub fn silent(code: u8) -> Die {
        Die { code, kind: Kind::Silent, errno: None }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// The same failure under another exit code.
    pub fn with_code(self, code: u8) -> Die {
        Die { code, ..self }
    }

    /// The cause, if it was a system call.
    pub fn errno(&self) -> Option<Errno> {
        self.errno
    }

    /// Prints the message.
    pub fn print(&self) {
        match &self.kind {
            Kind::Fatal(text) => report("fatal: ", &[text], self.errno),
            Kind::Usage => report("usage: ", &[&program().usage], None),
            Kind::Silent => {}
        }
    }

    /// Prints the message as a warning, for a failure that does not end the program.
    pub fn warn(&self) {
        if let Kind::Fatal(text) = &self.kind {
            report("warning: ", &[text], self.errno);
        }
    }
}

/// What a message can be made of: bytes as they are.
pub trait Text {
    /// The bytes.
    fn text(&self) -> &[u8];
}

macro_rules! text {
    ($($type:ty: $self:ident => $bytes:expr;)*) => {
        $(impl Text for $type { fn text(&$self) -> &[u8] { $bytes } })*
    };
}

text! {
    str: self => self.as_bytes();
    &str: self => self.as_bytes();
    String: self => self.as_bytes();
    [u8]: self => self;
    &[u8]: self => self;
    Vec<u8>: self => self;
    CStr: self => self.to_bytes();
    &CStr: self => self.to_bytes();
    CString: self => self.to_bytes();
    OsStr: self => self.as_bytes();
    Path: self => self.as_os_str().as_bytes();
    crate::text::Decimal: self => self.as_bytes();
}

impl<T: Text> Text for &&T {
    fn text(&self) -> &[u8] {
        (**self).text()
    }
}

/// The pieces of a message in one buffer.
pub fn message(pieces: &[&dyn Text]) -> Vec<u8> {
    pieces.iter().flat_map(|p| p.text()).copied().collect()
}

static CONTEXT: OnceLock<&'static CStr> = OnceLock::new();

/// From now on messages begin with `PROG context`, as those of s6-supervise with its service directory. Counts once.
pub fn set_context(context: &'static CStr) {
    let _ = CONTEXT.set(context);
}

static HURRIED: AtomicBool = AtomicBool::new(false);

/// From now on no message waits until stderr can take it. For those on whom others depend: who reads their messages, a
/// logger that they supervise maybe, must not be able to stop them.
pub fn wait_for_no_reader() {
    HURRIED.store(true, Ordering::Relaxed);
}

/// Whether a write to stderr would wait, and nobody has time for that.
fn must_not_wait() -> bool {
    let mut stderr = [PollFd::new(sys::fd::STDERR, poll::OUT)];
    HURRIED.load(Ordering::Relaxed) && poll::look(&mut stderr).is_ok() && !stderr[0].writable()
}

/// Writes one message line to stderr. Allocates nothing; a line that cannot be written is lost.
pub fn report(kind: &str, pieces: &[&dyn Text], errno: Option<Errno>) {
    const MOST: usize = 24;
    if must_not_wait() {
        return;
    }
    let mut parts: [&[u8]; MOST] = [b""; MOST];
    let mut count = 0;
    let mut put = |bytes| {
        if count < MOST {
            parts[count] = bytes;
            count += 1;
        }
    };
    put(program().name.as_bytes());
    if let Some(context) = CONTEXT.get() {
        put(b" ");
        put(context.to_bytes());
    }
    put(b": ");
    put(kind.as_bytes());
    pieces.iter().take(MOST - 8).for_each(|p| put(p.text()));
    if let Some(errno) = errno {
        put(b": ");
        put(sys::strerror(errno));
    }
    put(b"\n");
    let slices = parts.map(std::io::IoSlice::new);
    let _ = nix::sys::uio::writev(sys::fd::STDERR, &slices[..count]);
}

/// `die!(code, "text", path, ...)`: a [`Die`]; `die!(code, errno => "unable to open ", path)`: with its cause.
#[macro_export]
macro_rules! die {
    ($code:expr, $errno:expr => $($piece:expr),+ $(,)?) => {
        $crate::error::Die::new($code, $crate::error::message(&[$(&$piece),+]), Some($errno))
    };
    ($code:expr, $($piece:expr),+ $(,)?) => {
        $crate::error::Die::new($code, $crate::error::message(&[$(&$piece),+]), None)
    };
}

/// `warn!("text", path, ...)` or `warn!(errno => "unable to open ", path)`: one warning line.
#[macro_export]
macro_rules! warn {
    ($errno:expr => $($piece:expr),+ $(,)?) => {
        $crate::error::report("warning: ", &[$(&$piece),+], Some($errno))
    };
    ($($piece:expr),+ $(,)?) => { $crate::error::report("warning: ", &[$(&$piece),+], None) };
}

/// `info!("text", ...)`: one line of chatter.
#[macro_export]
macro_rules! info {
    ($($piece:expr),+ $(,)?) => { $crate::error::report("info: ", &[$(&$piece),+], None) };
}

/// Turns the errno of a failed call into a [`Die`] with a verb and an object.
pub trait OrDie<T> {
    /// `unable to VERB OBJECT: reason`, exit 111.
    fn or_die(self, verb: &str, object: &(impl Text + ?Sized)) -> Result<T, Die>
    where
        Self: Sized,
    {
        self.or_die_with(SYSTEM, verb, object)
    }

    /// The same with another exit code.
    fn or_die_with(self, code: u8, verb: &str, object: &(impl Text + ?Sized)) -> Result<T, Die>;
}

impl<T> OrDie<T> for Result<T, Errno> {
    fn or_die_with(self, code: u8, verb: &str, object: &(impl Text + ?Sized)) -> Result<T, Die> {
        self.map_err(|errno| {
            let space: &[u8] = if object.text().is_empty() { b"" } else { b" " };
            Die::new(code, message(&[&"unable to ", &verb, &space, &object.text()]), Some(errno))
        })
    }
}
