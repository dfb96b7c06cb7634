//! An fd-holder to talk to, byte by byte.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use s6::sys::scm;
use s6::tai::Tai64n;
use s6::unixmessage::{Inbox, Limits};

use super::{Background, Scratch, program, text};

/// The variables that grant everything.
pub const ALL: &[(&str, &str)] =
    &[("STORE_REGEX", "\n"), ("RETRIEVE_REGEX", "\n"), ("LIST", "\n"), ("GETDUMP", "\n"), ("SETDUMP", "\n")];

/// A server that runs, and its directory of rules.
#[derive(Debug)]
pub struct Holder {
    pub scratch: Scratch,
    pub server: Background,
    pub socket: PathBuf,
}

/// Writes a rule that lets in, with these rights.
pub fn allow(scratch: &Scratch, key: &str, rights: &[(&str, &str)]) {
    scratch.write(format!("rules/{key}/allow"), "");
    for (name, value) in rights {
        scratch.write(format!("rules/{key}/env/S6_FDHOLDER_{name}"), value);
    }
}

impl Holder {
    /// Ours, with all rights for everybody.
    pub fn new(options: &[&str]) -> Self {
        Self::start(&mut program("s6-fdholderd"), options, |scratch| {
            allow(scratch, "uid/default", ALL);
            vec!["-i".into(), scratch.path("rules")]
        })
    }

    /// Any server; `rules` prepares the rules and gives the option that names them. Messages go to the file `stderr`.
    pub fn start(command: &mut Command, options: &[&str], rules: impl FnOnce(&Scratch) -> Vec<PathBuf>) -> Self {
        let scratch = Scratch::new();
        let socket = scratch.path("socket");
        let listener = OwnedFd::from(UnixListener::bind(&socket).unwrap());
        command.arg("-1").args(options).args(rules(&scratch)).current_dir(scratch.path(""));
        command.stdin(listener).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(scratch.path("stderr")).unwrap());
        let mut server = Background::start(command);
        let mut ready = Vec::new();
        server.0.stdout.take().unwrap().read_to_end(&mut ready).unwrap();
        assert_eq!(ready, b"\n", "{}", text(scratch.path("stderr")));
        // The command keeps its stdin, which is the listening socket.
        command.stdin(Stdio::null());
        let holder = Holder { scratch, server, socket };
        // Once it has hung up on a mistake, it has its descriptors in order, to be counted.
        assert!(holder.connect().ask(b"", &[]).is_none());
        holder
    }

    pub fn connect(&self) -> Conn {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Conn { stream, inbox: Inbox::default() }
    }

    /// How many descriptors the server has.
    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.server.pid())).unwrap().count()
    }

    /// Ends the server; its exit code.
    pub fn term(mut self) -> i32 {
        self.server.signal(15);
        self.server.code()
    }

    pub fn errors(&self) -> String {
        text(self.scratch.path("stderr"))
    }
}

/// A raw connection to a server.
#[derive(Debug)]
pub struct Conn {
    pub stream: UnixStream,
    inbox: Inbox,
}

/// A message with its header.
pub fn frame(body: &[u8], fds: usize) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], &(fds as u16).to_be_bytes(), body].concat()
}

/// A limit so many seconds from now.
pub fn in_seconds(seconds: u64) -> [u8; 12] {
    Tai64n::now().after(Duration::from_secs(seconds)).pack()
}

impl Conn {
    /// Sends bytes as they are; false if the server has hung up.
    pub fn send_raw(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        scm::send(&self.stream, &[IoSlice::new(bytes)], fds).is_ok_and(|sent| sent == bytes.len())
    }

    /// Sends a message.
    pub fn send(&self, body: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        self.send_raw(&frame(body, fds.len()), fds)
    }

    /// The next answer; `None` if the server hung up.
    pub fn receive(&mut self) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        loop {
            if let Some(message) = self.inbox.take(Limits::FORMAT).unwrap() {
                return Some((message.body.to_vec(), message.fds.collect()));
            }
            match self.inbox.fill(&self.stream) {
                Ok(0) | Err(nix::errno::Errno::ECONNRESET) => return None,
                read => read.expect("an answer, or the end"),
            };
        }
    }

    pub fn ask(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        self.send(body, fds);
        self.receive()
    }

    /// The answer where it is one byte.
    pub fn code(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> u8 {
        let (answer, fds) = self.ask(body, fds).expect("an answer");
        assert_eq!((answer.len(), fds.len()), (1, 0));
        answer[0]
    }

    pub fn store(&mut self, id: &str, fd: impl AsFd, limit: [u8; 12]) -> u8 {
        self.code(&[b"S", &limit[..], &[id.len() as u8], id.as_bytes(), b"\0"].concat(), &[fd.as_fd()])
    }

    pub fn delete(&mut self, id: &str) -> u8 {
        self.code(&[&b"D"[..], &[id.len() as u8], id.as_bytes(), b"\0"].concat(), &[])
    }

    pub fn retrieve(&mut self, id: &str) -> Result<OwnedFd, u8> {
        let (answer, mut fds) =
            self.ask(&[&b"R\0"[..], &[id.len() as u8], id.as_bytes(), b"\0"].concat(), &[]).unwrap();
        fds.pop().ok_or(answer[0])
    }

    /// The names of all that is held.
    pub fn ids(&mut self) -> Vec<String> {
        let (answer, _) = self.ask(b"L", &[]).expect("an answer");
        assert_eq!(answer[0], 0);
        let names: Vec<_> = answer[5..].split(|&b| b == 0).map(|id| String::from_utf8(id.to_vec()).unwrap()).collect();
        names[..names.len() - 1].to_vec()
    }
}
