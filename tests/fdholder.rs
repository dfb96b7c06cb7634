//! The fd-holder and its clients with real descriptors: what is held is kept, what is refused is closed, and nobody
//! disturbs anybody else.

mod common;

use std::collections::VecDeque;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::holder::{ALL, Conn, Holder, allow, frame, in_seconds};
use common::service::Scandir;
use common::{Background, Outcome, Scratch, code, eventually, finish, original, program, run, text, until, with_path};
use s6::servicedir::control;

const EPERM: u8 = 1;
const ENOENT: u8 = 2;
const EBUSY: u8 = 16;
const ENFILE: u8 = 23;

/// A limit that is no limit.
fn never() -> [u8; 12] {
    s6::tai::Tai64n::never().pack()
}

/// Runs a client with a file as its standard input.
fn client(name: &str, args: &[&str], stdin: &Path) -> Outcome {
    let output = program(name).args(args).stdin(std::fs::File::open(stdin).unwrap()).output().unwrap();
    Outcome {
        code: code(output.status),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a descriptor refers to.
fn identity(fd: impl AsFd) -> (u64, u64) {
    let stat = nix::sys::stat::fstat(fd).unwrap();
    (stat.st_dev, stat.st_ino)
}

/// A pipe whose read end tells when the last writer is gone.
fn pipe() -> (std::fs::File, OwnedFd) {
    let (reader, writer) = s6::sys::fd::pipe().unwrap();
    (reader.into(), writer)
}

/// Whether all writers of a pipe are gone, which is waited for.
fn hung_up(mut reader: std::fs::File) -> bool {
    reader.read_to_end(&mut Vec::new()).is_ok()
}

// ---- the clients

#[test]
fn a_descriptor_is_stored_listed_retrieved_and_deleted() {
    let h = Holder::new(&[]);
    let socket = h.socket.to_str().unwrap();
    let file = h.scratch.write("file", "content");
    assert_eq!(client("s6-fdholder-store", &[socket, "a b"], &file).code, 0);
    assert_eq!(client("s6-fdholder-store", &[socket, "a b"], &file).code, 1);
    assert_eq!(run("s6-fdholder-list", &[socket]).out, "a b\n");
    assert_eq!(run("s6-fdholder-retrieve", &[socket, "a b", "cat"]).out, "content");
    assert_eq!(run("s6-fdholder-delete", &[socket, "a b"]).code, 0);
    assert_eq!(run("s6-fdholder-delete", &[socket, "a b"]).code, 1);
    assert_eq!(run("s6-fdholder-list", &[socket]).out, "");
}

#[test]
fn retrieving_leaves_three_descriptors_open() {
    let h = Holder::new(&[]);
    let socket = h.socket.to_str().unwrap();
    client("s6-fdholder-store", &[socket, "x"], &h.scratch.write("file", ""));
    let without = finish(with_path(Command::new("ls")).arg("/proc/self/fd")).out;
    assert_eq!(run("s6-fdholder-retrieve", &[socket, "x", "ls", "/proc/self/fd"]).out, without);
}

#[test]
fn retrieving_with_deletion_leaves_nothing_behind() {
    let h = Holder::new(&[]);
    let socket = h.socket.to_str().unwrap();
    let before = h.fds();
    client("s6-fdholder-store", &[socket, "x"], &h.scratch.write("file", "content"));
    assert_eq!(run("s6-fdholder-retrieve", &["-D", socket, "x", "cat"]).out, "content");
    assert_eq!(run("s6-fdholder-list", &[socket]).out, "");
    until("the descriptor is closed", || h.fds() == before);
}

#[test]
fn names_are_listed_so_that_a_terminal_can_show_them() {
    let h = Holder::new(&[]);
    assert_eq!(h.connect().store("\x1b[31m\\\n\u{e9}\"", std::io::stderr(), never()), 0);
    assert_eq!(run("s6-fdholder-list", &[&h.socket]).out, "\\0x1b[31m\\\\\\n\\0xc3\\0xa9\"\n");
    let nowhere = ["-c", "exec s6-fdholder-list \"$0\" >&-", h.socket.to_str().unwrap()];
    assert_eq!(finish(with_path(Command::new("sh")).args(nowhere)).code, 111);
}

#[test]
fn what_was_not_open_cannot_be_stored() {
    let h = Holder::new(&[]);
    let outcome = run("s6-fdholder-store", &["-d", "200", h.socket.to_str().unwrap(), "x"]);
    assert_eq!((outcome.code, outcome.err.contains("Bad file descriptor")), (1, true));
    let script = ["-c", "exec s6-fdholder-store \"$0\" x <&-", h.socket.to_str().unwrap()];
    let closed = finish(with_path(Command::new("sh")).args(script));
    assert_eq!(closed.code, 1, "standard input was closed");
    assert!(h.connect().ids().is_empty());
}

#[test]
fn a_server_that_is_not_there_is_another_error_than_one_that_refuses() {
    let scratch = Scratch::new();
    let none = scratch.path("none");
    let none = none.to_str().unwrap();
    for (name, args) in [
        ("s6-fdholder-store", &[none, "x"][..]),
        ("s6-fdholder-delete", &[none, "x"]),
        ("s6-fdholder-retrieve", &[none, "x", "true"]),
        ("s6-fdholder-list", &[none]),
        ("s6-fdholder-getdump", &[none, "true"]),
        ("s6-fdholder-transferdump", &[none, none]),
    ] {
        let outcome = run(name, args);
        assert_eq!(outcome.code, 111, "{name}: {}", outcome.err);
        assert!(outcome.err.starts_with(&format!("{name}: fatal: unable to connect to {none}: ")), "{}", outcome.err);
    }
}

#[test]
fn a_server_that_hangs_up_may_not_admit_the_user() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.path("s")).unwrap();
    let socket = scratch.path("s");
    let socket = socket.to_str().unwrap();
    let client = std::thread::spawn({
        let socket = socket.to_owned();
        move || run("s6-fdholder-delete", &[&socket, "x"])
    });
    drop(listener.accept().unwrap());
    let outcome = client.join().unwrap();
    assert_eq!(outcome.code, 1);
    let reason = "unable to delete x (perhaps the server does not admit this user): Broken pipe";
    assert_eq!(outcome.err, format!("s6-fdholder-delete: fatal: {reason}\n"));
}

#[test]
fn a_server_that_never_answers_is_waited_for_as_long_as_told() {
    let scratch = Scratch::new();
    let _listener = UnixListener::bind(scratch.path("s")).unwrap();
    let outcome = run("s6-fdholder-list", &["-t", "50", scratch.path("s").to_str().unwrap()]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("timed out"), "{}", outcome.err);
}

#[test]
fn a_server_of_another_kind_is_recognised() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.path("s")).unwrap();
    for answer in [&b"HTTP/1.1 200 OK\r\n"[..], &frame(b"", 0), &frame(b"\0\0\0\0\x02a\0", 0), &frame(&[9, 9], 0)] {
        let client = Background::start(
            program("s6-fdholder-list").arg(scratch.path("s")).stderr(Stdio::piped()).stdout(Stdio::piped()),
        );
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(answer).unwrap();
        let mut client = client;
        let mut error = String::new();
        client.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(client.code(), 1);
        assert!(error.contains("Protocol error"), "{error}");
    }
}

// ---- messages

#[test]
fn a_request_in_pieces_is_waited_for() {
    let h = Holder::new(&[]);
    let mut c = h.connect();
    let body = [b"S", &never()[..], b"\x02id\0"].concat();
    let message = frame(&body, 1);
    let (reader, writer) = pipe();
    // One byte at a time, the descriptor with the first. Somebody else is served between the pieces.
    for (i, byte) in message.iter().enumerate() {
        let fds = if i == 0 { &[writer.as_fd()][..] } else { &[] };
        assert!(h.connect().ids().is_empty());
        assert!(c.send_raw(&[*byte], fds));
    }
    assert_eq!(c.receive().unwrap().0, [0]);
    assert_eq!(c.ids(), ["id"]);
    drop(writer);
    assert_eq!(c.delete("id"), 0);
    assert!(hung_up(reader));
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let h = Holder::new(&[]);
    let mut c = h.connect();
    let many: Vec<u8> = (0..1000).flat_map(|i| frame(if i % 2 == 0 { b"L" } else { b"D\x01x\0" }, 0)).collect();
    assert!(c.send_raw(&many, &[]));
    for i in 0..1000 {
        let answer = c.receive().expect("an answer").0;
        assert_eq!(answer, if i % 2 == 0 { vec![0; 5] } else { vec![ENOENT] }, "answer {i}");
    }
}

#[test]
fn a_mistake_costs_the_connection_and_nobody_else() {
    let h = Holder::new(&[]);
    let mut witness = h.connect();
    assert_eq!(witness.store("mine", std::io::stderr(), never()), 0);
    let before = h.fds();
    let (reader, writer) = pipe();
    let entry = [&never()[..], b"\x01a\0"].concat();
    let store = [b"S", &entry[..]].concat();
    let dump = [b".", &entry[..]].concat();
    let mut mistakes = vec![
        (frame(b"", 0), 0),
        (frame(b"Z", 1), 1),
        (frame(b"L", 1), 1),
        (frame(&store, 0), 0),
        (frame(&store, 2), 2),
        (frame(&store[..store.len() - 1], 1), 1),
        (frame(&dump, 1), 1),
        (frame(b"D\0\0", 0), 0),
        (frame(b"D\x05x\0", 0), 0),
        (frame(b"L", 200), 1),
        (frame(b"L", 0), 5),
        (b"\xff\xff\xff\xff\0\0".to_vec(), 3),
        (b"\0\0\0\x01\xff\xff".to_vec(), 3),
        (frame(&[b'S'; 300], 0), 0),
    ];
    mistakes.push((frame(b"!\0\0\0", 0), 0));
    for (bytes, fds) in mistakes {
        let mut c = h.connect();
        c.send_raw(&bytes, &vec![writer.as_fd(); fds]);
        assert!(c.receive().is_none(), "{} with {fds} descriptors was answered", bytes.escape_ascii());
    }
    let mut c = h.connect();
    assert_eq!(c.ask(b"!\0\0\0\x01", &[]).unwrap().0, b"\0\0\0\0\x01");
    assert!(c.ask(b"L", &[]).is_none(), "a dump was announced and something else came");
    drop(writer);
    assert!(hung_up(reader), "the server kept a descriptor that it refused");
    assert_eq!(witness.ids(), ["mine"]);
    until("all descriptors but the one are closed", || h.fds() == before);
}

#[test]
fn a_client_that_dies_in_the_middle_leaves_nothing() {
    let h = Holder::new(&[]);
    let before = h.fds();
    let (reader, writer) = pipe();
    for cut in 1..20 {
        let c = h.connect();
        let message = frame(&[b"S", &never()[..], b"\x01a\0"].concat(), 1);
        c.send_raw(&message[..cut], &[writer.as_fd()]);
    }
    drop(writer);
    assert!(hung_up(reader));
    until("all connections are closed", || h.fds() == before);
    assert!(h.connect().ids().is_empty());
}

#[test]
fn a_client_cannot_take_the_descriptors_that_others_need() {
    let h = Holder::new(&["-c", "256"]);
    let mut witness = h.connect();
    assert!(witness.ids().is_empty());
    let before = h.fds();
    let (reader, writer) = pipe();
    let greedy: Vec<Conn> = (0..100).map(|_| h.connect()).collect();
    for c in &greedy {
        c.send_raw(&[0], &[writer.as_fd(); 253]);
    }
    drop(writer);
    assert!(hung_up(reader));
    until("all connections are closed", || h.fds() == before);
    let modest: Vec<Conn> = (0..100).map(|_| h.connect()).collect();
    for c in &modest {
        c.send_raw(&[0], &[std::io::stderr().as_fd()]);
    }
    assert_eq!(witness.store("x", std::io::stderr(), never()), 0);
}

#[test]
fn nonsense_of_any_kind_is_survived() {
    let h = Holder::new(&[]);
    let mut witness = h.connect();
    assert!(witness.ids().is_empty());
    let before = h.fds();
    let (reader, writer) = pipe();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |most: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % most
    };
    for _ in 0..500 {
        let c = h.connect();
        for _ in 0..=random(4) {
            let mut bytes: Vec<u8> = (0..random(40)).map(|_| random(256) as u8).collect();
            if random(2) == 0 {
                bytes.insert(0, b"SDRL?!."[random(7) as usize]);
                bytes = frame(&bytes, random(3) as usize);
            }
            bytes.push(0);
            if !c.send_raw(&bytes, &vec![writer.as_fd(); random(6) as usize]) {
                break;
            }
        }
    }
    drop(writer);
    assert!(hung_up(reader), "a descriptor leaked");
    until("all connections are closed", || h.fds() == before);
    assert!(witness.ids().is_empty());
}

#[test]
fn ten_thousand_silent_connections_cost_slots_and_no_more() {
    s6::sys::fd::raise_limit(4096);
    let h = Holder::new(&["-c", "32", "-t", "30"]);
    let before = h.fds();
    let mut silent = VecDeque::new();
    for _ in 0..10_000 {
        silent.push_back(h.connect());
        if silent.len() > 200 {
            silent.pop_front();
        }
        assert!(silent.len() % 50 != 0 || h.fds() <= before + 33);
    }
    // One that is slow to speak is dropped like the others, so try again.
    until("who speaks is served", || h.connect().ask(b"L", &[]).is_some());
    drop(silent);
    until("all connections are closed", || h.fds() == before);
}

#[test]
fn an_idle_server_does_not_wake_up() {
    let h = Holder::new(&[]);
    let mut c = h.connect();
    assert_eq!(c.store("x", std::io::stderr(), never()), 0);
    let switches = || {
        let status = text(format!("/proc/{}/status", h.server.pid()));
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    let settled = eventually("the server waits", || {
        let (one, _) = (switches(), std::thread::sleep(Duration::from_millis(20)));
        (one == switches()).then_some(one)
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(switches(), settled);
}

// ---- what is held

#[test]
fn a_descriptor_outlives_who_stored_it_and_ends_at_its_limit() {
    let h = Holder::new(&[]);
    let (reader, writer) = pipe();
    assert_eq!(h.connect().store("w", writer, in_seconds(2)), 0);
    assert_eq!(h.connect().ids(), ["w"]);
    assert!(hung_up(reader), "without anybody asking");
    assert!(h.connect().ids().is_empty());
}

#[test]
fn a_limit_in_the_past_is_accepted_and_over() {
    let h = Holder::new(&[]);
    let mut c = h.connect();
    let store = [b"S", &[0x40, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0][..], b"\x01x\0"].concat();
    let (reader, writer) = pipe();
    c.send(&store, &[writer.as_fd()]);
    c.send(b"L", &[]);
    drop(writer);
    assert_eq!(c.receive().unwrap().0, [0]);
    assert_eq!(c.receive().unwrap().0, [0; 5]);
    assert!(hung_up(reader));
}

#[test]
fn equal_limits_are_two_entries_that_end_together() {
    let h = Holder::new(&[]);
    let mut c = h.connect();
    let limit = in_seconds(2);
    let (one, one_writer) = pipe();
    let (two, two_writer) = pipe();
    assert_eq!(c.store("one", one_writer, limit), 0);
    assert_eq!(c.store("two", two_writer, limit), 0);
    assert_eq!(c.ids(), ["one", "two"]);
    assert!(hung_up(one) && hung_up(two));
    assert!(c.ids().is_empty());
}

#[test]
fn there_is_room_for_as_many_as_told() {
    let h = Holder::new(&["-n", "2"]);
    let mut c = h.connect();
    assert!(c.ids().is_empty());
    let before = h.fds();
    assert_eq!(["a", "b", "c"].map(|id| c.store(id, std::io::stderr(), never())), [0, 0, ENFILE]);
    assert_eq!(c.store("a", std::io::stderr(), never()), ENFILE, "room is checked before the name");
    assert_eq!(c.delete("b"), 0);
    assert_eq!(c.store("a", std::io::stderr(), never()), EBUSY);
    assert_eq!(c.ask(b"!\0\0\0\x02", &[]).unwrap().0, [ENFILE]);
    assert_eq!(h.fds(), before + 1);
}

#[test]
fn the_system_bounds_the_room() {
    let mut limited = with_path(Command::new("sh"));
    limited.args(["-c", "ulimit -n 20; exec s6-fdholderd \"$@\"", "sh"]);
    let h = Holder::start(&mut limited, &["-n", "1000"], |scratch| {
        allow(scratch, "uid/default", ALL);
        vec!["-i".into(), scratch.path("rules")]
    });
    let mut c = h.connect();
    // Fourteen names, of which the server's own descriptors and connection leave fewer: what it cannot receive is a
    // client that is dropped, and nothing else.
    let mut stored = Vec::new();
    for i in 0..20 {
        let id = format!("id{i:02}");
        let body = [b"S", &never()[..], b"\x04", id.as_bytes(), b"\0"].concat();
        match c.ask(&body, &[std::io::stderr().as_fd()]) {
            Some((answer, _)) if answer == [0] => stored.push(id),
            Some((answer, _)) => assert_eq!(answer, [ENFILE]),
            None => c = h.connect(),
        }
    }
    assert!((8..=14).contains(&stored.len()), "{stored:?}");
    assert_eq!(c.ids(), stored);
}

#[test]
fn a_server_without_free_numbers_recovers() {
    let mut limited = with_path(Command::new("sh"));
    limited.args(["-c", "ulimit -n 12; exec s6-fdholderd \"$@\"", "sh"]);
    let h = Holder::start(&mut limited, &["-v", "1"], |scratch| {
        allow(scratch, "uid/default", ALL);
        vec!["-i".into(), scratch.path("rules")]
    });
    let mut many: Vec<Conn> = (0..15).map(|_| h.connect()).collect();
    until("the server has no numbers left", || h.errors().contains("warning: unable to "));
    many.truncate(2);
    assert!(h.connect().ids().is_empty());
    let file = std::io::stderr();
    let mut greedy = h.connect();
    greedy.send_raw(&frame(b"?", 0)[..3], &[file.as_fd(); 200]);
    assert!(greedy.receive().is_none(), "more descriptors than fit are refused");
    assert!(h.connect().ids().is_empty());
}

// ---- dumps

/// A thousand descriptors of all kinds.
fn mixed() -> (Vec<(String, OwnedFd, [u8; 12])>, Scratch) {
    s6::sys::fd::raise_limit(4096);
    let scratch = Scratch::new();
    let fds = (0..1000).map(|i| -> OwnedFd {
        match i % 5 {
            0 => std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
            1 => UnixListener::bind(scratch.path(format!("socket{i}"))).unwrap().into(),
            2 => s6::sys::fd::pipe().unwrap().1,
            3 => std::fs::File::create(scratch.path(format!("file{i}"))).unwrap().into(),
            _ => nix::sys::memfd::memfd_create(c"memory", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap(),
        }
    });
    let limit = |i: u64| if i.is_multiple_of(3) { in_seconds(10_000 + i) } else { never() };
    let all = fds.enumerate().map(|(i, fd)| (format!("kind{}: {i}", i % 5), fd, limit(i as u64)));
    (all.collect(), scratch)
}

/// A limit, unless it is none: what never ends is said anew at each transfer.
fn finite(limit: &[u8]) -> Option<Vec<u8>> {
    (limit[0] == 0x40).then(|| limit.to_vec())
}

/// Something that is held: its name, what it refers to, its limit.
type Entry = (String, (u64, u64), Option<Vec<u8>>);

/// Everything a server holds.
fn held(h: &Holder) -> Vec<Entry> {
    let mut c = h.connect();
    let (answer, _) = c.ask(b"?", &[]).unwrap();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let (messages, total) = (number(&answer[1..5]), number(&answer[5..9]));
    let mut all = Vec::new();
    for _ in 0..messages {
        let (body, fds) = c.receive().unwrap();
        let mut rest = &body[..];
        for fd in fds {
            let (limit, after) = rest.split_at(12);
            let (id, after) = after[1..].split_at(usize::from(after[0]));
            rest = &after[1..];
            all.push((String::from_utf8(id.to_vec()).unwrap(), identity(fd), finite(limit)));
        }
        assert!(rest.is_empty());
    }
    assert_eq!(all.len(), total as usize);
    all.sort();
    all
}

#[test]
fn a_thousand_descriptors_move_from_server_to_server_and_none_is_lost() {
    let (all, _files) = mixed();
    let [one, two, three] = [(); 3].map(|()| Holder::new(&["-n", "1100"]));
    let empty = [one.fds(), two.fds(), three.fds()];
    let mut c = one.connect();
    let mut stored = Vec::new();
    for (id, fd, limit) in &all {
        assert_eq!(c.store(id, fd, *limit), 0);
        stored.push((id.clone(), identity(fd), finite(limit)));
    }
    drop(c);
    stored.sort();
    assert!(held(&one) == stored);
    let transferred = run("s6-fdholder-transferdump", &[&one.socket, &two.socket]);
    assert_eq!((transferred.code, transferred.err.as_str()), (0, ""));
    assert!(held(&two) == stored);
    let mut via_environment = program("s6-fdholder-getdump");
    via_environment.arg(&two.socket).arg("s6-fdholder-setdump").arg(&three.socket);
    let via_environment = finish(&mut via_environment);
    assert_eq!((via_environment.code, via_environment.err.as_str()), (0, ""));
    assert!(held(&three) == stored);
    for (h, empty) in [&one, &two, &three].into_iter().zip(empty) {
        until("all connections are closed", || h.fds() == empty + 1000);
    }
    let again = run(
        "s6-fdholder-transferdump",
        &["-t", "20000:", two.socket.to_str().unwrap(), three.socket.to_str().unwrap()],
    );
    assert_eq!(again.code, 1, "replacing a thousand needs room for a thousand more: {}", again.err);
    assert_eq!([one.term(), two.term(), three.term()], [1; 3]);
}

#[test]
fn dumps_move_between_ours_and_the_original() {
    let Some(mut theirs) = original("s6-fdholderd") else { return };
    let (all, _files) = mixed();
    let ours = Holder::new(&["-n", "2000"]);
    let rules = |scratch: &Scratch| {
        allow(scratch, "uid/default", ALL);
        vec!["-i".into(), scratch.path("rules")]
    };
    let theirs = Holder::start(&mut theirs, &["-n", "2000"], rules);
    let mut c = ours.connect();
    for (id, fd, limit) in &all {
        assert_eq!(c.store(id, fd, *limit), 0);
    }
    let transferred = run("s6-fdholder-transferdump", &[&ours.socket, &theirs.socket]);
    assert_eq!((transferred.code, transferred.err.as_str()), (0, ""));
    assert_eq!(theirs.connect().ids().len(), 1000);
    // The original of 2.11 cannot send more than 253 itself.
    let mut c = theirs.connect();
    all[253..].iter().for_each(|(id, _, _)| assert_eq!(c.delete(id), 0));
    for way in ["ours", "theirs"] {
        let back = Holder::new(&[]);
        let mut transfer = if way == "ours" {
            program("s6-fdholder-transferdump")
        } else {
            original("s6-fdholder-transferdump").unwrap()
        };
        let transferred = finish(transfer.args([&theirs.socket, &back.socket]));
        assert_eq!((transferred.code, transferred.err.as_str()), (0, ""), "{way}");
        let same = |h: &Holder| held(h).into_iter().map(|(id, what, _)| (id, what)).collect::<Vec<_>>();
        assert!(same(&back) == same(&theirs));
    }
}

#[test]
fn a_dump_replaces_what_has_the_same_name() {
    let [from, to] = [(); 2].map(|()| Holder::new(&[]));
    let (old, old_writer) = pipe();
    let (_new, new_writer) = pipe();
    let new = identity(&new_writer);
    assert_eq!(to.connect().store("x", old_writer, never()), 0);
    assert_eq!(to.connect().store("y", std::io::stderr(), never()), 0);
    assert_eq!(from.connect().store("x", new_writer, never()), 0);
    assert_eq!(run("s6-fdholder-transferdump", &[&from.socket, &to.socket]).code, 0);
    assert!(hung_up(old));
    assert_eq!(to.connect().ids(), ["x", "y"]);
    assert_eq!(identity(to.connect().retrieve("x").unwrap()), new);
}

#[test]
fn a_transfer_has_a_limit_for_each_side() {
    let (from, to) = (Holder::new(&[]), Holder::new(&[]));
    for (limits, code) in [("5000", 0), ("5000:", 0), (":5000", 0), (":", 0), ("", 100), ("x:1", 100), ("1:2:3", 100)] {
        let mut transfer = program("s6-fdholder-transferdump");
        let outcome = finish(transfer.args(["-t", limits]).arg(&from.socket).arg(&to.socket));
        assert_eq!(outcome.code, code, "{limits}: {}", outcome.err);
    }
}

#[test]
fn an_environment_that_is_wrong_changes_nothing() {
    let h = Holder::new(&[]);
    let sets: &[&[(&str, &str)]] = &[
        &[],
        &[("S6_FD#", "")],
        &[("S6_FD#", "-1")],
        &[("S6_FD#", "1")],
        &[("S6_FD#", "1"), ("S6_FD_0", "0")],
        &[("S6_FD#", "1"), ("S6_FD_0", "zero"), ("S6_FDID_0", "a")],
        &[("S6_FD#", "1"), ("S6_FD_0", "0"), ("S6_FDID_0", "")],
        &[("S6_FD#", "1"), ("S6_FD_0", "0"), ("S6_FDID_0", "a"), ("S6_FDLIMIT_0", "soon")],
        &[("S6_FD#", "2"), ("S6_FD_0", "0"), ("S6_FDID_0", "a"), ("S6_FD_1", "0")],
    ];
    for set in sets {
        let outcome = finish(program("s6-fdholder-setdump").arg(&h.socket).envs(set.iter().copied()));
        assert_eq!(outcome.code, 100, "{set:?}: {}", outcome.err);
    }
    let closed = [("S6_FD#", "1"), ("S6_FD_0", "77"), ("S6_FDID_0", "a")];
    let outcome = finish(program("s6-fdholder-setdump").arg(&h.socket).envs(closed));
    assert_eq!((outcome.code, outcome.err.contains("Bad file descriptor")), (1, true));
    assert!(h.connect().ids().is_empty());
    let none = finish(program("s6-fdholder-setdump").arg(&h.socket).env("S6_FD#", "0"));
    assert_eq!(none.code, 0);
}

// ---- rights

fn with_rules(rules: impl FnOnce(&Scratch)) -> Holder {
    Holder::start(&mut program("s6-fdholderd"), &[], |scratch| {
        std::fs::create_dir_all(scratch.path("rules")).unwrap();
        rules(scratch);
        vec!["-i".into(), scratch.path("rules")]
    })
}

#[test]
fn who_has_no_rule_is_not_let_in() {
    assert!(with_rules(|_| ()).connect().ask(b"L", &[]).is_none());
    let denied = with_rules(|scratch| {
        scratch.write("rules/uid/self/deny", "");
        allow(scratch, "uid/default", ALL);
    });
    assert!(denied.connect().ask(b"L", &[]).is_none());
}

#[test]
fn who_is_only_let_in_may_do_nothing() {
    let h = with_rules(|scratch| allow(scratch, "uid/self", &[("LIST", ""), ("STORE_REGEX", "")]));
    let mut c = h.connect();
    assert_eq!(c.store("x", std::io::stderr(), never()), EPERM);
    for request in [&b"D\x01x\0"[..], b"R\0\x01x\0", b"R\x01\x01x\0", b"L", b"?", b"!\0\0\0\x01"] {
        assert_eq!(c.code(request, &[]), EPERM, "{}", request.escape_ascii());
    }
}

#[test]
fn expressions_say_which_names() {
    let rights = [("STORE_REGEX", "^(a|b)+$\n"), ("RETRIEVE_REGEX", "b\n"), ("LIST", "yes\n")];
    let h = with_rules(|scratch| allow(scratch, "uid/self", &rights));
    let mut c = h.connect();
    assert_eq!(c.store("abc", std::io::stderr(), never()), EPERM);
    assert_eq!(c.store("aa", std::io::stderr(), never()), 0);
    assert_eq!(c.store("ab", std::io::stderr(), never()), 0);
    assert_eq!(c.retrieve("aa").unwrap_err(), EPERM);
    assert!(c.retrieve("ab").is_ok());
    assert_eq!(c.retrieve("xbx").unwrap_err(), ENOENT);
    assert_eq!(c.code(b"R\x01\x03xbx\0", &[]), EPERM, "deletion needs the right to store");
    assert_eq!(c.delete("aa"), 0);
    assert_eq!(c.ids(), ["ab"]);
}

#[test]
fn a_rule_that_is_wrong_denies_and_is_reported() {
    let regex = with_rules(|scratch| allow(scratch, "uid/self", &[("LIST", "\n"), ("STORE_REGEX", "(\n")]));
    assert!(regex.connect().ask(b"L", &[]).is_none());
    until("a warning", || regex.errors().contains("s6-fdholderd: warning: invalid expression"));
    let in_the_way = with_rules(|scratch| drop(scratch.write("rules/uid", "")));
    assert!(in_the_way.connect().ask(b"L", &[]).is_none());
    until("a warning", || in_the_way.errors().contains("warning: unable to read the rule"));
    let exec = with_rules(|scratch| {
        allow(scratch, "uid/self", ALL);
        scratch.write("rules/uid/self/exec", "rm -rf /");
    });
    assert!(exec.connect().ids().is_empty());
    until("a warning", || exec.errors().contains("exec file, which is ignored"));
}

#[test]
fn rules_in_a_directory_count_from_the_next_connection_on() {
    let h = Holder::new(&[]);
    let mut before = h.connect();
    assert!(before.ids().is_empty());
    h.scratch.write("rules/uid/self/deny", "");
    assert!(h.connect().ask(b"L", &[]).is_none());
    assert!(before.ids().is_empty(), "rights are for the life of a connection");
}

#[test]
fn rules_that_are_not_there_yet_are_a_warning_and_admit_nobody_until_then() {
    let h = Holder::start(&mut program("s6-fdholderd"), &[], |scratch| vec!["-i".into(), scratch.path("later")]);
    assert!(h.connect().ask(b"L", &[]).is_none());
    assert!(h.errors().contains("warning: nobody is admitted: unable to look at the rules in "), "{}", h.errors());
    h.scratch.write("later/uid/self/allow", "");
    assert_eq!(h.connect().ask(b"L", &[]).unwrap().0, [EPERM]);
}

#[test]
fn compiled_rules_are_opened_again_on_sighup_unless_they_are_broken() {
    let compile = |scratch: &Scratch, env: &[u8]| {
        let mut writer = s6::local::cdb::Writer::new();
        let rule = s6::local::access::Allow { env: env.to_vec(), exec: Vec::new() };
        writer.add(b"uid/default", &rule.encode().unwrap()).unwrap();
        scratch.write("new", writer.finish());
        std::fs::rename(scratch.path("new"), scratch.path("cdb")).unwrap();
    };
    let h = Holder::start(&mut program("s6-fdholderd"), &[], |scratch| {
        compile(scratch, b"S6_FDHOLDER_LIST=\0");
        vec!["-x".into(), scratch.path("cdb")]
    });
    assert_eq!(h.connect().ask(b"L", &[]).unwrap().0, [0; 5]);
    compile(&h.scratch, b"");
    assert_eq!(h.connect().ask(b"L", &[]).unwrap().0, [0; 5], "not yet");
    h.server.signal(1);
    until("the new rules count", || h.connect().ask(b"L", &[]).unwrap().0 == [EPERM]);
    h.scratch.write("cdb", "");
    h.server.signal(1);
    until("a warning", || h.errors().contains("keeping the old rules"));
    assert_eq!(h.connect().ask(b"L", &[]).map(|(answer, _)| answer), None, "the open file was cut short: denied");
    until("a warning", || h.errors().contains("unable to read the rule"));
    let mut silent = Holder::start(&mut program("s6-fdholderd"), &["-v", "0"], |scratch| {
        compile(scratch, b"S6_FDHOLDER_LIST=\0");
        vec!["-x".into(), scratch.path("cdb")]
    });
    std::fs::rename(silent.scratch.path("cdb"), silent.scratch.path("old")).unwrap();
    silent.server.signal(1);
    assert_eq!(silent.connect().ask(b"L", &[]).unwrap().0, [0; 5]);
    silent.server.signal(15);
    assert_eq!((silent.server.code(), silent.errors().as_str()), (0, ""));
}

// ---- the life of a server

#[test]
fn the_exit_code_says_what_is_lost() {
    assert_eq!(Holder::new(&[]).term(), 0);
    let h = Holder::new(&[]);
    let mut c = h.connect();
    assert!(c.ids().is_empty());
    assert_eq!(h.term(), 2);
    let h = Holder::new(&[]);
    let mut c = h.connect();
    assert_eq!(c.store("x", std::io::stderr(), never()), 0);
    assert_eq!(h.term(), 3);
    let h = Holder::new(&[]);
    let before = h.fds();
    assert_eq!(h.connect().store("x", std::io::stderr(), never()), 0);
    until("the connection is closed", || h.fds() == before + 1);
    assert_eq!(h.term(), 1);
}

#[test]
fn who_has_begun_to_ask_is_answered_before_the_end() {
    let mut h = Holder::new(&[]);
    let mut c = h.connect();
    let message = frame(b"L", 0);
    assert!(c.ids().is_empty());
    assert!(c.send_raw(&message[..3], &[]));
    let mut other = h.connect();
    assert!(other.ids().is_empty(), "the first piece has been read");
    h.server.signal(15);
    until("nobody else is let in", || UnixStream::connect(&h.socket).is_err());
    assert!(h.server.is_running());
    assert!(c.send_raw(&message[3..], &[]));
    assert_eq!(c.receive().unwrap().0, [0; 5]);
    assert_eq!(h.server.code(), 2);
}

#[test]
fn the_end_does_not_wait_longer_than_told() {
    let mut h = Holder::new(&["-T", "50"]);
    let mut c = h.connect();
    assert!(c.ids().is_empty());
    c.send_raw(b"\0", &[]);
    assert!(h.connect().ids().is_empty());
    h.server.signal(15);
    assert_eq!(h.server.code() & 2, 2);
}

#[test]
fn a_client_may_not_take_too_long_to_ask_or_to_listen() {
    let h = Holder::new(&["-t", "1000", "-n", "900"]);
    let mut silent = h.connect();
    assert!(silent.receive().is_none(), "said nothing");
    let mut slow = h.connect();
    assert!(slow.ids().is_empty());
    std::thread::sleep(Duration::from_millis(1100));
    assert!(slow.ids().is_empty(), "who has been answered may wait");
    slow.send_raw(b"\0\0", &[]);
    assert!(slow.receive().is_none(), "half a message");
    let mut deaf = h.connect();
    for i in 0..800 {
        assert_eq!(deaf.store(&format!("{i:0>250}"), std::io::stderr(), never()), 0);
    }
    // Lists of 200 kB each, more than a socket holds.
    let many: Vec<u8> = (0..100).flat_map(|_| frame(b"L", 0)).collect();
    let mut late = h.connect();
    assert!(late.send_raw(&many, &[]));
    std::thread::sleep(Duration::from_millis(200));
    (0..100).for_each(|_| assert_eq!(late.receive().unwrap().0[..5], [0, 0, 0, 3, 32]));
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(late.ids().len(), 800, "who has taken its answers late may wait, too");
    assert!(deaf.send_raw(&many, &[]));
    let begin = Instant::now();
    until("it is dropped", || {
        let mut polled = [nix::poll::PollFd::new(deaf.stream.as_fd(), nix::poll::PollFlags::empty())];
        nix::poll::poll(&mut polled, 0u8).unwrap();
        polled[0].any() == Some(true)
    });
    assert!(begin.elapsed() > Duration::from_millis(900));
}

#[test]
fn who_is_one_too_many_waits_in_the_queue() {
    let h = Holder::new(&["-c", "1"]);
    let mut first = h.connect();
    assert!(first.ids().is_empty());
    let mut second = h.connect();
    second.send(b"L", &[]);
    for _ in 0..20 {
        assert!(first.ids().is_empty());
    }
    second.stream.set_nonblocking(true).unwrap();
    assert!((&second.stream).read(&mut [0]).is_err(), "it is not its turn");
    second.stream.set_nonblocking(false).unwrap();
    drop(first);
    assert_eq!(second.receive().unwrap().0, [0; 5]);
}

#[test]
fn a_server_needs_rules_a_socket_and_an_open_standard_output() {
    let scratch = Scratch::new();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let run = |script: &str| {
        let stdin = OwnedFd::from(socket.try_clone().unwrap());
        let output = with_path(Command::new("sh"))
            .args(["-c", script])
            .stdin(stdin)
            .current_dir(scratch.path(""))
            .output()
            .unwrap();
        (code(output.status), String::from_utf8(output.stderr).unwrap())
    };
    for (script, want) in [
        ("exec s6-fdholderd", 100),
        ("exec s6-fdholderd -i rules </dev/null", 100),
        ("exec s6-fdholderd -1 -i rules >&-", 100),
        ("ulimit -n 6; exec s6-fdholderd -i rules", 111),
        ("exec s6-fdholderd -x none", 111),
        ("exec s6-fdholderd -i rules", 111), // it is connected and does not listen
    ] {
        let (code, error) = run(script);
        assert_eq!(code, want, "{script}: {error}");
        assert!(error.starts_with("s6-fdholderd: "), "{script}: {error}");
    }
}

// ---- s6-fdholder-daemon

/// The command line that it puts together, word by word.
fn daemon(args: &[&str]) -> Vec<String> {
    let scratch = Scratch::new();
    scratch.script("s6-ipcserver-socketbinder", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n");
    let mut command = Command::new(common::bin_dir().join("s6-fdholder-daemon"));
    let path = std::env::var("PATH").unwrap();
    let outcome = finish(command.args(args).env("PATH", format!("{}:{path}", scratch.path("").display())));
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    outcome.out.lines().map(str::to_owned).collect()
}

#[test]
fn the_daemon_is_put_together_from_parts() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(daemon(&["-i", "r", "s"]), words("-- s s6-fdholderd -i r"));
    assert_eq!(
        daemon(&["-1D", "-v2", "-c0", "-n0", "-b9", "-t5", "-T6", "-u1", "-g2", "-G3,4", "-i", "r", "-x", "c", "s"]),
        words("-D -b 9 -- s s6-applyuidgid -u 1 -g 2 -G 3,4 -- s6-fdholderd -v 2 -1 -c 1 -n 1 -t 5 -T 6 -x c")
    );
    assert_eq!(
        daemon(&["-v1", "-t0", "-u1", "-U", "-g7", "-Dd", "-i", "r", "s"]),
        words("-- s s6-applyuidgid -Uz -g 7 -- s6-fdholderd -i r")
    );
}

#[test]
fn the_daemon_needs_a_path_and_rules() {
    for args in [&["-i", "r"][..], &["s"], &["-n", "x", "-i", "r", "s"], &["-G", "wheel", "-i", "r", "s"], &["-q", "s"]]
    {
        assert_eq!(run("s6-fdholder-daemon", args).code, 100, "{args:?}");
    }
}

// ---- the examples

/// A client of the example server, which may have something sent back twice.
struct Echo {
    stream: std::io::BufReader<UnixStream>,
    said: usize,
}

impl Echo {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("no connection is refused");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Echo { stream: std::io::BufReader::new(stream), said: 0 }
    }

    /// Says a number and hears it.
    fn talk(&mut self) {
        self.said += 1;
        self.stream.get_mut().write_all(format!("{}\n", self.said).as_bytes()).unwrap();
        let mut heard = 0;
        while heard != self.said {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).expect("an answer") > 0, "the server hung up");
            let number = line.trim_end().parse().unwrap();
            assert!(number == self.said || number == heard || number + 1 == self.said, "{number} for {}", self.said);
            heard = number;
        }
    }
}

#[test]
fn the_example_server_keeps_its_clients_while_it_and_its_holder_are_replaced() {
    if finish(Command::new("sh").args(["-c", "command -v python3"])).code != 0 {
        return common::skip("the example server is written in python3");
    }
    let scandir = Scandir::new();
    for name in ["fdholder", "fdholder-server"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("servicedir-examples").join(name);
        assert_eq!(finish(Command::new("cp").arg("-R").args([&source, &scandir.scratch.path(name)])).code, 0);
    }
    let socket = scandir.scratch.path("fdholder-server/socket");
    let mut tree = scandir.scan(&[]);
    until("the server is there", || UnixStream::connect(&socket).is_ok());
    let mut old_clients: Vec<Echo> = (0..20).map(|_| Echo::connect(&socket)).collect();
    old_clients.iter_mut().for_each(Echo::talk);
    let mut after = |command: &str, new_clients: usize| {
        let before = tree.wait_up("fdholder-server");
        control::send(&tree.service("fdholder-server"), "supervise", command.as_bytes()).unwrap();
        // They may find nobody, and wait.
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| (0..new_clients / 5).for_each(|_| Echo::connect(&socket).talk()));
            }
        });
        old_clients.iter_mut().for_each(Echo::talk);
        until("another server runs", || tree.wait_up("fdholder-server") != before);
    };
    // 1000 connections over 20 restarts.
    (0..20).for_each(|_| after("r", 50));
    (0..3).for_each(|_| after("k", 0));
    let holder = tree.wait_up("fdholder");
    let replaced = finish(&mut with_path(Command::new(tree.scandir.scratch.path("fdholder/replace"))));
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    assert_ne!(tree.wait_up("fdholder"), holder);
    after("r", 50);
    assert_eq!(tree.end(), 0);
}
