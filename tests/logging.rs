//! s6-log and the programs around it, end to end.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Background, Scratch, bin_dir, code, finish, original, program, run, skip, text, until};
use nix::libc::{SIGALRM, SIGHUP, SIGKILL, SIGTERM};
use nix::sys::stat::Mode;

/// A logger and the pipe into it. It is ready: its directories are there.
struct Logger {
    process: Background,
    input: Option<PipeWriter>,
}

impl Logger {
    fn start(command: &mut Command) -> Self {
        let (reader, writer) = pipe().unwrap();
        Logger { process: ready(command, reader), input: Some(writer) }
    }

    fn new(args: &[&str]) -> Self {
        Logger::start(program("s6-log").args(args))
    }

    fn say(&self, bytes: impl AsRef<[u8]>) {
        self.input.as_ref().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    fn end(mut self) -> i32 {
        self.input = None;
        self.process.code()
    }
}

/// Starts a logger on an input and waits for its readiness newline, which goes through a fifo.
fn ready(command: &mut Command, input: PipeReader) -> Background {
    let scratch = Scratch::new();
    let fifo = scratch.path("ready");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut shell = Command::new("/bin/sh");
    let script = "fifo=$0 program=$1; shift; exec \"$program\" -d 3 \"$@\" 3>\"$fifo\"";
    shell.args(["-c", script]).arg(&fifo).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        shell.env(key, value.unwrap());
    }
    let child = Background::start(shell.stdin(input).stdout(Stdio::null()));
    assert_eq!(text(&fifo), "\n");
    child
}

/// Runs a program under test to its end with this input; its output, also if it is no text.
fn filter(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(output.status), 0);
        output.stdout
    })
}

fn log(args: &[&str], input: &str) -> String {
    String::from_utf8(filter(program("s6-log").args(args), input.as_bytes())).unwrap()
}

/// The archives of a logdir, oldest first.
fn archives(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_archive = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('@');
    let sorted: BTreeSet<PathBuf> = names.filter(is_archive).collect();
    sorted.into_iter().collect()
}

/// Everything that a logdir holds, oldest first.
fn everything(dir: &Path) -> String {
    archives(dir).into_iter().chain([dir.join("current")]).map(text).collect()
}

fn is_complete(file: &Path) -> bool {
    fs::metadata(file).unwrap().permissions().mode() & 0o100 != 0
}

/// Whether no rotation is under way.
fn is_settled(dir: &Path) -> bool {
    ["previous", "processed", "newstate"].iter().all(|name| !dir.join(name).exists())
}

#[test]
fn a_line_is_on_the_disk_as_soon_as_it_is_said() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let logger = Logger::new(&[dir.to_str().unwrap()]);
    let mut said = String::new();
    for word in ["one\n", "two\n", "three\n"] {
        logger.say(word);
        said += word;
        until("it is there", || text(dir.join("current")) == said);
    }
    assert!(!is_complete(&dir.join("current")));
    assert_eq!(logger.end(), 0);
    assert!(is_complete(&dir.join("current")));
}

#[test]
fn a_bad_script_is_refused_before_anything_is_created() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    for (words, reason) in [
        (&["s12x"][..], "syntax error at directive: s12x (word 2 of the script): not a number"),
        (&["1", "x"], "unrecognized directive: x (word 3 of the script)"),
        (&["+(", "1"], "syntax error at directive: +( (word 2 of the script): "),
        (&["-[[:nope:]]", "1"], "syntax error at directive: -[[:nope:]] (word 2 of the script): "),
        (&["+a\\", "1"], "syntax error at directive: +a\\ (word 2 of the script): "),
    ] {
        let outcome = finish(program("s6-log").arg("--").arg(&dir).args(words));
        assert_eq!(outcome.code, 100, "{words:?}");
        assert!(outcome.err.starts_with(&format!("s6-log: fatal: {reason}")), "{}", outcome.err);
        assert!(!dir.exists(), "{words:?}");
    }
}

#[test]
fn lines_go_where_the_script_says() {
    let input = "alpha\nbeta\ngamma\n";
    for (script, want) in [
        (&["1"][..], input),
        (&["-", "+m", "1"], "gamma\n"),
        (&["--", "-^a", "1"], "beta\ngamma\n"),
        (&["--", "-m", "pA", "1", "f", "pB", "1"], "A alpha\nA beta\nB gamma\n"),
        (&["-", "+^(^a)?l", "-x", "1"], "alpha\n"),
    ] {
        assert_eq!(log(script, input), want, "{script:?}");
    }
    let stamped = log(&["t", "T", "pP", "1"], "x\n");
    let (label, rest) = stamped.split_at(26);
    assert!(label.starts_with("@4") && label.ends_with(' '), "{stamped}");
    assert!(rest.ends_with("  P x\n") && rest.len() == "2017-01-01 00:00:00.000000000  P x\n".len(), "{stamped}");
}

#[test]
fn alerts_and_status_files_have_their_sizes() {
    let scratch = Scratch::new();
    let status = scratch.path("status");
    let output = program("s6-log")
        .args(["E5", "pX", "2", "^9"])
        .arg(format!("={}", status.display()))
        .args(["^0", &format!("={}2", status.display())])
        .stdin(File::open(scratch.write("in", "first\n123456789\n")).unwrap())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "s6-log: alert: X first\ns6-log: alert: X 12345...\n");
    assert_eq!(text(&status), "X 1234567");
    assert_eq!(text(scratch.path("status2")), "X 123456789\n");
    assert_eq!(fs::read_dir(scratch.path("")).unwrap().count(), 3);
}

#[test]
fn long_lines_are_split_and_the_last_one_needs_no_newline() {
    assert_eq!(log(&["1"], "a\nlast"), "a\nlast\n");
    assert_eq!(log(&["1"], "a\0b"), "a\nb\n");
    let exact = "x".repeat(48);
    assert_eq!(log(&["-l1", "1"], &format!("{exact}\n")), format!("{exact}\n"));
    assert_eq!(log(&["-l1", "pP", "1"], &format!("{exact}yz\n")), format!("P {exact}\nP yz\n"));
    assert_eq!(log(&["-l0", "1"], &"x".repeat(1_000_000)), "x".repeat(1_000_000) + "\n");
}

/// The same scripts on the same lines as Debian's: selection, splitting, prefixes, status files.
#[test]
fn lines_are_selected_as_by_the_original() {
    let lines: String = (0..4000u64)
        .map(|i| {
            let words =
                ["kernel: [1] up", "app[77]: level=error x", "cron (root) CMD", "", "a\u{e9}b", "nginx: GET /x 200 "];
            format!("{}{}\n", words[(i * 2654435761 % 6) as usize], i % 97)
        })
        .collect();
    for script in [
        &["-", "+error", "1"][..],
        &["--", "-^kernel: \\[", "-\\(root\\)", "1"],
        &["-", "+^a..b", "+7$", "-77$", "1", "f", "pF", "1"],
        &["--", "-level=(error|warn) [[:alpha:]]", "+^.{3}$", "1"],
        &["-", "+^$", "pE:", "1", "+", "-^$", "-x$", "1"],
        &["-l", "48", "1"],
        &["-", "+(^a|CMD|x)?[0-9]5$", "1"],
    ] {
        let Some(mut theirs) = original("s6-log") else { return };
        let ours = filter(program("s6-log").args(script), lines.as_bytes());
        let theirs = filter(theirs.args(script), lines.as_bytes());
        assert_eq!(String::from_utf8_lossy(&ours), String::from_utf8_lossy(&theirs), "{script:?}");
    }
}

#[test]
fn a_file_ends_with_the_line_that_fills_it() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let line = "x".repeat(99) + "\n";
    filter(program("s6-log").args(["n99", "s4096", "l0"]).arg(&dir), line.repeat(500).as_bytes());
    for archive in archives(&dir) {
        assert_eq!(text(&archive), line.repeat(41), "{archive:?}");
        assert!(is_complete(&archive) && archive.extension().unwrap() == "s");
    }
    assert_eq!(everything(&dir), line.repeat(500));
}

#[test]
fn old_archives_are_removed_by_number_and_by_size() {
    for (limits, want) in [(&["n3"][..], 3), (&["n9", "S10000"], 2), (&["n0"], 0)] {
        let scratch = Scratch::new();
        let dir = scratch.path("d");
        let line = "x".repeat(99) + "\n";
        filter(program("s6-log").args(limits).args(["s4096", "l0"]).arg(&dir), line.repeat(41 * 7 + 1).as_bytes());
        assert_eq!(archives(&dir).len(), want, "{limits:?}");
        assert_eq!(text(dir.join("current")), line);
    }
}

#[test]
fn a_processor_hands_its_state_on() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let count = "?read n <&4; echo $((n + 1)) >&5; sed \"s/^/$n /\"";
    let logger = Logger::new(&[count, dir.to_str().unwrap()]);
    for (line, state) in [("a\n", "1\n"), ("b\n", "2\n"), ("c\n", "3\n")] {
        logger.say(line);
        until("it is there", || text(dir.join("current")) == line);
        logger.process.signal(SIGALRM);
        until("it is processed", || text(dir.join("state")) == state && is_settled(&dir));
    }
    assert_eq!(logger.end(), 0);
    assert_eq!(everything(&dir), " a\n1 b\n2 c\n");
}

#[test]
fn an_execline_processor_is_a_shell_command_where_there_is_no_execline() {
    let scratch = Scratch::new();
    let tools = scratch.path("bin");
    fs::create_dir(&tools).unwrap();
    let sed = ["/bin/sed", "/usr/bin/sed"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    std::os::unix::fs::symlink(sed, tools.join("sed")).unwrap();
    let dir = scratch.path("d");
    let logger = Logger::start(program("s6-log").args(["!sed s/a/b/; true"]).arg(&dir).env("PATH", &tools));
    logger.say("a\n");
    until("it is there", || text(dir.join("current")) == "a\n");
    logger.process.signal(SIGALRM);
    until("it is processed", || !archives(&dir).is_empty());
    assert_eq!(logger.end(), 0);
    assert_eq!(everything(&dir), "b\n");
}

#[test]
fn lines_are_written_while_a_processor_runs_and_the_end_waits_for_it() {
    let scratch = Scratch::new();
    let (dir, fifo) = (scratch.path("d"), scratch.path("go"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let logger = Logger::new(&[&format!("?cat {} >/dev/null; cat", fifo.display()), dir.to_str().unwrap()]);
    logger.say("a\n");
    until("it is there", || text(dir.join("current")) == "a\n");
    logger.process.signal(SIGALRM);
    until("the file is rotated", || dir.join("processed").exists());
    logger.say("b\n");
    until("it is there", || text(dir.join("current")) == "b\n");
    let Logger { mut process, input } = logger;
    drop(input);
    assert!(process.is_running());
    fs::write(&fifo, "").unwrap();
    assert_eq!(process.code(), 0);
    assert_eq!(everything(&dir), "a\nb\n");
    assert!(is_settled(&dir) && is_complete(&dir.join("current")));
}

#[test]
fn a_processor_that_fails_runs_again() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let twice = "?test -e once && exec cat; touch once; echo half; kill -9 $$";
    let logger = Logger::new(&["r20", twice, dir.to_str().unwrap()]);
    logger.say("a\n");
    until("it is there", || text(dir.join("current")) == "a\n");
    logger.process.signal(SIGALRM);
    until("it is processed", || !archives(&dir).is_empty());
    assert_eq!(logger.end(), 0);
    assert_eq!(everything(&dir), "a\n");
}

#[test]
fn told_to_end_it_reads_the_line_that_has_begun_and_not_a_byte_more() {
    for (options, signal) in [(&[][..], SIGTERM), (&["-p"], SIGHUP)] {
        let scratch = Scratch::new();
        let dir = scratch.path("d");
        let (mut reader, writer) = pipe().unwrap();
        let mut command = program("s6-log");
        let mut logger = ready(command.args(options).args(["-t0"]).arg(&dir), reader.try_clone().unwrap());
        (&writer).write_all(b"full\nbeg").unwrap();
        until("the first line is there", || text(dir.join("current")) == "full\n");
        logger.signal(SIGTERM);
        logger.signal(signal);
        (&writer).write_all(b"inning\nnext\n").unwrap();
        assert_eq!(logger.code(), 0);
        assert_eq!(text(dir.join("current")), "full\nbeginning\n");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "next\n");
    }
}

#[test]
fn told_to_end_it_does_not_wait_for_ever_for_the_end_of_a_line() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let mut logger = Logger::new(&["-t50", dir.to_str().unwrap()]);
    logger.say("full\nbeg");
    until("the first line is there", || text(dir.join("current")) == "full\n");
    logger.process.signal(SIGTERM);
    assert_eq!(logger.process.code(), 0);
    assert_eq!(text(dir.join("current")), "full\nbeg\n");
}

#[test]
fn alerts_wait_where_standard_error_is_also_standard_output() {
    let (mut reader, writer) = pipe().unwrap();
    s6::sys::fd::set_nonblocking(&writer, true).unwrap();
    let mut full = 0;
    while let Ok(bytes) = (&writer).write(&[b'.'; 4096]) {
        full += bytes;
    }
    s6::sys::fd::set_nonblocking(&writer, false).unwrap();
    let scratch = Scratch::new();
    let mut command = program("s6-log");
    command.args(["1", "2"]).stdin(File::open(scratch.write("input", "one\ntwo\n")).unwrap());
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut logger = Background::start(&mut command);
    drop(command);
    let stat = format!("/proc/{}/stat", logger.pid());
    until("it waits for room in the pipe", || text(&stat).contains("(s6-log) S "));
    let mut all = vec![0; full];
    reader.read_exact(&mut all).unwrap();
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(logger.code(), 0);
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["one", "s6-log: alert: one", "s6-log: alert: two", "two"]);
}

#[test]
fn told_to_end_it_reads_no_line_beyond_the_limit() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let errors = scratch.path("errors");
    let (mut reader, writer) = pipe().unwrap();
    let mut command = program("s6-log");
    command.args(["-t0", "-l48"]).arg(&dir).stdin(reader.try_clone().unwrap()).stderr(File::create(&errors).unwrap());
    let mut logger = Background::start(&mut command);
    (&writer).write_all(b"full\nbeg").unwrap();
    until("the first line is there", || dir.exists() && text(dir.join("current")) == "full\n");
    logger.signal(SIGTERM);
    let long = "x".repeat(100);
    (&writer).write_all(long.as_bytes()).unwrap();
    assert_eq!(logger.code(), 0);
    drop(writer);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(text(dir.join("current")), format!("full\nbeg{}\n", "x".repeat(46)));
    assert_eq!(rest.len(), 54);
    assert!(text(errors).starts_with("s6-log: warning: "));
}

#[test]
fn standard_input_and_output_are_left_as_they_were() {
    let (reader, writer) = pipe().unwrap();
    let (_, out) = pipe().unwrap();
    let mut command = program("s6-log");
    let child = command.arg("1").stdin(reader.try_clone().unwrap()).stdout(out.try_clone().unwrap()).spawn();
    drop(writer);
    assert_eq!(Background(child.unwrap()).code(), 0);
    for flags in [nix::fcntl::fcntl(&reader, nix::fcntl::F_GETFL), nix::fcntl::fcntl(&out, nix::fcntl::F_GETFL)] {
        assert_eq!(flags.unwrap() & nix::libc::O_NONBLOCK, 0);
    }
}

#[test]
fn nobody_reading_standard_output_holds_nothing_up_but_with_b() {
    let scratch = Scratch::new();
    let line = "x".repeat(4095) + "\n";
    let (unread, out) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let dir = scratch.path("d");
    let mut command = program("s6-log");
    command.arg(&dir).arg("1").stdin(reader).stdout(out);
    let mut logger = Background::start(&mut command);
    (&writer).write_all(line.repeat(100).as_bytes()).unwrap();
    until("the directory has it all", || everything(&dir).len() == 100 * 4096);
    drop(writer);
    drop(unread);
    assert_eq!(logger.code(), 0, "a reader that goes away is no reason to end differently");

    let (_unread, out) = pipe().unwrap();
    let (reader, writer) = pipe().unwrap();
    let mut command = program("s6-log");
    let logger = Background::start(command.args(["-b", "1"]).stdin(reader.try_clone().unwrap()).stdout(out));
    s6::sys::fd::set_nonblocking(&writer, true).unwrap();
    let mut sent = 0;
    // Two pipes and a buffer: what more than those can be sent, for a good while, would be in the logger's memory.
    let mut refused = 0;
    while refused < 50 {
        match (&writer).write(line.as_bytes()) {
            Ok(bytes) => (sent, refused) = (sent + bytes, 0),
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert!(sent < 64 * 4096 * 4, "it goes on reading");
    }
    drop(logger);
}

#[test]
fn a_rotation_that_fails_is_tried_again_until_it_does_not() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let logger = Logger::new(&["r10", dir.to_str().unwrap()]);
    fs::create_dir_all(dir.join("previous/in the way")).unwrap();
    logger.say("a\n");
    until("it is there", || text(dir.join("current")) == "a\n");
    logger.process.signal(SIGALRM);
    logger.say("b\n");
    std::thread::sleep(Duration::from_millis(30));
    assert!(archives(&dir).is_empty());
    fs::remove_dir_all(dir.join("previous")).unwrap();
    until("it is rotated", || !archives(&dir).is_empty());
    assert_eq!(logger.end(), 0);
    assert_eq!(everything(&dir), "a\nb\n");
}

#[test]
fn a_directory_that_is_emptied_or_vanishes_is_used_again() {
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let logger = Logger::new(&["r10", dir.to_str().unwrap()]);
    logger.say("lost\n");
    until("it is there", || text(dir.join("current")) == "lost\n");
    fs::remove_file(dir.join("current")).unwrap();
    logger.process.signal(SIGALRM);
    until("there is a new one", || dir.join("current").exists());
    logger.say("lost too\n");
    until("it is there", || text(dir.join("current")) == "lost too\n");
    fs::remove_dir_all(&dir).unwrap();
    logger.process.signal(SIGALRM);
    logger.say("kept\n");
    fs::create_dir(&dir).unwrap();
    until("it is there", || text(dir.join("current")) == "kept\n");
    assert_eq!(logger.end(), 0);
}

#[test]
fn what_a_killed_logger_left_is_put_in_order() {
    let scratch = Scratch::new();
    for (files, want) in [
        (&[("current", "c\n", 0o644)][..], &["c\n", ""][..]),
        (&[("current", "c\n", 0o744), ("state", "s", 0o644)], &["c\n"]),
        (&[("previous", "p\n", 0o744), ("processed", "half", 0o644), ("current", "c\n", 0o644)], &["p\n", "c\n", ""]),
        (&[("previous", "p\n", 0o744), ("processed", "P\n", 0o744), ("current", "c\n", 0o644)], &["P\n", "c\n", ""]),
    ] {
        let dir = scratch.path("d");
        for (name, contents, mode) in files {
            let path = scratch.write(dir.join(name), contents);
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        assert_eq!(log(&[dir.to_str().unwrap()], ""), "");
        let found: Vec<String> = archives(&dir).into_iter().chain([dir.join("current")]).map(text).collect();
        assert_eq!(found, want, "{files:?}");
        assert!(is_settled(&dir) && is_complete(&dir.join("current")));
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_logdir_goes_from_one_implementation_to_the_other() {
    let Some(theirs) = original("s6-log") else { return };
    let theirs = theirs.get_program().to_owned();
    let ours = bin_dir().join("s6-log").into_os_string();
    for (first, second) in [(&ours, &theirs), (&theirs, &ours)] {
        let scratch = Scratch::new();
        let dir = scratch.path("d");
        let logger = Logger::start(Command::new(first).arg(&dir));
        assert_eq!(finish(Command::new(second).arg(&dir)).code, 111, "the directory is locked");
        logger.say("a\n");
        until("it is there", || text(dir.join("current")) == "a\n");
        logger.process.signal(SIGALRM);
        until("it is rotated", || !archives(&dir).is_empty());
        logger.say("b\n");
        until("it is there", || text(dir.join("current")) == "b\n");
        logger.process.signal(SIGKILL);
        drop(logger);
        filter(Command::new(second).arg(&dir), b"c\n");
        filter(Command::new(first).arg(&dir), b"d\n");
        let found: Vec<String> = archives(&dir).into_iter().chain([dir.join("current")]).map(text).collect();
        assert_eq!(found, ["a\n", "b\n", "c\nd\n"]);
    }
}

/// Line `number` of an endless text in which no line is like another.
fn line(number: u64) -> Vec<u8> {
    let filling = b"etaoinshrdlu"[(number % 12) as usize];
    let mut line = format!("{number:012} ").into_bytes();
    line.resize(14 + (number.wrapping_mul(2654435761) % 173) as usize, filling);
    line.push(b'\n');
    line
}

/// Writes the lines to a pipe until there are as many bytes as wanted; the number of lines.
fn write_lines(mut writer: PipeWriter, bytes: u64) -> u64 {
    let (mut number, mut sent, mut block) = (0, 0, Vec::new());
    while sent < bytes {
        // Blocks of all sizes, most of them ending in the middle of a line.
        block.extend_from_slice(&line(number));
        number += 1;
        let size = 1 + (number.wrapping_mul(40503) % 20_000) as usize;
        if block.len() > size {
            writer.write_all(&block[..size]).unwrap();
            sent += size as u64;
            block.drain(..size);
        }
    }
    writer.write_all(&block).unwrap();
    number
}

/// How much the long tests send. S6_TEST_MEGABYTES=1024 is for a machine that has nothing else to do.
fn megabytes(few: u64) -> u64 {
    let wanted = std::env::var("S6_TEST_MEGABYTES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(few) * 1_000_000
}

/// A small file system that the test may fill; only root has one.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn new() -> Option<Self> {
        let scratch = Scratch::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(scratch.path(""));
        if !nix::unistd::geteuid().is_root() || finish(&mut mount).code != 0 {
            skip("the disk is not filled: that needs root and the right to mount");
            return None;
        }
        Some(SmallDisk(scratch))
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        if let Ok(mut file) = File::options().append(true).create(true).open(self.0.path("filling")) {
            while file.write_all(&[0; 65536]).is_ok() {}
            while file.write_all(&[0]).is_ok() {}
        }
    }

    fn empty(&self) {
        let _ = fs::remove_file(self.0.path("filling"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        finish(Command::new("umount").arg("-l").arg(self.0.path("")));
    }
}

/// Reads archives as they appear, and checks that they are the lines, each once and in order.
struct Reader {
    dir: PathBuf,
    next: u64,
}

impl Reader {
    fn check(&mut self, path: &Path) {
        let bytes = fs::read(path).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let want = line(self.next);
            let got = &rest[..want.len().min(rest.len())];
            assert!(got == want, "line {} is {:?}", self.next, String::from_utf8_lossy(got));
            rest = &rest[want.len()..];
            self.next += 1;
        }
    }

    fn turn(&mut self) {
        for archive in archives(&self.dir) {
            self.check(&archive);
            fs::remove_file(archive).unwrap();
        }
    }
}

/// A service says a lot; its logger rotates all the time, with a processor that takes its time; it is sent alarms, told
/// to end, and started again; the disk is full now and then. Nothing may be lost, doubled or out of order.
#[test]
fn every_line_is_kept_once_and_in_order_whatever_happens() {
    let disk = SmallDisk::new();
    let scratch = Scratch::new();
    let dir = disk.as_ref().map_or(scratch.path("d"), |disk| disk.0.path("d"));
    let (input, writer) = pipe().unwrap();
    let bytes = megabytes(12);
    let (done, restarts, written) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let mut reader = Reader { dir: dir.clone(), next: 0 };
    std::thread::scope(|scope| {
        scope.spawn(|| written.store(write_lines(writer, bytes), Ordering::SeqCst));
        scope.spawn(|| {
            let processor = "?sleep 0.00$(($$ % 9)); cat";
            // -b: the disk may be full for longer than memory lasts.
            let script = ["-b", "n99999", "s100000", "r20", processor];
            while !done.load(Ordering::SeqCst) {
                let mut logger = ready(program("s6-log").args(script).arg(&dir), input.try_clone().unwrap());
                for i in 0..40 + restarts.fetch_add(1, Ordering::SeqCst) % 50 {
                    if !logger.is_running() {
                        done.store(true, Ordering::SeqCst);
                        break;
                    }
                    if i % 3 == 0 {
                        logger.signal(SIGALRM);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                logger.signal(SIGTERM);
                assert_eq!(logger.code(), 0);
            }
        });
        scope.spawn(|| {
            while let (Some(disk), false) = (&disk, done.load(Ordering::SeqCst)) {
                disk.fill();
                std::thread::sleep(Duration::from_millis(30));
                disk.empty();
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        while !done.load(Ordering::SeqCst) {
            reader.turn();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    reader.turn();
    reader.check(&dir.join("current"));
    assert_eq!(reader.next, written.load(Ordering::SeqCst));
    assert!(is_settled(&dir) && is_complete(&dir.join("current")));
    assert!(restarts.load(Ordering::SeqCst) > 1);
}

/// Killed loggers: nothing that was written is lost or doubled, and what is lost was in their memory.
#[test]
fn a_killed_logger_loses_no_more_than_it_had_read() {
    /// What a logger reads at once, see the manual.
    const READ: u64 = 160 * 1024;
    let scratch = Scratch::new();
    let dir = scratch.path("d");
    let (input, writer) = pipe().unwrap();
    let (mut kills, mut written) = (0, 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_lines(writer, megabytes(8)));
        while !writer.is_finished() {
            let script = ["n99999", "s20000", "?cat"];
            let logger = ready(program("s6-log").args(script).arg(&dir), input.try_clone().unwrap());
            std::thread::sleep(Duration::from_millis(20 + kills % 23));
            logger.signal(SIGKILL);
            kills += 1;
        }
        written = writer.join().unwrap();
    });
    let mut last = ready(program("s6-log").arg("n99999").arg(&dir), input);
    assert_eq!(last.code(), 0);
    let (mut next, mut lost, mut broken) = (0, 0, 0);
    for found in everything(&dir).split_inclusive('\n') {
        let number = found.get(..12).and_then(|digits| digits.parse().ok()).filter(|&n| line(n) == found.as_bytes());
        match number {
            // The half of a line: the other half was with the logger that was killed.
            None => broken += 1,
            Some(number) => {
                assert!(number >= next, "line {number} comes after {next}");
                lost += (next..number).map(|n| line(n).len() as u64).sum::<u64>();
                next = number + 1;
            }
        }
    }
    lost += (next..written).map(|n| line(n).len() as u64).sum::<u64>();
    assert!(broken <= 2 * kills, "{broken} broken lines after {kills} kills");
    assert!(lost <= kills * READ, "{lost} bytes lost in {kills} kills");
    assert!(kills > 1);
}

#[test]
fn stamps_are_put_on_and_made_readable() {
    let stamped = filter(&mut program("s6-tai64n"), b"a\n\0b\nlast");
    let lines: Vec<&[u8]> = stamped.split(|&b| b == b'\n').collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[..3].iter().all(|line| line.starts_with(b"@4") && line[25] == b' '));
    let mut stamps: Vec<&[u8]> = lines[..3].iter().map(|line| &line[..25]).collect();
    assert!(stamps.is_sorted());
    stamps.dedup();
    let readable = filter(program("s6-tai64nlocal").arg("-g"), &stamped);
    assert!(readable.starts_with(b"20") && readable.ends_with(b" last\n"));
}

#[test]
fn stream_editors_write_as_the_originals_do() {
    let mut lines = b"<13>x\n<96>\0<9999999999>y\n@40000000586846a500000000 <30>d\n@40000000586846a500000000\n\
        @400000000000000a00000000xyz\n@ffffffffffffffff00000000 m\n@40000000586846a400000001 leap\n\n<\n"
        .to_vec();
    let mut seed = 7u64;
    for _ in 0..3000 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        match seed >> 60 {
            0 => lines.extend_from_slice(b"\n<"),
            1 => lines.extend_from_slice(format!("\n@40000000{:08x}00000000", (seed >> 20) as u32).as_bytes()),
            2 => lines.extend_from_slice(b"> \0<13"),
            _ => lines.push((seed >> 50) as u8),
        }
    }
    lines.push(b'x');
    for (name, args) in [
        ("s6-tai64nlocal", &["-g"][..]),
        ("s6-tai64nlocal", &[]),
        ("ucspilogd", &[]),
        ("ucspilogd", &["-D", "?", "HOME", "no such variable"]),
    ] {
        let Some(mut theirs) = original(name) else { return };
        let zone = ("TZ", "Europe/Berlin");
        let ours = filter(program(name).args(args).envs([zone]), &lines);
        let theirs = filter(theirs.args(args).envs([zone]), &lines);
        let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        let around = |bytes: &[u8], at: usize| {
            bytes[at.saturating_sub(60)..(at + 20).min(bytes.len())].escape_ascii().to_string()
        };
        if let Some(at) = differ {
            panic!("{name} {args:?}: ours {} theirs {}", around(&ours, at), around(&theirs, at));
        }
        assert_eq!(ours.len(), theirs.len(), "{name} {args:?}");
    }
}

/// A receiver of syslog messages and what it prints.
struct Receiver {
    process: Background,
    output: PipeReader,
}

impl Receiver {
    fn new(args: &[&str], path: &Path) -> Self {
        let (output, writer) = pipe().unwrap();
        let mut command = program("s6-socklog");
        command.args(args).arg("-x").arg(path).stdout(writer);
        let process = Background::start(&mut command);
        drop(command);
        until("it listens", || UnixDatagram::unbound().unwrap().connect(path).is_ok());
        Receiver { process, output }
    }

    /// Ends it; all that it has printed.
    fn end(mut self) -> String {
        self.process.signal(SIGTERM);
        assert_eq!(self.process.code(), 0);
        let mut all = String::new();
        self.output.read_to_string(&mut all).unwrap();
        all
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            self.output.read_exact(&mut byte).unwrap();
            line.extend_from_slice(&byte);
        }
        String::from_utf8(line).unwrap()
    }
}

#[test]
fn datagrams_become_lines_and_no_datagram_ends_the_receiver() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let mut receiver = Receiver::new(&["-l100"], &path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    let long = "y".repeat(100);
    for (message, want) in [
        ("<13>hello\n", "user.notice: hello\n"),
        ("<1", "<1\n"),
        ("a\nb\0c\0\n", "a~b~c\n"),
        (&format!("{long}z"), &format!("{long}...\n")),
    ] {
        sender.send(message.as_bytes()).unwrap();
        assert_eq!(receiver.line(), want);
        sender.send(b"").unwrap();
    }
    assert_eq!(finish(program("s6-socklog").arg("-x").arg(&path)).code, 111, "it is in use");
    assert_eq!(receiver.end(), "");
    // The socket of one that has ended is replaced.
    let mut receiver = Receiver::new(&["-r"], &path);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"<13>again", &path).unwrap();
    assert_eq!(receiver.line(), "<13>again\n");
}

#[test]
fn senders_wait_for_a_receiver_that_nobody_reads() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let receiver = Receiver::new(&[], &path);
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    let messages = 2000;
    let all = std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..messages {
                sender.send(format!("<14>{number} {}", "x".repeat(200)).as_bytes()).unwrap();
            }
            sender.send(b"end").unwrap();
        });
        let mut receiver = receiver;
        let mut all = Vec::new();
        loop {
            let line = receiver.line();
            if line == "end\n" {
                return all;
            }
            all.push(line);
        }
    });
    assert_eq!(all.len(), messages);
    for (number, line) in all.iter().enumerate() {
        assert!(line.starts_with(&format!("user.info: {number} x")), "{line}");
    }
}

#[test]
fn a_receiver_whose_output_is_stuck_gives_up_in_time() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let mut receiver = Receiver::new(&["-t50"], &path);
    let sender = UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    sender.set_nonblocking(true).unwrap();
    // Until the pipe, the buffer and the queue are full.
    let mut refused = 0;
    while refused < 20 {
        match sender.send(&[b'x'; 1000]) {
            Ok(_) => refused = 0,
            Err(_) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    receiver.process.signal(SIGTERM);
    assert_eq!(receiver.process.code(), 99);
}

#[test]
fn messages_of_the_logger_program_arrive() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let mut receiver = Receiver::new(&[], &path);
    let mut logger = Command::new("logger");
    logger.arg("-u").arg(&path).args(["-t", "me", "-p", "mail.err", "hello"]);
    if logger.stdin(Stdio::null()).status().is_err() {
        return skip("logger is not installed (apt-get install bsdutils)");
    }
    let line = receiver.line();
    assert!(line.starts_with("mail.err: ") && line.ends_with("me: hello\n"), "{line}");
}

#[test]
fn udp_messages_come_with_their_sender() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (output, writer) = pipe().unwrap();
    let mut command = program("s6-socklog");
    command.args(["-i", &format!("127.0.0.1_{}", free.port())]).stdout(writer);
    let process = Background::start(&mut command);
    drop(command);
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut receiver = Receiver { process, output };
    let from = sender.local_addr().unwrap().port();
    // The first ones may come before it listens.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let _ = sender.send_to(b"<13>hi\n", free);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(receiver.line(), format!("127.0.0.1_{from}: user.notice: hi\n"));
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_receiver_for_every_ipv6_address_leaves_ipv4_to_another() {
    let Ok(probe) = std::net::UdpSocket::bind("[::1]:0") else { return skip("there is no IPv6 here") };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let _ipv4 = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
    let (mut output, writer) = pipe().unwrap();
    let script = "exec \"$0\" -d 3 -i \"$1\" 3>&1 >/dev/null";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).arg(program("s6-socklog").get_program()).arg(format!("::_{port}")).stdout(writer);
    let _receiver = Background::start(&mut shell);
    drop(shell);
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "\n", "it is ready");
}

#[test]
fn wrong_usage_is_told_with_exit_code_100() {
    for (name, args) in [
        ("s6-log", &[][..]),
        ("s6-log", &["-x", "1"]),
        ("s6-log", &["-l", "x", "1"]),
        ("s6-log", &["n5"]),
        ("s6-log", &["-d2", "1"]),
        ("s6-log", &["-d77", "1"]),
        ("s6-tai64nlocal", &["-x"]),
        ("ucspilogd", &["-x"]),
        ("s6-socklog", &["-z"]),
        ("s6-socklog", &["-i", "nohost"]),
        ("s6-socklog", &["-u", "root"]),
        ("s6-socklog", &["-d2"]),
    ] {
        let outcome = run(name, args);
        assert_eq!(outcome.code, 100, "{name} {args:?}");
        assert!(outcome.err.starts_with(&format!("{name}: ")), "{}", outcome.err);
    }
    let closed = "s6-log: fatal: invalid notification fd: descriptor 77 is not open\n";
    assert_eq!(run("s6-log", &["-d77", "1"]).err, closed);
}
