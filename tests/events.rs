//! Fifodirs and the programs that listen and speak in them, also across implementations.

mod common;

use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Background, Outcome, Scratch, eventually, finish, is_alive, kill, original, program, run, text, until};

/// A fifodir made by the program under test.
fn fifodir() -> (Scratch, PathBuf) {
    let scratch = Scratch::new();
    let path = scratch.path("fifodir");
    assert_eq!(run("s6-mkfifodir", &[&path]).code, 0);
    (scratch, path)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(path: &Path) -> Vec<String> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn make_fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

fn notify(fifodir: &Path, message: &str) {
    assert_eq!(run("s6-ftrig-notify", &[fifodir.as_os_str(), OsStr::new(message)]).code, 0);
}

/// A program in the background that has subscribed.
fn subscriber(command: &mut Command, fifodir: &Path) -> Background {
    let child = Background::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()));
    until("the subscription", || names(fifodir).iter().any(|name| name.starts_with("ftrig1:")));
    child
}

/// Its exit code and what it printed.
fn result(mut child: Background) -> (i32, String) {
    let code = child.code();
    (code, std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap())
}

const STALE: &str = "ftrig1:@4000000065000000000000ff:abcDEF";

// ---- s6-mkfifodir, s6-cleanfifodir, s6-ftrig-notify

#[test]
fn a_new_fifodir_has_its_mode_whatever_the_umask() {
    let scratch = Scratch::new();
    let gid = nix::unistd::getgid().to_string();
    for (options, wanted) in [(&[][..], 0o1733), (&["-g", &gid], 0o3730)] {
        let path = scratch.path(wanted.to_string());
        let make = "umask 077; exec s6-mkfifodir \"$@\"";
        let mut shell = common::with_path(Command::new("sh"));
        assert_eq!(finish(shell.args(["-c", make, "sh"]).args(options).arg(&path)).code, 0);
        assert_eq!(mode(&path), wanted);
    }
}

#[test]
fn an_existing_fifodir_changes_only_by_force() {
    let (scratch, path) = fifodir();
    let make = |words: &[&str]| finish(program("s6-mkfifodir").args(words).arg(&path)).code;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let gid = nix::unistd::getgid().to_string();
    assert_eq!((make(&["-g", &gid]), mode(&path)), (0, 0o755));
    assert_eq!((make(&["-f", "-g", &gid]), mode(&path)), (0, 0o3730));
    assert_eq!((make(&["-f"]), mode(&path)), (0, 0o1733));
    symlink(&path, scratch.path("link")).unwrap();
    assert_eq!(run("s6-mkfifodir", &[scratch.path("link")]).code, 0);
}

#[test]
fn mkfifodir_refuses_what_it_cannot_make() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    for name in ["file", "missing/deep"] {
        let outcome = run("s6-mkfifodir", &[scratch.path(name)]);
        assert_eq!(outcome.code, 111);
        assert!(outcome.err.starts_with("s6-mkfifodir: fatal: unable to make fifodir "), "{}", outcome.err);
    }
    for wrong in [&[][..], &["-g", "root", "x"], &["-g"], &["-z", "x"], &["--force", "x"]] {
        assert_eq!(run("s6-mkfifodir", wrong).code, 100);
    }
    if nix::unistd::getuid().is_root() {
        let path = scratch.path("foreign");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        assert_eq!(finish(program("s6-mkfifodir").arg("-f").arg(&path)).code, 111);
    } else {
        eprintln!("skipped in part: only root can make a directory of another user");
    }
}

#[test]
fn cleaning_removes_only_the_fifos_that_nobody_reads() {
    let (_scratch, path) = fifodir();
    let wait = subscriber(program("s6-ftrig-wait").arg(&path).arg("x"), &path);
    let live = names(&path);
    let foreign = STALE.replace(":@", "-@");
    for name in [STALE, &foreign, "other", "ftrig1:short"] {
        make_fifo(&path.join(name));
    }
    notify(&path, "y");
    assert!(!path.join(STALE).exists() && path.join(&foreign).exists());
    make_fifo(&path.join(STALE));
    assert_eq!(run("s6-cleanfifodir", &[&path]).code, 0);
    let mut left = names(&path);
    left.sort();
    assert_eq!(left, [&live[0], "ftrig1:short", "other"]);
    notify(&path, "x");
    assert_eq!(result(wait), (0, "yx\n".into()));
    assert_eq!(run("s6-cleanfifodir", &[path.join("missing")]).code, 111);
    assert_eq!(run::<&str>("s6-cleanfifodir", &[]).code, 100);
}

#[test]
fn notifying_removes_the_fifos_that_nobody_reads() {
    let (_scratch, path) = fifodir();
    make_fifo(&path.join(STALE));
    make_fifo(&path.join("other"));
    notify(&path, "x");
    assert_eq!(names(&path), ["other"]);
    notify(&path, "");
    assert_eq!(run("s6-ftrig-notify", &[path.join("missing").as_os_str(), OsStr::new("x")]).code, 111);
    assert_eq!(run("s6-ftrig-notify", &[&path]).code, 100);
}

// ---- s6-ftrig-wait

#[test]
fn wait_prints_everything_since_it_subscribed() {
    let (_scratch, path) = fifodir();
    let wait = subscriber(program("s6-ftrig-wait").arg(&path).arg("a.*d"), &path);
    for message in ["xa", "b", "cde"] {
        notify(&path, message);
    }
    assert_eq!(result(wait), (0, "xabcde\n".into()));
    assert!(names(&path).is_empty());
}

#[test]
fn wait_looks_at_what_comes_in_chunks() {
    let (_scratch, path) = fifodir();
    let wait = subscriber(program("s6-ftrig-wait").arg(&path).arg("x"), &path);
    notify(&path, &"x".repeat(100));
    assert_eq!(result(wait), (0, "x".repeat(31) + "\n"));
}

#[test]
fn the_fifo_of_a_subscriber_is_for_writing() {
    let (_scratch, path) = fifodir();
    let mut shell = common::with_path(Command::new("sh"));
    let wait = subscriber(shell.args(["-c", "umask 077; exec s6-ftrig-wait \"$1\" x", "sh"]).arg(&path), &path);
    let fifo = path.join(&names(&path)[0]);
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    assert_eq!((mode(&fifo), names(&path)[0].len()), (0o622, 39));
    notify(&path, "x");
    assert_eq!(result(wait).0, 0);
}

#[test]
fn wait_gives_up_at_its_limit() {
    let (_scratch, path) = fifodir();
    let wait = |words: &[&str]| finish(program("s6-ftrig-wait").args(words).arg(&path).arg("x"));
    for words in [&["-t", "20"][..], &["-t20"], &["--timeout=20"], &["-t", "20", "--"]] {
        let Outcome { code, out, err } = wait(words);
        assert_eq!((code, out.as_str()), (99, ""), "{words:?}");
        assert!(err.starts_with("s6-ftrig-wait: fatal: timed out"), "{err}");
    }
    for wrong in [&["--timeout", "20"][..], &["-t", "x"], &["--bogus"], &["-z"]] {
        assert_eq!(wait(wrong).code, 100, "{wrong:?}");
    }
    assert!(names(&path).is_empty());
}

#[test]
fn a_bad_expression_or_fifodir_is_said_before_anything_runs() {
    let (scratch, path) = fifodir();
    let ran = scratch.path("ran");
    let missing = scratch.path("missing");
    for (fifodir, pattern) in [(&missing, "x"), (&path, "(")] {
        assert_eq!(finish(program("s6-ftrig-wait").arg(fifodir).arg(pattern)).code, 111);
        let mut listen = program("s6-ftrig-listen1");
        assert_eq!(finish(listen.arg(fifodir).arg(pattern).arg("touch").arg(&ran)).code, 111);
    }
    assert!(!ran.exists() && names(&path).is_empty());
}

#[test]
fn a_waiter_that_is_told_to_end_leaves_no_fifo() {
    let (_scratch, path) = fifodir();
    let wait = subscriber(program("s6-ftrig-wait").arg(&path).arg("x"), &path);
    wait.signal(15);
    assert_eq!(result(wait).0, 143);
    assert!(names(&path).is_empty());
}

#[test]
fn the_fifo_of_a_waiter_that_was_killed_goes_with_the_next_event() {
    let (_scratch, path) = fifodir();
    let wait = subscriber(program("s6-ftrig-wait").arg(&path).arg("x"), &path);
    wait.signal(9);
    assert_eq!(result(wait).0, 137);
    notify(&path, "x");
    assert!(names(&path).is_empty());
}

// ---- s6-ftrig-listen1, s6-ftrig-listen

#[test]
fn listen1_hears_its_program_and_does_not_wait_for_it() {
    let (scratch, path) = fifodir();
    let pid = scratch.path("pid");
    let script = "echo $$ > \"$1\"; s6-ftrig-notify \"$2\" ready; exec sleep 1000 >/dev/null 2>&1";
    let mut listen = program("s6-ftrig-listen1");
    let outcome = finish(listen.arg(&path).args(["dy", "sh", "-c", script, "sh"]).arg(&pid).arg(&path));
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "ready\n"));
    let pid = text(&pid).trim().parse().unwrap();
    assert!(is_alive(pid));
    kill(pid, 9);
}

#[test]
fn a_listener_reaps_its_program() {
    let (scratch, path) = fifodir();
    let pid = scratch.path("pid");
    let mut listen = program("s6-ftrig-listen1");
    listen.arg(&path).args(["x", "sh", "-c", "echo $$ > \"$1\"; exit 3", "sh"]).arg(&pid);
    let listen = subscriber(&mut listen, &path);
    let pid = eventually("the program writes its pid", || text(&pid).strip_suffix('\n')?.parse::<i32>().ok());
    until("no zombie is left", || s6::sys::process::look_up(s6::sys::Pid::from_raw(pid)).is_none());
    notify(&path, "x");
    assert_eq!(result(listen), (0, "x\n".into()));
}

#[test]
fn listeners_give_up_with_one_at_their_limit() {
    let (_scratch, path) = fifodir();
    let dir = path.to_str().unwrap();
    for words in [&["s6-ftrig-listen1", dir, "x"][..], &["s6-ftrig-listen", &format!(" {dir}"), " x", ""]] {
        let outcome = finish(program(words[0]).args(["-t", "20"]).args(&words[1..]).arg("true"));
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
        let outcome = finish(program(words[0]).args(&words[1..]).arg("no-such-program-at-all"));
        assert_eq!(outcome.code, 111);
    }
    assert!(names(&path).is_empty());
}

#[test]
fn listen_waits_for_all_or_for_one() {
    let (_one, one) = fifodir();
    let (_two, two) = fifodir();
    let listen = |option: &str| {
        let mut listen = program("s6-ftrig-listen");
        listen.args(option.split_whitespace());
        for (fifodir, pattern) in [(&one, " x"), (&two, " y"), (&two, " z")] {
            listen.arg(format!(" {}", fifodir.display())).arg(pattern);
        }
        listen.args(["", "s6-ftrig-notify"]).arg(&two).arg("yz");
        listen
    };
    for option in ["-o", "--or", "-a --or", "-t 20000 -o"] {
        let outcome = finish(&mut listen(option));
        assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "", ""));
    }
    assert_eq!(finish(&mut listen("-o --and -t20")).code, 1);
    let all = subscriber(&mut listen(""), &one);
    notify(&one, "x");
    assert_eq!(result(all), (0, String::new()));
    assert!(names(&one).is_empty() && names(&two).is_empty());
}

#[test]
fn listen_wants_complete_pairs() {
    let (_scratch, path) = fifodir();
    let dir = format!(" {}", path.display());
    for wrong in [
        &["", "true", "x", "y"][..],
        &[&dir, " x", "true", "y"],
        &[&dir, " x", ""],
        &[&dir, "", "true", "x"],
        &[&dir, " x", &dir, "", "true"],
    ] {
        assert_eq!(run("s6-ftrig-listen", wrong).code, 100, "{wrong:?}");
    }
}

// ---- across implementations

#[test]
fn letters_cross_from_one_implementation_to_the_other() {
    let Some(mut make) = original("s6-mkfifodir") else { return };
    let scratch = Scratch::new();
    let path = scratch.path("theirs");
    assert_eq!(finish(make.arg(&path)).code, 0);
    let ours = subscriber(program("s6-ftrig-wait").arg(&path).arg("b"), &path);
    assert_eq!(finish(original("s6-ftrig-notify").unwrap().arg(&path).arg("ab")).code, 0);
    assert_eq!(result(ours), (0, "ab\n".into()));

    let (_scratch, path) = fifodir();
    let theirs = subscriber(original("s6-ftrig-wait").unwrap().arg(&path).arg("b"), &path);
    make_fifo(&path.join(STALE));
    assert_eq!(run("s6-cleanfifodir", &[&path]).code, 0);
    notify(&path, "ab");
    // Debian's is a version that prints only the last letter.
    let (code, letters) = result(theirs);
    assert!(code == 0 && letters.ends_with("b\n"), "{code} {letters}");
}
