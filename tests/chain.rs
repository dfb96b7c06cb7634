//! The chain-loaders that change user, environment, limits and session, and s6-fghack.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Background, Outcome, Scratch, finish, original, program, run, skip, text, until};
use nix::sys::resource::{Resource, getrlimit};

/// Runs a program and shows, of what comes out, the environment that it hands on, sorted.
fn environment(command: &mut Command) -> Vec<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let mut entries: Vec<Vec<u8>> = output.stdout.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    entries.retain(|entry| !entry.is_empty());
    entries.sort();
    entries
}

/// What follows in the command line to see the environment, entries ended by NUL.
const SHOW: [&str; 2] = ["/usr/bin/env", "-0"];

/// UID, GID and GIDLIST as s6-envuidgid sets them, `-` for one that it does not set.
fn account(args: &[&str]) -> Result<String, i32> {
    let script = "printf '%s|%s|%s' \"${UID_-}\" \"${GID--}\" \"${GIDLIST--}\"";
    // Shells set UID themselves.
    let script = format!("UID_=$(tr '\\0' '\\n' < /proc/$$/environ | sed -n s/^UID=//p); {script}");
    let mut command = program("s6-envuidgid");
    command.args(args).args(["/bin/sh", "-c", &script]);
    let outcome = finish(command.env_remove("UID").env_remove("GID").env_remove("GIDLIST"));
    if outcome.code == 0 { Ok(outcome.out) } else { Err(outcome.code) }
}

/// Ids and groups of a process that a command becomes.
fn identity(name: &str, args: &[&str]) -> Outcome {
    let show = "sed -n 's/^[UG]id:\\t//p; s/^Groups:\\t//p' /proc/self/status | tr '\\n\\t' '; '";
    finish(program(name).args(args).args(["/bin/sh", "-c", show]).current_dir("/"))
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("users cannot be changed: that needs root");
    }
    root
}

#[test]
fn words_of_the_next_program_are_not_options() {
    for (name, args) in [
        ("s6-setuidgid", &[""][..]),
        ("s6-envuidgid", &["--", "root"]),
        ("s6-applyuidgid", &["--"]),
        ("s6-envdir", &["-I", "--", "/nonexistent"]),
        ("s6-softlimit", &["--"]),
        ("s6-setsid", &["-q", "--"]),
    ] {
        let outcome = run(name, &[args, &["printf", "%s|", "-a", "--", "-u"]].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (0, "-a|--|-u|"), "{name}: {}", outcome.err);
    }
}

#[test]
fn programs_that_cannot_be_executed_are_126_and_missing_ones_127() {
    for (name, args) in [
        ("s6-setuidgid", &[""][..]),
        ("s6-envuidgid", &["root"]),
        ("s6-applyuidgid", &[]),
        ("s6-envdir", &["-I", "/nonexistent"]),
        ("s6-softlimit", &[]),
        ("s6-setsid", &["-q"]),
    ] {
        assert_eq!(run(name, &[args, &["no such program"]].concat()).code, 127, "{name}");
        assert_eq!(run(name, &[args, &["/"]].concat()).code, 126, "{name}");
    }
}

#[test]
fn the_next_program_is_looked_up_in_the_old_path() {
    let scratch = Scratch::new();
    scratch.write("env/PATH", "/nonexistent\n");
    let outcome = finish(program("s6-envdir").arg(scratch.path("env")).arg("env"));
    assert!(outcome.out.contains("PATH=/nonexistent\n"), "{}", outcome.err);
}

#[test]
fn environment_directories_are_read_as_by_the_original() {
    let scratch = Scratch::new();
    let directory = scratch.path("env");
    let mut bytes = vec![b'x'; 5000];
    bytes.extend_from_slice(b"\nmore\n");
    for (name, contents) in [
        ("A", &b"one\ntwo\n"[..]),
        ("BLANKS", b"  a b \t\r \n"),
        ("EMPTY", b""),
        ("NEWLINE", b"\n"),
        ("NUL", b"a\0b\0\nc\n"),
        ("TAIL", b"no newline "),
        ("EQUALS", b"a=b=\n"),
        ("BYTES", b"\xff\xfe\n"),
        ("LONG", &bytes),
        ("END", b"a\nb \n\n"),
        (".hidden", b"x\n"),
        ("a=b", b"x\n"),
    ] {
        scratch.write(directory.join(name), contents);
    }
    for options in [&[][..], &["-n"], &["-f"], &["-fn"], &["-c", "_"], &["-c%x", "-f"], &["-Ln"], &["-Lf"], &["-Lfn"]] {
        let Some(mut theirs) = original("s6-envdir") else { return };
        let of = |command: &mut Command| {
            environment(
                command.args(options).arg(&directory).args(SHOW).env_clear().envs([("EMPTY", "1"), ("A", "old")]),
            )
        };
        assert_eq!(of(&mut program("s6-envdir")), of(&mut theirs), "{options:?}");
    }
    let whole_line = |name: &str| {
        let outcome = finish(program("s6-envdir").arg("-L").arg(&directory).args(["printenv", name]));
        outcome.out
    };
    assert_eq!(whole_line("TAIL"), "no newline\n", "which the original loses");
    assert_eq!(whole_line("LONG").len(), 5001);
}

#[test]
fn a_directory_with_what_is_no_file_is_refused() {
    let scratch = Scratch::new();
    let directory = scratch.path("env");
    assert_eq!(finish(program("s6-envdir").arg(&directory).arg("true")).code, 111);
    assert_eq!(finish(program("s6-envdir").arg("-I").arg(&directory).arg("true")).code, 0);
    assert_eq!(finish(program("s6-envdir").arg("-Ii").arg(&directory).arg("true")).code, 111);
    fs::create_dir_all(directory.join("SUB")).unwrap();
    let outcome = finish(program("s6-envdir").arg("-I").arg(&directory).arg("true"));
    assert_eq!(outcome.code, 111);
    let path = directory.join("SUB");
    assert_eq!(outcome.err, format!("s6-envdir: fatal: unable to read {}: Is a directory\n", path.display()));
    let file = scratch.write("file", "");
    assert_eq!(finish(program("s6-envdir").arg("-I").arg(file).arg("true")).code, 111);
    assert_eq!(finish(program("s6-envdir").args(["-c", ""]).arg(&directory).arg("true")).code, 111);
}

#[test]
fn accounts_become_numbers() {
    for (args, want) in [
        (&["-u", "root"][..], Ok("0|-|-")),
        (&["-g", "root"], Ok("|0|-")),
        (&["-B", "root:root"], Ok("0|0|-")),
        (&["-B", ":root"], Ok("0|0|-")),
        (&["-un", "4242x"], Ok("4242|-|-")),
        (&["-n", "12"], Ok("12|0|-")),
        (&["-nB", "41:42"], Ok("41|42|-")),
        (&["-D", "1:2:3,4", "nosuchuser"], Ok("1|2|3,4")),
        (&["-D", ":2", "nosuchuser"], Ok("0|2|")),
        (&["-B", "-D", "1:2:3", "nosuchuser:root"], Ok("1|0|-")),
        (&["-B", "-D", "1:2:3", "root"], Ok("0|2|-")),
        (&["nosuchuser"], Err(1)),
        (&["0"], Err(1)),
        (&[""], Err(1)),
        (&["-B", "root:no:root"], Err(1)),
        (&["-D", "1:2:3", "-i", "nosuchuser"], Err(1)),
        (&["-D", "x", "root"], Err(100)),
        (&["-D", "", "root"], Err(100)),
        (&["-D", ":", "nosuchuser"], Ok("0|0|")),
    ] {
        assert_eq!(account(args), want.map(str::to_owned), "{args:?}");
    }
    let outcome = run("s6-envuidgid", &["-B", "nosuchuser:nosuchgroup", "true"]);
    assert_eq!(outcome.err, "s6-envuidgid: fatal: unknown group: nosuchgroup\n");
}

#[test]
fn accounts_are_those_of_the_original() {
    for line in text("/etc/passwd").lines() {
        let name = line.split(':').next().unwrap();
        let Some(mut theirs) = original("s6-envuidgid") else { return };
        let of =
            |command: &mut Command| environment(command.arg(name).args(SHOW).env_clear().env("PATH", "/usr/bin:/bin"));
        assert_eq!(of(&mut program("s6-envuidgid")), of(&mut theirs), "{name}");
    }
}

#[test]
fn users_that_no_file_knows_are_asked_of_getent() {
    let scratch = Scratch::new();
    scratch.script(
        "bin/getent",
        "#!/bin/sh\ncase \"$*\" in\n'passwd ldapuser') echo 'ldapuser:*:7001:7002::/:/bin/sh' ;;\n\
         'passwd 7001') echo 'ldapuser:*:7001:7002::/:/bin/sh' ;;\n'group ldapgroup') echo 'ldapgroup:*:7003:' ;;\n\
         *) exit 2 ;;\nesac\n",
    );
    let ask = |args: &[&str]| {
        let mut path = scratch.path("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        let mut command = program("s6-envuidgid");
        let outcome = finish(command.args(args).args(["sh", "-c", "printenv GID"]).env("PATH", path));
        (outcome.code, outcome.out)
    };
    assert_eq!(ask(&["ldapuser"]), (0, "7002\n".to_owned()));
    assert_eq!(ask(&["-g", "ldapgroup"]), (0, "7003\n".to_owned()));
    assert_eq!(ask(&["7001"]).0, 1, "a number is no name, whatever getent says");
    assert_eq!(ask(&["nobody-of-that-name"]).0, 1);
    let mut without = program("s6-envuidgid");
    let outcome = finish(without.args(["ldapuser", "true"]).env("PATH", "/nonexistent"));
    assert_eq!((outcome.code, outcome.err.as_str()), (1, "s6-envuidgid: fatal: unknown user: ldapuser\n"));
}

#[test]
fn ids_are_changed_in_full() {
    if !is_root() {
        return;
    }
    for (args, want) in [
        (&["-u", "12345", "-g", "12346", "-G", ""][..], "12345 12345 12345 12345;12346 12346 12346 12346;12346 ;"),
        (&["-u", "1", "-g", "12346", "-G", "7,8"], "1 1 1 1;12346 12346 12346 12346;7 8 12346 ;"),
        (&["-g", "9", "-G", "7:9;x"], "0 0 0 0;9 9 9 9;7 9 ;"),
        (&["-u", "0", "-g", "0", "-G", "5"], "0 0 0 0;0 0 0 0;0 5 ;"),
    ] {
        assert_eq!(identity("s6-applyuidgid", args).out, want, "{args:?}");
    }
    assert_eq!(
        identity("s6-setuidgid", &["12345:12346"]).out,
        "12345 12345 12345 12345;12346 12346 12346 12346;12346 ;"
    );
    for account in ["nobody", "daemon", "root"] {
        let Some(mut theirs) = original("s6-setuidgid") else { return };
        let theirs = finish(theirs.args([account, "id"]));
        assert_eq!(finish(program("s6-setuidgid").args([account, "id"])).out, theirs.out);
    }
}

#[test]
fn variables_carry_an_identity_and_are_removed() {
    let set = [("UID", "11"), ("GID", "12"), ("GIDLIST", "13,14")];
    if is_root() {
        let show = ["sh", "-c", "id -u; id -G"];
        assert_eq!(finish(program("s6-applyuidgid").args(["-U"]).args(show).envs(set)).out, "11\n12 13 14\n");
        let late = finish(program("s6-applyuidgid").args(["-U", "-u", "99"]).args(show).envs(set));
        assert_eq!(late.out, "99\n12 13 14\n");
    }
    let left = environment(program("s6-applyuidgid").arg("-z").args(SHOW).env_clear().envs(set).env("A", "b"));
    assert_eq!(left, [b"A=b".to_vec()]);
    let left = environment(program("s6-setuidgid").arg("").args(SHOW).env_clear().envs(set));
    assert_eq!(left.len(), 3);
    for (missing, reason) in [("GIDLIST", "GIDLIST not set"), ("UID", "UID not set")] {
        let mut command = program("s6-applyuidgid");
        let outcome = finish(command.args(["-U", "true"]).envs(set).env_remove(missing));
        assert_eq!((outcome.code, outcome.err), (100, format!("s6-applyuidgid: fatal: {reason}\n")));
    }
    let outcome = finish(program("s6-applyuidgid").args(["-U", "true"]).envs(set).env("GID", "x"));
    assert_eq!((outcome.code, outcome.err.as_str()), (100, "s6-applyuidgid: fatal: invalid $GID\n"));
}

#[test]
fn unknown_accounts_are_1_and_half_numbers_100() {
    for (account, code) in
        [("nosuchuser", 1), ("4242", 1), ("--", 1), ("root:root", 100), ("12:", 100), (":12", 100), ("1:2:3", 100)]
    {
        assert_eq!(run("s6-setuidgid", &[account, "true"]).code, code, "{account}");
    }
}

/// Soft and hard limit of open files, as a shell sees them behind s6-softlimit.
fn open_files(args: &[&str]) -> String {
    let outcome = run("s6-softlimit", &[args, &["sh", "-c", "ulimit -Sn; ulimit -Hn"]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    outcome.out.replace('\n', " ")
}

#[test]
fn limits_are_set_in_the_order_of_options() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(open_files(&["-o", "60"]), format!("60 {hard} "));
    assert_eq!(open_files(&["-Ho60"]), "60 60 ");
    assert_eq!(open_files(&["-o60", "-h", "-o70"]), "60 70 ");
    assert_eq!(open_files(&["-h", "-o70"]), "70 70 ", "which the original refuses");
    assert_eq!(open_files(&["-o60", "-o", "="]), format!("{hard} {hard} "));
    assert_eq!(open_files(&["-H", "-o60", "-o", "50"]), "50 50 ");
    assert_eq!(open_files(&["-z", "-o", "60"]), format!("60 {hard} "), "an unknown option is skipped");
    assert_eq!(open_files(&["--zo", "60", "--x=y"]), format!("60 {hard} "), "also behind two dashes");
    let outcome = run("s6-softlimit", &["-c0", "-m10000000000", "sh", "-c", "ulimit -c; ulimit -v"]);
    assert_eq!(outcome.out, "0\n9765625\n");
    for bad in ["x", "-1", "18446744073709551616", ""] {
        assert_eq!(run("s6-softlimit", &["-o", bad, "true"]).code, 100, "{bad}");
    }
}

/// Whether the program behind s6-setsid leads a session, and a group.
fn leads(args: &[&str], leader: bool) -> (String, Outcome) {
    let show = "set -- $(sed 's/.*) //' /proc/$$/stat); [ $4 = $$ ] && echo session; [ $3 = $$ ] && echo group; true";
    let mut command = if leader { Command::new("setsid") } else { program("s6-setsid") };
    if leader {
        command.arg("-w").arg(program("s6-setsid").get_program());
    }
    let outcome = finish(command.args(args).args(["/bin/sh", "-c", show]));
    (outcome.out.replace('\n', " "), outcome)
}

#[test]
fn sessions_and_groups_are_left() {
    assert_eq!(leads(&[], false).0, "session group ");
    assert_eq!(leads(&["--session"], false).0, "session group ");
    assert_eq!(leads(&["-b"], false).0, "group ");
    assert_eq!(leads(&["-f", "--background-process-group"], false).0, "group ");
    assert_eq!(leads(&["--process-group"], false).0, "group ");
    for (args, code, start) in [
        (&[][..], 0, "s6-setsid: warning: "),
        (&["-q"], 0, ""),
        (&["-i"], 111, "s6-setsid: fatal: "),
        (&["--strict", "--no-strict"], 0, "s6-setsid: warning: "),
    ] {
        let (_, outcome) = leads(args, true);
        assert_eq!(outcome.code, code, "{args:?}");
        assert!(outcome.err.starts_with(start) && outcome.err.is_empty() == start.is_empty(), "{}", outcome.err);
    }
    assert_eq!(leads(&["-f", "-d0"], false).1.code, 0, "no terminal is a warning");
    assert_eq!(leads(&["-fi", "--ctty=0"], false).1.code, 111);
    for bad in [&["--foo"][..], &["-x"], &["-P"], &["--ctty", "5"], &["-dx"]] {
        assert_eq!(leads(bad, false).1.code, 100, "{bad:?}");
    }
}

/// The foreground of a terminal, which script(1) makes.
#[test]
fn the_foreground_of_a_terminal_is_taken_also_from_the_background() {
    let scratch = Scratch::new();
    let out = scratch.path("out");
    let setsid = program("s6-setsid").get_program().to_owned();
    let show = format!("ps -o pgid=,tpgid= -p \\$\\$ > {}", out.display());
    // The shell in the background of this one is stopped by SIGTTOU unless it grabs.
    let inner = format!("set -m; {} -g sh -c \"{show}\" & wait", setsid.display());
    let mut command = Command::new("script");
    let status = command.args(["-qec", &inner, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    if status.is_err() {
        return skip("script is not installed (apt-get install bsdutils)");
    }
    until("it says", || !text(&out).is_empty());
    let words: Vec<String> = text(&out).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words.len(), 2);
    assert_eq!(words[0], words[1]);
}

#[test]
fn a_daemon_that_forks_is_waited_for() {
    let scratch = Scratch::new();
    let (go, late) = (scratch.path("go"), scratch.path("late"));
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let daemon = format!("(cat {} >/dev/null; echo done > {}) & exit 4", go.display(), late.display());
    let mut command = program("s6-fghack");
    let mut hack = Background::start(command.args(["sh", "-c", &daemon]).stderr(Stdio::null()));
    fs::write(&go, "").unwrap();
    assert_eq!(hack.code(), 4);
    assert_eq!(text(&late), "done\n");
}

#[test]
fn what_a_daemon_does_to_the_pipe_is_told() {
    let count = "ls -l /proc/self/fd | grep -c pipe: ";
    let outcome = run("s6-fghack", &["sh", "-c", count]);
    assert!(outcome.out.trim().parse::<u32>().unwrap() >= 31, "{}", outcome.out);
    assert!(outcome.err.starts_with("s6-fghack: warning: "), "{}", outcome.err);
    let write =
        "for fd in /proc/$$/fd/*; do [ ${fd##*/} -gt 2 ] && readlink $fd | grep -q pipe: && echo > $fd && exit; done";
    assert_eq!(run("s6-fghack", &["sh", "-c", write]).code, 102);
    let few = finish(program("s6-softlimit").args(["-o9", "s6-fghack", "sh", "-c", "exit 5"]));
    assert_eq!(few.code, 5, "{}", few.err);
    assert_eq!(run("s6-fghack", &["sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(run("s6-fghack", &["no such program"]).code, 111);
}

#[test]
fn names_are_bytes() {
    let scratch = Scratch::new();
    let name = OsStr::from_bytes(b"n\xffme");
    let directory: PathBuf = scratch.path(name);
    scratch.write(directory.join(OsStr::from_bytes(b"V\xfe")), b"\xff\n");
    let left = environment(program("s6-envdir").arg(&directory).args(SHOW).env_clear());
    assert_eq!(left, [b"V\xfe=\xff".to_vec()]);
}

#[test]
fn wrong_usage_is_told_with_exit_code_100() {
    for (name, args) in [
        ("s6-setuidgid", &["root"][..]),
        ("s6-envuidgid", &["root"]),
        ("s6-envuidgid", &["-z", "root", "true"]),
        ("s6-applyuidgid", &[]),
        ("s6-applyuidgid", &["-u", "root", "true"]),
        ("s6-applyuidgid", &["-u", "4294967296", "true"]),
        ("s6-applyuidgid", &["-G", ",14", "true"]),
        ("s6-envdir", &["."]),
        ("s6-envdir", &["-x", ".", "true"]),
        ("s6-softlimit", &[]),
        ("s6-setsid", &[]),
        ("s6-fghack", &[]),
    ] {
        let outcome = run(name, args);
        assert_eq!(outcome.code, 100, "{name} {args:?}");
        assert!(outcome.err.starts_with(&format!("{name}: usage: {name}")), "{}", outcome.err);
    }
}
