//! s6-sudo: a server runs a program of its choice for a client, on the client's descriptors.

mod common;

use std::ffi::{CStr, CString};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::service::Scandir;
use common::user::{NOBODY, for_everyone, is_root};
use common::{Background, Scratch, finish, original, program, run, skip, text, until};
use proptest::prelude::*;
use s6::local::sudo::Request;
use s6::sys::{fd, scm};

/// A program of ours, or of Debian's; `None` where that is not installed.
fn on(ours: bool, name: &str) -> Option<Command> {
    if ours { Some(program(name)) } else { original(name) }
}

/// s6-sudod behind s6-ipcserver, on the socket `s` of a directory.
fn serve(scratch: &Scratch, ours: bool, variables: &[(&str, &str)], words: &[&str]) -> Option<Background> {
    let mut command = on(ours, "s6-ipcserver")?;
    command.args(["-1", "s"]).args(words).envs(variables.iter().copied()).current_dir(scratch.path(""));
    let errors = std::fs::File::create(scratch.path("err")).unwrap();
    let mut server = Background::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors));
    server.0.stdout.take().unwrap().read_exact(&mut [0; 1]).expect("the server is ready");
    Some(server)
}

fn path_of(ours: bool, name: &str) -> String {
    if ours { common::bin_dir().join(name).into_os_string().into_string().unwrap() } else { format!("/usr/bin/{name}") }
}

#[test]
fn descriptors_arguments_chosen_variables_and_the_exit_code_pass_between_all_implementations() {
    for (ours_asks, ours_serves) in [(true, true), (true, false), (false, true)] {
        let scratch = Scratch::new();
        let script = "cat; echo $X,$Y,$Z,$1,$2; echo error >&2; case $1 in kill) kill -9 $$ ;; esac; exit $1";
        let words = [&path_of(ours_serves, "s6-sudod"), "sh", "-c", script, "sh"];
        let Some(_server) = serve(&scratch, ours_serves, &[("X", ""), ("Y", "server")], &words) else { return };
        for (argument, code) in [("0", 0), ("5", 5), ("127", 127), ("128", 128), ("200", 128), ("kill", 137)] {
            let Some(mut client) = on(ours_asks, "s6-sudo") else { return };
            client.args(["s", argument, "a b"]).env("X", "client").env("Y", "client").env("Z", "client");
            client.current_dir(scratch.path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = client.spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"input ").unwrap();
            let output = child.wait_with_output().unwrap();
            let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert_eq!(told(&output.stdout), format!("input client,server,,{argument},a b\n"));
            assert_eq!((told(&output.stderr).as_str(), common::code(output.status)), ("error\n", code));
        }
    }
}

#[test]
fn a_large_request_passes_in_pieces() {
    let scratch = Scratch::new();
    let words = [&path_of(true, "s6-sudod"), "sh", "-c", "echo $#; printf %s \"$*\" | wc -c", "sh"];
    let _server = serve(&scratch, true, &[], &words);
    let arguments = vec!["x".repeat(999); 1000];
    let outcome = finish(program("s6-sudo").args(["-e", "s"]).args(arguments).current_dir(scratch.path("")));
    assert_eq!(outcome.out, "1000\n999999\n", "{}", outcome.err);
}

#[test]
fn a_user_gets_what_the_server_runs_for_it_and_nothing_else() {
    if !is_root() {
        return skip("another user needs root");
    }
    let scratch = Scratch::new();
    let bin = for_everyone(&scratch, &["s6-sudo", "s6-ipcclient", "s6-sudoc"]);
    scratch.write(format!("rules/uid/{NOBODY}/allow"), "");
    let words = [&path_of(true, "s6-ipcserver-access"), "-i", "rules", &path_of(true, "s6-sudod"), "id", "-u"];
    let _server = serve(&scratch, true, &[], &words);
    let ask = |uid: u32| {
        let mut client = Command::new(bin.join("s6-sudo"));
        client.arg("s").current_dir(scratch.path("")).uid(uid).gid(uid);
        finish(client.env("PATH", format!("{}:/usr/bin:/bin", bin.display())))
    };
    assert_eq!((ask(NOBODY).out.as_str(), ask(NOBODY).code), ("0\n", 0));
    let refused = ask(12);
    assert_eq!((refused.out.as_str(), refused.code), ("", 111));
    assert!(refused.err.starts_with("s6-sudoc: fatal: "), "{}", refused.err);
}

/// servicedir-examples/sudo-restart: what an ordinary user can do with it, and what not.
#[test]
fn an_unprivileged_client_restarts_one_service() {
    if !is_root() {
        return skip("another user needs root");
    }
    let scandir = Scandir::new();
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("servicedir-examples");
    let names = ["plain", "sudo-restart"];
    let copied =
        finish(Command::new("cp").arg("-R").args(names.map(|name| examples.join(name))).arg(scandir.scratch.path("")));
    assert_eq!(copied.code, 0, "{copied:?}");
    let bin = for_everyone(&scandir.scratch, &["s6-sudo", "s6-ipcclient", "s6-sudoc", "s6-svc"]);
    // Not a service.
    let hidden = scandir.scratch.path(".bin");
    std::fs::rename(bin, &hidden).unwrap();
    let tree = scandir.scan(&[]);
    let first = tree.wait_up("plain");
    let socket = tree.scandir.scratch.path("sudo-restart/socket");
    until("the server listens", || socket.exists());

    let as_user = |uid: u32, words: &[&str]| {
        let mut command = Command::new(hidden.join(words[0]));
        command.args(&words[1..]).current_dir(tree.scandir.scratch.path("")).uid(uid).gid(uid);
        finish(command.env("PATH", format!("{}:/usr/bin:/bin", hidden.display())))
    };
    assert_eq!(as_user(NOBODY, &["s6-svc", "-r", "plain"]).code, 111);
    let restart = ["s6-sudo", "sudo-restart/socket", "-k", "../sudo-restart"];
    assert_eq!(as_user(12, &restart).code, 111);
    assert_eq!(tree.wait_up("plain"), first);
    let outcome = as_user(NOBODY, &restart);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_ne!(tree.wait_up("plain"), first);
}

#[test]
fn the_end_of_the_output_does_not_wait_for_the_client() {
    let scratch = Scratch::new();
    let words = [&path_of(true, "s6-sudod"), "sh", "-c", "echo one; exec >&2; while ! [ -e go ]; do sleep 0.02; done"];
    let _server = serve(&scratch, true, &[], &words);
    let mut client = Background::start(
        program("s6-sudo").arg("s").current_dir(scratch.path("")).stdin(Stdio::null()).stdout(Stdio::piped()),
    );
    let mut out = String::new();
    client.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(client.is_running());
    scratch.write("go", "");
    assert_eq!((out.as_str(), client.code()), ("one\n", 0));
}

/// s6-sudod at one end of a pair of sockets.
struct Sudod {
    process: Background,
    client: UnixStream,
}

impl Sudod {
    fn start(words: &[&str]) -> Sudod {
        let (client, server) = UnixStream::pair().unwrap();
        let server = OwnedFd::from(server);
        let mut command = program("s6-sudod");
        command.args(words).env("EMPTY", "").stdin(server.try_clone().unwrap()).stdout(server);
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Sudod { process: Background::start(command.stderr(Stdio::null())), client }
    }

    /// As [`Sudod::start`], up to its banner.
    fn greeted(words: &[&str]) -> Sudod {
        let mut sudod = Sudod::start(words);
        assert_eq!(&sudod.read::<15>().unwrap(), b"s6-sudo b v1.0\n");
        sudod
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        // It may have gone away already.
        let _ = scm::send(self.client.as_fd(), &[IoSlice::new(bytes)], fds);
    }

    /// Sends a whole request with /dev/null for its input and these for the rest.
    fn ask(&self, args: &[&CStr], env: &[&CStr], output: BorrowedFd<'_>) {
        let null = std::fs::File::open("/dev/null").unwrap();
        self.send(&message(args, env), &[null.as_fd(), output, output]);
    }

    /// The next bytes; `None` at the end of the connection, or if it was cut.
    fn read<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.client.read_exact(&mut bytes).ok().map(|()| bytes)
    }
}

/// The bytes of a request with three descriptors.
fn message(args: &[&CStr], env: &[&CStr]) -> Vec<u8> {
    let body = Request { args: args.to_vec(), env: env.to_vec() }.encode();
    [&(body.len() as u32).to_be_bytes()[..], &[0, 3], &body].concat()
}

#[test]
fn a_client_that_leaves_ends_the_program_and_one_that_has_said_all_does_not() {
    let script = "trap 'echo term; exit' TERM; echo up; while ! [ -e \"$1\" ]; do sleep 0.02; done; echo done";
    let scratch = Scratch::new();
    let go = CString::new(scratch.path("go").to_str().unwrap()).unwrap();
    for leaves in [true, false] {
        let mut sudod = Sudod::greeted(&["sh", "-c", script, "sh"]);
        let (reader, writer) = nix::unistd::pipe().unwrap();
        sudod.ask(&[&go], &[], writer.as_fd());
        drop(writer);
        let mut output = std::fs::File::from(reader);
        let mut up = [0; 3];
        output.read_exact(&mut up).unwrap();
        assert_eq!((sudod.read::<1>(), &up), (Some([0]), b"up\n"));
        let mut rest = String::new();
        if leaves {
            drop(std::mem::replace(&mut sudod.client, UnixStream::pair().unwrap().0));
            assert_eq!(sudod.process.code(), 1);
            output.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "term\n");
        } else {
            sudod.client.shutdown(std::net::Shutdown::Write).unwrap();
            scratch.write("go", "");
            output.read_to_string(&mut rest).unwrap();
            assert_eq!((rest.as_str(), sudod.read::<4>(), sudod.process.code()), ("done\n", Some([0; 4]), 0));
        }
    }
}

#[test]
fn a_detached_program_outlives_its_client() {
    let scratch = Scratch::new();
    let script = "while ! [ -e go ]; do sleep 0.02; done; echo done > result";
    let words = ["-d", "sh", "-c", &format!("cd {}; {script}", scratch.path("").display())];
    let mut sudod = Sudod::greeted(&words);
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    sudod.ask(&[], &[], null.as_fd());
    assert_eq!(sudod.read::<1>(), Some([0]));
    drop(std::mem::replace(&mut sudod.client, UnixStream::pair().unwrap().0));
    assert!(sudod.process.is_running());
    scratch.write("go", "");
    assert_eq!((sudod.process.code(), text(scratch.path("result")).as_str()), (0, "done\n"));
}

#[test]
fn a_client_that_stalls_costs_the_time_that_it_is_given() {
    let mut silent = Sudod::greeted(&["-t", "50", "true"]);
    assert_eq!((silent.read::<1>(), silent.process.code()), (None, 111));
    let mut slow = Sudod::greeted(&["-t", "50", "true"]);
    slow.send(&message(&[], &[])[..20], &[]);
    assert_eq!((slow.read::<1>(), slow.process.code()), (None, 111));
}

#[test]
fn a_program_that_cannot_be_run_is_told_to_the_client() {
    let mut sudod = Sudod::greeted(&["./nonexistent"]);
    let null = std::fs::File::open("/dev/null").unwrap();
    sudod.ask(&[], &[], null.as_fd());
    assert_eq!((sudod.read::<1>(), sudod.read::<1>(), sudod.process.code()), (Some([2]), None, 111));
}

#[test]
fn any_number_of_descriptors_but_three_is_refused_and_none_is_kept() {
    for count in [0, 1, 2, 4, 253] {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut sudod = Sudod::greeted(&["sleep", "1000"]);
        let mut message = message(&[], &[]);
        message[5] = count;
        sudod.send(&message, &vec![writer.as_fd(); count.into()]);
        drop(writer);
        assert_eq!((sudod.read::<1>(), sudod.process.code()), (None, 100), "{count}");
        assert_eq!(fd::read(&reader, &mut [0; 1]), Ok(0));
    }
    // Three announced, and more or fewer sent.
    for count in [0, 2, 4, 253] {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut sudod = Sudod::greeted(&["sleep", "1000"]);
        sudod.send(&message(&[], &[])[..8], &vec![null.as_fd(); count]);
        sudod.send(&message(&[], &[])[8..], &[]);
        assert_eq!((sudod.read::<1>(), sudod.process.code()), (None, 111), "{count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a request is damaged, cut and sent in pieces, the server ends with a code of its own, in time, and runs
    /// its program at most once, never another, and never with a variable that was not there to be filled.
    #[test]
    fn damaged_requests_are_refused_or_served(
        args in prop::collection::vec("[a-z]{0,5}", 0..4),
        env in prop::collection::vec("(EMPTY|PATH|NEW)=[a-z]{0,3}", 0..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        kept in prop::option::of(any::<prop::sample::Index>()),
        pieces in 1..40usize,
        fds in prop_oneof![4 => Just(3usize), 1 => 0..6usize],
    ) {
        let scratch = Scratch::new();
        let script = format!("cd {}; echo ran >> ran; env > env", scratch.path("").display());
        let mut sudod = Sudod::greeted(&["-t", "5000", "/bin/sh", "-c", &script]);
        let strings = |list: &[String]| list.iter().map(|s| CString::new(s.as_str()).unwrap()).collect::<Vec<_>>();
        let (args, env) = (strings(&args), strings(&env));
        let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
        let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
        let mut bytes = message(&args, &env);
        for (at, byte) in &damage {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(kept) = &kept {
            bytes.truncate(kept.index(bytes.len()));
        }
        let whole = damage.is_empty() && kept.is_none() && fds == 3;
        let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        for (number, piece) in bytes.chunks(bytes.len().div_ceil(pieces).max(1)).enumerate() {
            sudod.send(piece, &vec![null.as_fd(); if number == 0 { fds } else { 0 }]);
        }
        sudod.client.shutdown(std::net::Shutdown::Write).unwrap();
        let confirmed = sudod.read::<1>();
        let code = sudod.process.code();
        prop_assert!([0, 100, 111].contains(&code), "{}", code);
        prop_assert_eq!(code == 0, confirmed == Some([0]));
        prop_assert!(!whole || code == 0);
        if code == 0 {
            prop_assert_eq!(text(scratch.path("ran")), "ran\n");
            let seen = text(scratch.path("env"));
            prop_assert!(!seen.contains("NEW=") && seen.lines().filter(|l| l.starts_with("EMPTY=")).count() == 1);
            prop_assert!(seen.contains("PATH=/"));
        } else {
            prop_assert!(!scratch.path("ran").exists());
        }
    }
}

/// s6-sudoc with a server that says these bytes and leaves when the request has come; its exit code and message.
fn client_hears(options: &[&str], first: &[u8], then: &[u8]) -> (i32, String) {
    let (mut server, client) = UnixStream::pair().unwrap();
    let client = OwnedFd::from(client);
    let mut command = Command::new("sh");
    command.args(["-c", "exec s6-sudoc \"$@\" 6<&0 7>&0 0</dev/null", "sh"]).args(options);
    command.stdin(client).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = common::with_path(command).spawn().unwrap();
    server.write_all(first).unwrap();
    if !then.is_empty() {
        let mut header = [0; 6];
        server.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize];
        server.read_exact(&mut body).unwrap();
        server.write_all(then).unwrap();
    }
    server.shutdown(std::net::Shutdown::Write).unwrap();
    let output = child.wait_with_output().unwrap();
    (common::code(output.status), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_client_tells_what_went_wrong_at_the_other_end() {
    const BANNER: &[u8] = b"s6-sudo b v1.0\n";
    for (first, then, code, message) in [
        (&b""[..], &b""[..], 111, "the server closed the connection at once: perhaps it does not admit this user"),
        (b"s6-su", b"", 111, "the server closed the connection instead of sending its banner"),
        (b"s6-sudo c v1.0\n", b"", 100, "wrong server banner"),
        (BANNER, b"\x0d", 111, "the server was unable to run the program: Permission denied"),
        (BANNER, b"\0\0", 111, "the server closed the connection instead of sending the status of the program"),
        (BANNER, b"\0\0\0\x05\0", 5, ""),
        (BANNER, b"\0\0\0\0\x09", 137, ""),
    ] {
        let (got, told) = client_hears(&["-e", "word"], first, then);
        let message = if message.is_empty() { String::new() } else { format!("s6-sudoc: fatal: {message}\n") };
        assert_eq!((got, told), (code, message));
    }
}

#[test]
fn a_client_waits_as_long_as_it_was_told() {
    let scratch = Scratch::new();
    let words =
        [&path_of(true, "s6-sudod"), "sh", "-c", "trap 'echo term > told; exit' TERM; while :; do sleep 0.02; done"];
    let _server = serve(&scratch, true, &[], &words);
    let outcome = finish(program("s6-sudo").args(["-T", "50", "s"]).current_dir(scratch.path("")));
    assert_eq!(outcome.code, 111);
    assert!(
        outcome.err.ends_with("unable to receive the status of the program: Connection timed out\n"),
        "{outcome:?}"
    );
    until("the program was told to end", || text(scratch.path("told")) == "term\n");

    let mute = scratch.path("mute");
    let _listener = std::os::unix::net::UnixListener::bind(&mute).unwrap();
    let outcome = finish(program("s6-sudo").args(["-t", "50", "mute"]).current_dir(scratch.path("")));
    assert_eq!(outcome.code, 111);
}

#[test]
fn wrong_usage_is_told_by_name() {
    for (name, args) in [
        ("s6-sudo", &[][..]),
        ("s6-sudo", &["-t", "x", "path"]),
        ("s6-sudoc", &["-z"]),
        ("s6-sudoc", &["-T"]),
        ("s6-sudod", &["-3"]),
        ("s6-sudod", &["-t", "-1"]),
    ] {
        let outcome = run(name, args);
        assert_eq!(outcome.code, 100, "{name} {args:?}");
        assert!(outcome.err.starts_with(&format!("{name}: usage: {name} ")), "{name} {args:?}: {}", outcome.err);
    }
}
