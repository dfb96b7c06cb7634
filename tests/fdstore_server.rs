//! The example server that keeps its uploads with its supervisor: killed in the middle of a transfer, again and again,
//! it loses no byte. `S6_TEST_KILLS` says how often, if not twelve times.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::service::{Service, Supervised};
use common::{Background, eventually, finish, program, run, skip, until};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servicedir-examples/fdstore-server");

fn kills() -> usize {
    std::env::var("S6_TEST_KILLS").map_or(12, |kills| kills.parse().unwrap())
}

/// The example, in a scratch directory.
fn service() -> Option<Service> {
    if finish(Command::new("python3").arg("-V")).code != 0 {
        skip("the example needs python3");
        return None;
    }
    let service = Service::new("");
    let copied = finish(Command::new("cp").arg("-R").arg(format!("{EXAMPLE}/.")).arg(service.dir()));
    assert_eq!(copied.code, 0, "{}", copied.err);
    Some(service)
}

/// Bytes that repeat nowhere near.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().take(length).collect()
}

/// What the server is to answer: by somebody else's program.
fn expected(bytes: &[u8]) -> String {
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    sum.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = sum.wait_with_output().unwrap();
    let digest = String::from_utf8(output.stdout).unwrap();
    format!("{} {}\n", bytes.len(), digest.split(' ').next().unwrap())
}

/// Bytes that are uploaded for each kill, at least.
const PART: usize = 2_000_000;

/// Uploads while `disturb` does what it likes; `disturb` waits for the upload to be so far by what it is given. Until the
/// next time it goes on, but not by a whole [`PART`], so that it is not over before `disturb` is.
fn upload(service: &Supervised, bytes: &[u8], disturb: impl FnOnce(&dyn Fn(usize))) {
    let (sent, allowed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let path = service.service.path("socket");
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = eventually("the server listens", || UnixStream::connect(&path).ok());
            for chunk in bytes.chunks(4096) {
                until("more may be sent", || sent.load(Ordering::Relaxed) < allowed.load(Ordering::Relaxed));
                stream.write_all(chunk).unwrap();
                sent.fetch_add(chunk.len(), Ordering::Relaxed);
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        disturb(&|so_far| {
            allowed.store(so_far + PART - 1, Ordering::Relaxed);
            until(&format!("{so_far} bytes are sent"), || sent.load(Ordering::Relaxed) >= so_far);
        });
        allowed.store(usize::MAX, Ordering::Relaxed);
        client.join().unwrap()
    });
    assert_eq!(answer, expected(bytes), "{}", service.errors());
}

fn field(service: &Supervised, name: &str) -> String {
    run("s6-svstat", &["-o", name, service.service.dir().to_str().unwrap()]).out.trim_end().to_owned()
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_transfer_loses_no_byte() {
    let Some(service) = service() else { return };
    let server = service.supervise();
    let kills = kills();
    let bytes = bytes((kills + 1) * PART);
    upload(&server, &bytes, |wait_for| {
        for round in 0..kills {
            wait_for(round * PART + PART / 4);
            let old = server.wait("it is up", |status| status.is_up() && status.ready).pid;
            common::kill(old as i32, 9);
            server.wait("it is dead", |status| status.pid != old);
            server.command("u"); // without the pause that follows a short life
        }
    });
    until("that is shown", || field(&server, "statustext") == format!("\"instance {}, 0 uploads\"", kills + 1));
    assert_eq!(field(&server, "nfds"), "2", "the state and the listener");
}

#[test]
fn with_a_holder_the_supervisor_may_be_killed_too() {
    let Some(service) = service() else { return };
    for (file, value) in [
        ("allow", ""),
        ("env/S6_FDHOLDER_STORE_REGEX", "\n"),
        ("env/S6_FDHOLDER_RETRIEVE_REGEX", "\n"),
        ("env/S6_FDHOLDER_LIST", "\n"),
    ] {
        service.scratch.write(format!("rules/uid/self/{file}"), value);
    }
    let path = service.scratch.path("holder");
    let _holder = Background::start(
        program("s6-fdholder-daemon").arg("-i").arg(service.scratch.path("rules")).arg(&path).stdin(Stdio::null()),
    );
    let held = || run("s6-fdholder-list", &[&path]);
    until("the holder listens", || held().code == 0);
    let mut server = service.file("fdstore-holder", "../holder").supervise();
    server.wait("it is ready", |status| status.ready);
    let (scratch, kills) = (server.service.scratch.path(""), kills() / 2);
    let mut supervisors = vec![];
    let bytes = bytes((kills + 1) * PART);
    upload(&server, &bytes, |wait_for| {
        wait_for(1);
        until("the holder has the upload", || held().out.lines().count() == 6);
        let mut supervisor = server.supervisor.pid();
        for round in 0..kills {
            wait_for(round * PART + PART / 4);
            let old = server.wait("it is up", |status| status.is_up() && status.ready).pid as i32;
            common::kill(supervisor, 9);
            common::kill(old, 9);
            until("both are gone", || !common::is_alive(supervisor) && !common::is_alive(old));
            let mut next = program("s6-supervise");
            next.arg("service").current_dir(&scratch).stdout(Stdio::null()).stderr(Stdio::null());
            let next = Background::start(&mut next);
            supervisor = next.pid();
            supervisors.push(next);
            server.wait("the next one is up", |status| status.is_up() && status.pid as i32 != old);
        }
    });
    server.supervisor = supervisors.pop().unwrap();
    until("that is shown", || field(&server, "statustext") == format!("\"instance {}, 0 uploads\"", kills + 1));
    until("the holder has the state and the listener", || held().out.lines().count() == 2);
}
