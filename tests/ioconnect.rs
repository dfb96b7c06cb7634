//! s6-ioconnect: bytes both ways, over pipes and sockets.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use common::{Background, Scratch, run, text, with_path};
use s6::sys::fd;

/// It with four pipes, of which we have the other ends.
struct Pipes {
    process: Background,
    scratch: Scratch,
    to_stdin: Option<File>,
    from_stdout: File,
    to_reader: Option<File>,
    from_writer: Option<File>,
}

impl Pipes {
    fn start(options: &str) -> Pipes {
        let scratch = Scratch::new();
        let [stdin, stdout, reader, writer] = [(); 4].map(|()| fd::pipe().unwrap());
        // sh can be given three descriptors: the fourth is a fifo.
        let fifo = scratch.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!("exec 7>&2 6<fifo 2>stderr; exec s6-ioconnect {options}");
        let mut shell = with_path(Command::new("sh"));
        shell.args(["-c", &script]).current_dir(scratch.path("")).stdin(stdin.0).stdout(stdout.1).stderr(writer.1);
        let process = Background::start(&mut shell);
        drop((shell, reader));
        let to_reader = File::options().write(true).open(fifo).unwrap();
        Pipes {
            process,
            scratch,
            to_stdin: Some(stdin.1.into()),
            from_stdout: stdout.0.into(),
            to_reader: Some(to_reader),
            from_writer: Some(writer.0.into()),
        }
    }
}

fn all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bytes_pass_both_ways_and_each_way_has_its_own_end() {
    let mut p = Pipes::start("");
    p.to_stdin.take().unwrap().write_all(b"there").unwrap();
    assert_eq!(all(p.from_writer.take().unwrap()), b"there", "and then the end");
    assert!(p.process.is_running());
    p.to_reader.take().unwrap().write_all(b"back").unwrap();
    assert_eq!(all(&p.from_stdout), b"back");
    assert_eq!(p.process.code(), 0);
}

#[test]
fn megabytes_pass_intact() {
    let mut p = Pipes::start("-t 20000");
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut to_stdin, mut to_reader) = (p.to_stdin.take().unwrap(), p.to_reader.take().unwrap());
    let from_writer = p.from_writer.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| (to_stdin.write_all(&data).unwrap(), drop(to_stdin)));
        scope.spawn(|| (to_reader.write_all(&data).unwrap(), drop(to_reader)));
        let there = scope.spawn(|| all(from_writer) == data);
        assert!(all(&p.from_stdout) == data);
        assert!(there.join().unwrap());
    });
    assert_eq!(p.process.code(), 0);
}

#[test]
fn silence_for_too_long_is_the_end() {
    let mut p = Pipes::start("-t 100");
    assert_eq!(p.process.code(), 1);
}

#[test]
fn an_output_that_nobody_reads_ends_one_way_only() {
    let mut p = Pipes::start("");
    p.from_writer = None;
    let mut to_reader = p.to_reader.take().unwrap();
    to_reader.write_all(b"still").unwrap();
    let mut buffer = [0; 5];
    p.from_stdout.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
    common::until("nobody reads stdin any more", || {
        s6::events::fifodir::ignore_vanishing_readers();
        p.to_stdin.as_ref().unwrap().write_all(b"x").is_err()
    });
    drop(to_reader);
    assert_eq!(all(&p.from_stdout), b"");
    assert_eq!(p.process.code(), 0);
}

#[test]
fn a_signal_to_end_lets_through_what_is_there() {
    let mut p = Pipes::start("");
    p.to_stdin.as_ref().unwrap().write_all(b"first").unwrap();
    let mut buffer = [0; 5];
    p.from_writer.as_ref().unwrap().read_exact(&mut buffer).unwrap();
    p.process.signal(15);
    assert_eq!(p.process.code(), 0);
    assert_eq!(all(p.from_writer.take().unwrap()), b"");
    assert_eq!(text(p.scratch.path("stderr")), "");
}

#[test]
fn sockets_are_told_which_direction_is_over() {
    let [(a, ours_a), (b, ours_b)] = [(); 2].map(|()| UnixStream::pair().unwrap());
    let mut shell = with_path(Command::new("sh"));
    // One socket for standard input and output, one for the other two, by one number.
    shell.args(["-c", "exec 6>&2 2>/dev/null; exec s6-ioconnect -0167 -r 6 -w 6"]);
    let stdio = |socket: &UnixStream| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    shell.stdin(stdio(&ours_a)).stdout(stdio(&ours_a)).stderr(stdio(&ours_b));
    let mut process = Background::start(&mut shell);
    drop((shell, ours_a, ours_b));
    (&a).write_all(b"question").unwrap();
    a.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&b), b"question");
    (&b).write_all(b"answer").unwrap();
    b.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&a), b"answer");
    assert_eq!(process.code(), 0);
}

#[test]
fn wrong_descriptors_are_refused() {
    assert_eq!(run("s6-ioconnect", &["-r", "2"]).code, 100);
    assert_eq!(run("s6-ioconnect", &["-w", "x"]).code, 100);
    assert_eq!(run("s6-ioconnect", &["-r", "200", "-w", "201"]).code, 111);
    assert_eq!(run("s6-ioconnect", &["-r", "3", "-w", "3"]).code, 111, "not a copy of standard input");
    assert_eq!(run("s6-ioconnect", &["--timeout=5"]).code, 100);
}
