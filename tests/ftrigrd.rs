//! s6-ftrigrd, spoken to as the C library does, byte for byte.

mod common;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::service::c;
use common::{Background, Scratch, run, text, until, with_path};
use s6::events::fifodir;
use s6::sys::{Errno, fd};

/// What `subscribe` puts before the two strings.
const REPEAT: u32 = 1;

/// A server with its three channels, and a fifodir.
struct Server {
    scratch: Scratch,
    process: Background,
    requests: Option<std::fs::File>,
    answers: std::fs::File,
    events: std::fs::File,
}

/// The next message of a channel; `None` at its end.
fn receive(mut channel: &std::fs::File) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    channel.read_exact(&mut length).ok()?;
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    channel.read_exact(&mut message).unwrap();
    Some(message)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

impl Server {
    /// Started, but not greeted.
    fn start() -> Server {
        Self::start_by("exec 9>&2 2>stderr; SKALIBS_CHILD_SPAWN_FDS=9 exec s6-ftrigrd")
    }

    /// Started by a script for sh that has the channel for events at 2.
    fn start_by(script: &str) -> Server {
        let scratch = Scratch::new();
        fifodir::make(&c(scratch.path("event")), fifodir::Access::Public, false).unwrap();
        let [requests, answers, events] = [(); 3].map(|()| fd::pipe().unwrap());
        let mut shell = with_path(Command::new("sh"));
        shell.args(["-c", script]);
        shell.current_dir(scratch.path("")).stdin(requests.0).stdout(answers.1).stderr(events.1);
        let process = Background::start(&mut shell);
        // The command keeps its ends of the channels.
        drop(shell);
        let [requests, answers, events] = [requests.1, answers.0, events.0].map(std::fs::File::from);
        Server { scratch, process, requests: Some(requests), answers, events }
    }

    /// Started and greeted.
    fn new() -> Server {
        Server::start().greeted()
    }

    fn greeted(self) -> Server {
        self.send(b"ftrigr v2.0 (b)\n");
        assert_eq!(receive(&self.events).as_deref(), Some(&b"ftrigr v2.0 (a)\n"[..]));
        assert_eq!(receive(&self.answers).as_deref(), Some(&b"ftrigr v2.0 (a)\n"[..]));
        self
    }

    fn raw(&self, bytes: &[u8]) {
        self.requests.as_ref().unwrap().write_all(bytes).unwrap();
    }

    fn send(&self, message: &[u8]) {
        self.raw(&[&(message.len() as u32).to_be_bytes()[..], message].concat());
    }

    fn event_dir(&self) -> PathBuf {
        self.scratch.path("event")
    }

    /// Subscribes and returns the errno.
    fn subscribe(&self, id: u32, expression: &str, flags: u32, timeout: u32) -> u32 {
        self.subscribe_to(&self.event_dir(), id, expression, flags, timeout)
    }

    fn subscribe_to(&self, dir: &std::path::Path, id: u32, expression: &str, flags: u32, timeout: u32) -> u32 {
        let target = [dir.as_os_str().as_encoded_bytes(), b"\0", expression.as_bytes(), b"\0"].concat();
        let fields = [id, flags, timeout, 0, target.len() as u32];
        let fields: Vec<u8> = fields.iter().flat_map(|field| field.to_be_bytes()).collect();
        self.send(&[&b"+"[..], &fields, &target].concat());
        number(&receive(&self.answers).unwrap())
    }

    fn cancel(&self, id: u32) -> u32 {
        self.send(&[&b"-"[..], &id.to_be_bytes()].concat());
        number(&receive(&self.answers).unwrap())
    }

    /// The next event: id, status, what came.
    fn event(&self) -> (u32, u32, String) {
        let event = receive(&self.events).expect("an event");
        (number(&event[..4]), number(&event[4..8]), String::from_utf8_lossy(&event[8..]).into_owned())
    }

    fn notify(&self, letters: &str) {
        fifodir::ignore_vanishing_readers();
        fifodir::notify(&c(self.event_dir()), letters.as_bytes()).unwrap();
    }

    /// How many fifos there are.
    fn fifos(&self) -> usize {
        std::fs::read_dir(self.event_dir()).unwrap().count()
    }

    /// Closes the connection; the exit code.
    fn end(mut self) -> i32 {
        self.requests = None;
        let code = self.process.code();
        assert_eq!(self.fifos(), 0, "fifos were left behind");
        code
    }
}

fn errno(errno: Errno) -> u32 {
    errno as u32
}

#[test]
fn an_event_that_matches_is_delivered_with_all_that_came_before_it() {
    let server = Server::new();
    assert_eq!(server.subscribe(7, "a.*d", 0, 0), 0);
    assert_eq!(server.fifos(), 1, "subscribed means that the fifo is there");
    for letters in ["xa", "b", "cde"] {
        server.notify(letters);
    }
    assert_eq!(server.event(), (7, 0, "xabcde".into()));
    assert_eq!(server.end(), 0);
}

#[test]
fn a_subscription_without_repeat_ends_with_its_match() {
    let server = Server::new();
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    server.notify("x");
    assert_eq!(server.event(), (1, 0, "x".into()));
    until("the fifo is gone", || server.fifos() == 0);
    assert_eq!(server.cancel(1), errno(Errno::EINVAL));
    // The original crashes here.
    assert_eq!(server.subscribe(1, "y", 0, 0), 0);
    server.notify("xy");
    assert_eq!(server.event(), (1, 0, "xy".into()));
    assert_eq!(server.end(), 0);
}

#[test]
fn a_subscription_with_repeat_starts_anew_after_each_match() {
    let server = Server::new();
    assert_eq!(server.subscribe(3, "^.b", REPEAT, 0), 0);
    server.notify("ab");
    assert_eq!(server.event(), (3, 0, "ab".into()));
    server.notify("c");
    server.notify("b");
    assert_eq!(server.event(), (3, 0, "cb".into()));
    server.notify(&"b".repeat(100));
    let lengths: Vec<_> = (0..4).map(|_| server.event().2.len()).collect();
    assert_eq!(lengths, [31, 31, 31, 7]);
    assert_eq!(server.cancel(3), 0);
    assert_eq!(server.fifos(), 0, "cancelled means that the fifo is gone");
    assert_eq!(server.end(), 0);
}

#[test]
fn cancelling_what_is_not_there_is_an_error_and_nothing_more() {
    let server = Server::new();
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    for id in [0, 2, u32::MAX] {
        assert_eq!(server.cancel(id), errno(Errno::EINVAL));
    }
    server.notify("x");
    assert_eq!(server.event(), (1, 0, "x".into()));
    assert_eq!(server.end(), 0);
}

#[test]
fn a_timeout_is_told_under_the_name_that_the_client_gave() {
    let server = Server::new();
    assert_eq!(server.subscribe(4_000_000_000, "x", REPEAT, 60_000), 0);
    assert_eq!(server.subscribe(77, "x", REPEAT, 30), 0);
    assert_eq!(server.event(), (77, errno(Errno::ETIMEDOUT), String::new()));
    until("its fifo is gone", || server.fifos() == 1);
    server.notify("x");
    assert_eq!(server.event(), (4_000_000_000, 0, "x".into()));
    assert_eq!(server.cancel(77), errno(Errno::EINVAL));
    assert_eq!(server.end(), 0);
}

#[test]
fn a_subscription_that_cannot_be_made_is_answered_and_leaves_nothing() {
    let server = Server::new();
    let file = server.scratch.write("file", "");
    assert_eq!(server.subscribe(1, "(", 0, 0), errno(Errno::EINVAL));
    assert_eq!(server.subscribe_to(&server.scratch.path("none"), 1, "x", 0, 0), errno(Errno::ENOENT));
    assert_eq!(server.subscribe_to(&file, 1, "x", 0, 0), errno(Errno::ENOTDIR));
    server.send(b"+\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02a\0");
    assert_eq!(number(&receive(&server.answers).unwrap()), errno(Errno::EPROTO));
    assert_eq!(server.fifos(), 0);
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    assert_eq!(server.end(), 0);
}

#[test]
fn requests_come_in_pieces_and_many_at_once() {
    let server = Server::start();
    for byte in b"\0\0\0\x10ftrigr v2.0 (b)\n" {
        server.raw(&[*byte]);
    }
    assert!(receive(&server.answers).is_some());
    server.raw(&b"\0\0\0\x05-\0\0\0\x09".repeat(2000));
    for _ in 0..2000 {
        assert_eq!(number(&receive(&server.answers).unwrap()), errno(Errno::EINVAL));
    }
    assert_eq!(server.end(), 0);
}

#[test]
fn a_flood_that_matches_nothing_is_survived_in_little_memory() {
    let server = Server::new();
    let memory = || {
        let status = text(format!("/proc/{}/status", server.process.pid()));
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(server.subscribe(1, "end$", REPEAT, 0), 0);
    server.notify("x");
    let before = memory();
    for _ in 0..2000 {
        server.notify(&"x".repeat(4000));
    }
    let mut tries = 0;
    // The fifo may be full: then letters are lost, which is the notifier's rule.
    until("what matches still matches", || {
        server.notify("end");
        tries += 1;
        let mut polled =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&server.events), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut polled, 10u8).unwrap() > 0
    });
    assert!(server.event().2.ends_with("end"));
    assert!(memory() < before + 1024, "{} kB, {before} kB before", memory());
}

#[test]
fn a_client_that_reads_no_events_does_not_make_the_server_grow() {
    let server = Server::new();
    assert_eq!(server.subscribe(1, "x", REPEAT, 0), 0);
    for _ in 0..5000 {
        server.notify(&"x".repeat(1000));
    }
    // It still answers, and what it kept is bounded by two pipes and its own buffer.
    assert_eq!(server.cancel(1), 0);
    assert_eq!(server.subscribe(2, "y", 0, 0), 0);
    server.notify("y");
    let mut bytes = 0;
    while let (1, 0, letters) = server.event() {
        bytes += letters.len();
    }
    assert!((1..400_000).contains(&bytes), "{bytes}");
    assert_eq!(server.end(), 0);
}

#[test]
fn who_breaks_the_protocol_is_left_without_a_fifo_behind() {
    for message in [&b"abc"[..], b"?abcdef", b"-abcdefgh", b"+1234567", b""] {
        let server = Server::new();
        assert_eq!(server.subscribe(1, "x", 0, 0), 0);
        server.send(message);
        assert_eq!(server.end(), 100, "{}", message.escape_ascii());
    }
    let server = Server::new();
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    server.raw(&0x0100_0001u32.to_be_bytes());
    assert_eq!(server.end(), 111);
}

#[test]
fn a_signal_ends_it_without_a_fifo_behind() {
    for signal in [15, 2, 1] {
        let mut server = Server::new();
        assert_eq!(server.subscribe(1, "x", 0, 0), 0);
        server.process.signal(signal);
        assert_eq!(server.process.code(), 128 + signal, "its parent sees which signal");
        assert_eq!(server.fifos(), 0);
    }
}

#[test]
fn a_client_that_reads_no_more_is_an_error() {
    for close_events in [true, false] {
        let mut server = Server::new();
        assert_eq!(server.subscribe(1, "x", 0, 0), 0);
        let channel = if close_events { &mut server.events } else { &mut server.answers };
        *channel = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(server.process.code(), 111);
        assert_eq!(server.fifos(), 0);
        assert!(text(server.scratch.path("stderr")).starts_with("s6-ftrigrd: fatal: "));
    }
}

#[test]
fn a_client_that_ends_is_not_worth_a_message() {
    let mut server = Server::new();
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    let null = || std::fs::File::open("/dev/null").unwrap();
    // As the C library closes: not all at once.
    server.events = null();
    server.answers = null();
    server.requests = None;
    assert_eq!(server.process.code(), 0);
    assert_eq!(text(server.scratch.path("stderr")), "");
    assert_eq!(server.fifos(), 0);
}

#[test]
fn who_does_not_greet_is_not_waited_for_long() {
    let mut server = Server::start();
    assert_eq!(server.process.code(), 111);
    assert!(text(server.scratch.path("stderr")).contains("greeting"));
    let server = Server::start();
    server.send(b"ftrigr v1.0 (b)\n");
    assert_eq!(server.end(), 111);
    assert_eq!(Server::start().end(), 111);
}

#[test]
fn the_channel_for_events_may_be_where_stderr_would_be() {
    let server = Server::start_by("SKALIBS_CHILD_SPAWN_FDS=2 exec s6-ftrigrd").greeted();
    assert_eq!(server.subscribe(1, "x", 0, 0), 0);
    server.notify("x");
    assert_eq!(server.event(), (1, 0, "x".into()));
    server.send(b"nonsense");
    assert_eq!(receive(&server.events), None, "no message is among the events");
    assert_eq!(server.end(), 100);
}

#[test]
fn the_channel_for_events_must_be_named() {
    let outcome = run::<&str>("s6-ftrigrd", &[]);
    assert_eq!(outcome.code, 111);
    assert!(outcome.err.contains("$SKALIBS_CHILD_SPAWN_FDS not set"));
    for wrong in ["", "1", "x", "99"] {
        let mut command = common::program("s6-ftrigrd");
        let outcome = common::finish(command.env("SKALIBS_CHILD_SPAWN_FDS", wrong).stdout(Stdio::null()));
        assert_eq!(outcome.code, 111, "{wrong}");
    }
}
