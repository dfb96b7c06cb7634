//! Local services: the unix super-server, who it lets in, and the rules that say so.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::user::{NOBODY, for_everyone, is_root};
use common::{Background, Outcome, Scratch, eventually, finish, kill, original, program, run, skip, text, until};
use proptest::prelude::*;

/// A server in a directory of its own; its socket is `s` there, its messages are in `err`.
struct Server {
    scratch: Scratch,
    process: Background,
}

impl Server {
    /// Starts s6-ipcserver with options, for a program; returns when it listens.
    fn start(options: &[&str], handler: &[&str]) -> Server {
        Server::start_with(program("s6-ipcserver"), options, handler)
    }

    fn start_with(mut command: Command, options: &[&str], handler: &[&str]) -> Server {
        let scratch = Scratch::new();
        std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        let errors = std::fs::File::create(scratch.path("err")).unwrap();
        command.arg("-1").args(options).arg("s").args(handler).current_dir(scratch.path(""));
        let mut process = Background::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors));
        let mut ready = [0; 1];
        process.0.stdout.take().unwrap().read_exact(&mut ready).expect("the server is ready");
        assert_eq!(&ready, b"\n");
        Server { scratch, process }
    }

    fn connect(&self) -> UnixStream {
        let client = UnixStream::connect(self.scratch.path("s")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }

    /// What a new client is told up to the end of its connection.
    fn ask(&self) -> String {
        read_all(&mut self.connect())
    }

    /// The first line that a new client is told.
    fn ask_and_leave(&self) -> String {
        read_line(&mut self.connect())
    }

    /// What a new client is told after it has said something.
    fn ask_with(&self, line: &[u8]) -> String {
        let mut client = self.connect();
        client.write_all(line).unwrap();
        read_all(&mut client)
    }

    /// Connections that are served.
    fn children(&self) -> usize {
        let pid = self.process.pid();
        text(format!("/proc/{pid}/task/{pid}/children")).split_whitespace().count()
    }

    fn errors(&self) -> String {
        text(self.scratch.path("err"))
    }

    /// Descriptors that the server has open.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.pid())).unwrap().count()
    }
}

fn read_all(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The next line that a server's handler sends.
fn read_line(client: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while client.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8_lossy(&line).into_owned()
}

fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[test]
fn a_connection_learns_who_is_at_its_other_end() {
    let server = Server::start(&[], &["env"]);
    let (uid, gid) = (nix::unistd::geteuid().to_string(), nix::unistd::getegid().to_string());
    let answer = server.ask();
    let seen = variables(&answer);
    for (name, value) in [
        ("PROTO", "IPC"),
        ("IPCREMOTEEUID", uid.as_str()),
        ("IPCREMOTEEGID", &gid),
        ("IPCREMOTEPATH", ""),
        ("IPCCONNNUM", "0"),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name}");
    }

    let answer = finish(
        program("s6-ipcclient")
            .args(["-p", "me", "s", "sh", "-c", "cat <&6; echo $IPCLOCALPATH"])
            .current_dir(server.scratch.path("")),
    );
    assert!(answer.out.contains("IPCREMOTEPATH=me\n") && answer.out.ends_with("me\n"), "{answer:?}");
}

#[test]
fn without_credentials_there_is_no_number_and_no_name() {
    let mut command = program("s6-ipcserver");
    command.env("IPCREMOTEEUID", "7").env("IPCREMOTEEGID", "7").env("IPCCONNNUM", "7");
    let server = Server::start_with(command, &["-P", "-v", "-C1"], &["sh", "-c", "env; echo; exec cat"]);
    let (mut one, mut two) = (server.connect(), server.connect());
    for client in [&mut one, &mut two] {
        let mut text = String::new();
        loop {
            match read_line(client) {
                line if line.is_empty() => break,
                line => text += &(line + "\n"),
            }
        }
        let seen = variables(&text);
        assert_eq!((seen.get("IPCREMOTEEUID"), seen.get("IPCREMOTEEGID")), (None, None));
        assert_eq!((seen.get("IPCCONNNUM"), seen.get("PROTO")), (Some(&""), Some(&"IPC")));
    }
    until("both are logged", || server.errors().matches("allow ?:? pid ").count() == 2);
    assert!(server.errors().contains(" count ?/40\n"), "{}", server.errors());
}

#[test]
fn a_connection_gets_its_two_ends_and_nothing_else_of_the_server() {
    let server = Server::start(&[], &["sh", "-c", "ls -l /proc/self/fd; cat /proc/self/status"]);
    let answer = server.ask();
    let open = |text: &str| text.lines().filter(|line| line.contains(" -> ")).count();
    assert_eq!(answer.lines().filter(|line| line.contains("socket:")).count(), 2, "{answer}");
    // What this test runner lets everyone inherit is inherited here too.
    assert_eq!(open(&answer), open(&finish(Command::new("ls").args(["-l", "/proc/self/fd"])).out), "{answer}");
    let usual = text("/proc/self/status");
    let line = |status: &str, name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(line(&answer, "SigBlk:"), "SigBlk:\t0000000000000000");
    // The C library has uses of its own for 32 and above.
    let ignored = |status: &str| u64::from_str_radix(&line(status, "SigIgn:")[8..], 16).unwrap() & 0x7fff_ffff;
    // What the server catches, and the SIGPIPE that Rust ignores, have their default effect.
    let own = [libc::SIGPIPE, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT, libc::SIGTERM, libc::SIGCHLD];
    assert_eq!(ignored(&answer), own.iter().fold(ignored(&usual), |all, signal| all & !(1 << (signal - 1))));
}

#[test]
fn clients_beyond_the_limit_wait_and_those_beyond_their_own_are_told_at_once() {
    let server = Server::start(&["-c2", "-C2"], &["sh", "-c", "echo up $IPCCONNNUM; exec cat"]);
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!((read_line(&mut one), read_line(&mut two)), ("up 0".into(), "up 1".into()));
    let mut three = server.connect();
    three.set_nonblocking(true).unwrap();
    assert_eq!(three.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(one);
    three.set_nonblocking(false).unwrap();
    assert_eq!(read_line(&mut three), "up 1");

    let server = Server::start(&["-q", "-c9", "-C1"], &["sh", "-c", "echo up; exec cat"]);
    let mut one = server.connect();
    assert_eq!(read_line(&mut one), "up");
    assert_eq!(server.ask(), "");
    let uid = nix::unistd::geteuid();
    until("the refusal is logged", || server.errors().contains(&format!("s6-ipcserverd: info: deny {uid}:")));
    assert!(server.errors().contains(" count 1/1: "), "{}", server.errors());
    drop(one);
    until("there is room again", || server.ask_and_leave() == "up");
}

#[test]
fn signals_end_the_server_or_its_connections_or_both() {
    const HANDLER: &[&str] = &["sh", "-c", "trap 'echo term; exit' TERM; echo up $$; while :; do sleep 0.05; done"];
    let (term, hup, quit, abrt) = (libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGABRT);
    for (signal, ends, told) in [(term, true, false), (hup, false, true), (quit, true, true)] {
        let mut server = Server::start(&["-v"], HANDLER);
        let mut client = server.connect();
        let up = read_line(&mut client);
        let pid: i32 = up.strip_prefix("up ").unwrap().parse().unwrap();
        server.process.signal(signal);
        if ends {
            assert_eq!(server.process.code(), 0);
            assert!(server.errors().ends_with("s6-ipcserverd: info: exiting\n"));
        }
        if told {
            assert_eq!(read_all(&mut client), "term\n");
        } else {
            assert!(common::is_alive(pid));
            kill(pid, libc::SIGKILL);
        }
        if !ends {
            assert!(server.ask_and_leave().starts_with("up "));
            server.process.signal(quit);
            assert_eq!(server.process.code(), 0);
        }
    }
    let mut server = Server::start(&[], &["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"]);
    let mut client = server.connect();
    assert_eq!(read_line(&mut client), "up");
    server.process.signal(abrt);
    assert_eq!((server.process.code(), read_all(&mut client).as_str()), (0, ""));
}

#[test]
fn the_log_tells_of_every_connection() {
    let mut server =
        Server::start(&["-v", "-c3", "-C9"], &["sh", "-c", "read x; case $x in k) kill -9 $$ ;; esac; exit 3"]);
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    for line in ["x\n", "k\n"] {
        let mut client = server.connect();
        client.write_all(line.as_bytes()).unwrap();
        assert_eq!(read_all(&mut client), "");
        until("the end is logged", || server.errors().ends_with("status: 0/3\n"));
    }
    let log = server.errors().replace("s6-ipcserverd: info: ", "");
    // Also of one that ended just before the server was told to.
    let mut client = server.connect();
    until("it is served", || server.children() == 1);
    server.process.signal(libc::SIGSTOP);
    until("it does not run", || text(format!("/proc/{}/stat", server.process.pid())).contains(") T "));
    client.write_all(b"x\n").unwrap();
    until("the connection has ended", || {
        let pid = server.process.pid();
        let children = text(format!("/proc/{pid}/task/{pid}/children"));
        text(format!("/proc/{}/stat", children.trim())).contains(") Z ")
    });
    server.process.signal(libc::SIGTERM);
    server.process.signal(libc::SIGCONT);
    assert_eq!(server.process.code(), 0);
    let last = server.errors().replace("s6-ipcserverd: info: ", "");
    assert!(last.contains("quitting\nend pid ") && last.ends_with(" exitcode 3\nstatus: 0/3\nexiting\n"), "{last}");
    let mut pids = log.lines().filter_map(|line| line.strip_prefix("end pid ")?.split(' ').next());
    let (first, second) = (pids.next().unwrap(), pids.next().unwrap());
    let wanted = format!(
        "starting\nstatus: 0/3\n\
         allow {uid}:{gid} pid {first} count 1/3\nstatus: 1/3\nend pid {first} uid {uid} exitcode 3\nstatus: 0/3\n\
         allow {uid}:{gid} pid {second} count 1/3\nstatus: 1/3\nend pid {second} uid {uid} signal 9\nstatus: 0/3\n"
    );
    assert_eq!(log, wanted);
}

#[test]
fn clients_that_flood_stall_or_pass_descriptors_cost_the_server_nothing() {
    let server = Server::start(&["-c4", "-q"], &["sh", "-c", "read x"]);
    assert_eq!(server.ask_with(b"x\n"), "");
    until("the connection is over", || server.children() == 0);
    let before = server.descriptors();

    let stalled = server.connect();
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let passer = server.connect();
    s6::sys::scm::send(passer.as_fd(), &[std::io::IoSlice::new(b"x")], &vec![writer.as_fd(); 253]).unwrap();
    drop(writer);
    for _ in 0..200 {
        drop(server.connect());
    }
    let mut flood = server.connect();
    flood.set_nonblocking(true).unwrap();
    while flood.write(&[b'y'; 4096]).is_ok() {}
    drop((stalled, passer, flood));

    // The pipe has no writer left: nobody holds what was passed.
    assert_eq!(s6::sys::fd::read(&reader, &mut [0; 1]), Ok(0));
    until("all connections are over", || server.ask_with(b"x\n").is_empty() && server.children() == 0);
    assert_eq!(server.descriptors(), before);
}

#[test]
fn a_server_without_free_descriptors_complains_little_and_goes_on_when_there_are_some() {
    let server = Server::start(&[], &["echo", "hello"]);
    let limit = |number: &str| {
        let pid = server.process.pid().to_string();
        finish(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={number}:1024")]))
    };
    // 0, 1 and 2 are in use.
    assert_eq!(limit("3").code, 0);
    let mut client = server.connect();
    until("it complains", || server.errors().contains("s6-ipcserverd: warning: unable to accept a connection: "));
    assert_eq!(limit("1024").code, 0);
    assert_eq!(read_all(&mut client), "hello\n");
    assert!(server.errors().lines().count() < 5, "{}", server.errors());
}

#[test]
fn a_handler_that_cannot_be_run_costs_a_warning() {
    let mut server = Server::start(&[], &["./nonexistent"]);
    assert_eq!((server.ask().as_str(), server.ask().as_str()), ("", ""));
    let line = "s6-ipcserverd: warning: unable to spawn ./nonexistent: No such file or directory\n";
    until("both are warned of", || server.errors() == line.repeat(2));
    assert!(server.process.is_running());
}

#[test]
fn a_server_that_nobody_asks_whether_it_is_ready_serves() {
    let scratch = Scratch::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let errors = std::fs::File::create(scratch.path("err")).unwrap();
    let mut command = program("s6-ipcserver");
    command.args(["-1", "s", "echo", "hello"]).current_dir(scratch.path(""));
    let server = Background::start(command.stdin(Stdio::null()).stdout(writer).stderr(errors));
    let mut client = eventually("it listens", || UnixStream::connect(scratch.path("s")).ok());
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(read_all(&mut client), "hello\n");
    assert_eq!(
        text(scratch.path("err")),
        "s6-ipcserverd: warning: unable to write the readiness newline: Broken pipe\n"
    );
    drop(server);
}

#[test]
fn a_server_refuses_what_is_no_listening_socket() {
    let serverd = |input: Stdio| {
        let output = program("s6-ipcserverd").arg("true").stdin(input).stdout(Stdio::null()).output().unwrap();
        common::code(output.status)
    };
    assert_eq!(serverd(Stdio::null()), 100);
    let (one, _other) = UnixStream::pair().unwrap();
    drop(_other);
    assert_eq!(serverd(OwnedFd::from(one).into()), 111);
    let fresh = s6::sys::socket::stream().unwrap();
    assert_eq!(serverd(fresh.into()), 111);
}

#[test]
fn the_whole_chain_keeps_one_pid_and_takes_the_identity_after_the_binding() {
    if !is_root() {
        return skip("changing identity needs root");
    }
    let server = Server::start(
        &["-a", "0600", "-u", "12", "-g", "13", "-G", "14,15"],
        &["sh", "-c", "id -u; id -G; echo $PPID"],
    );
    assert_eq!(server.ask(), format!("12\n13 14 15\n{}\n", server.process.pid()));
    let socket = std::fs::metadata(server.scratch.path("s")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn binders_that_compete_leave_one_socket_that_works() {
    let scratch = Scratch::new();
    for _ in 0..20 {
        let binders: Vec<Background> = (0..4)
            .map(|_| {
                let mut command = program("s6-ipcserver-socketbinder");
                command.args(["s", "sleep", "1000"]).current_dir(scratch.path(""));
                Background::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
            })
            .collect();
        until("one listens", || UnixStream::connect(scratch.path("s")).is_ok());
        drop(binders);
    }
    let mut names: Vec<_> = std::fs::read_dir(scratch.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["s", "s.lock"]);
}

#[test]
fn a_bound_socket_has_the_wanted_kind_and_mode() {
    let scratch = Scratch::new();
    let script =
        "import socket,os; s=socket.socket(fileno=0); print(s.type.name, s.getsockopt(1,30), os.get_blocking(0))";
    for (options, wanted) in [
        (&["-a", "0642"][..], "SOCK_STREAM 1 False\n"),
        (&["-B"], "SOCK_STREAM 1 True\n"),
        (&["-b0"], "SOCK_STREAM 0 False\n"),
        (&["-m", "-b0"], "SOCK_DGRAM 0 False\n"),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec s6-ipcserver-socketbinder \"$@\"", "sh"]).args(options);
        command.args(["s", "python3", "-c", script]).current_dir(scratch.path(""));
        let outcome = finish(&mut common::with_path(command));
        assert_eq!((outcome.code, outcome.out.as_str()), (0, wanted), "{outcome:?}");
        let mode = std::fs::metadata(scratch.path("s")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, if options[0] == "-a" { 0o642 } else { 0o777 });
    }
    let dgram = finish(program("s6-ipcserver-socketbinder").args(["-m", "s", "true"]).current_dir(scratch.path("")));
    assert_eq!(dgram.code, 111);
}

#[test]
fn clients_and_servers_of_debian_work_with_ours() {
    for (ours_serves, name) in [(true, "s6-ipcclient"), (false, "s6-ipcserver")] {
        let Some(theirs) = original(name) else { return };
        let (serve, mut client) =
            if ours_serves { (program("s6-ipcserver"), theirs) } else { (theirs, program("s6-ipcclient")) };
        let handler = ["sh", "-c", "read l; echo $PROTO/$IPCREMOTEEUID/$IPCREMOTEPATH/$l"];
        let server = Server::start_with(serve, &[], &handler);
        let client = client.args(["-p", "me", "s", "sh", "-c", "echo $IPCLOCALPATH >&7; cat <&6"]);
        let outcome = finish(client.current_dir(server.scratch.path("")));
        assert_eq!(outcome.out, format!("IPC/{}/me/me\n", nix::unistd::geteuid()));
    }
}

// Access rules.

/// One rule: its key, `allow` or `deny` or neither, environment, command.
#[derive(Debug, Clone)]
struct Rule {
    key: String,
    verdict: Option<&'static str>,
    env: Option<Vec<(String, Vec<u8>)>>,
    exec: Option<Vec<u8>>,
}

fn rule() -> impl Strategy<Value = Rule> {
    let key = prop_oneof![
        "uid/(self|default|[0-9]{1,2})",
        "gid/(self|[0-9]{1,2})",
        "ip4/[0-9]_[0-9]",
        "[a-z]{1,3}/[a-zA-Z@:-]{1,9}",
    ];
    let verdict = prop::sample::select(vec![Some("allow"), Some("allow"), Some("deny"), None]);
    let value = prop::collection::vec(prop::sample::select(b"ab= \t\n\0\r\xff".to_vec()), 0..12);
    let env = prop::option::of(prop::collection::vec(("[A-Z]{1,4}", value), 0..5));
    let exec = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (key, verdict, env, exec).prop_map(|(key, verdict, env, exec)| Rule { key, verdict, env, exec })
}

fn write_rules(scratch: &Scratch, rules: &[Rule]) {
    std::fs::create_dir_all(scratch.path("rules")).unwrap();
    for rule in rules {
        let dir = Path::new("rules").join(&rule.key);
        std::fs::create_dir_all(scratch.path(&dir)).unwrap();
        if let Some(verdict) = rule.verdict {
            scratch.write(dir.join(verdict), "");
        }
        if let Some(env) = &rule.env {
            std::fs::create_dir_all(scratch.path(dir.join("env"))).unwrap();
            for (name, value) in env {
                scratch.write(dir.join("env").join(name), value);
            }
        }
        if let Some(exec) = &rule.exec {
            scratch.write(dir.join("exec"), exec);
        }
    }
}

fn compile(scratch: &Scratch, cdb: &str, rules: &str) -> Outcome {
    finish(program("s6-accessrules-cdb-from-fs").args([cdb, rules]).current_dir(scratch.path("")))
}

/// All files below a directory with their contents.
fn tree(base: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![base.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                files.insert(entry.path().strip_prefix(base).unwrap().to_owned(), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The cdb that ours makes is the one that Debian's makes, byte for byte; each understands the other's, and what
    /// comes out of one cdb makes the same cdb again.
    #[test]
    fn compiled_rules_are_those_of_debian(rules in prop::collection::vec(rule(), 0..12)) {
        let scratch = Scratch::new();
        write_rules(&scratch, &rules);
        let outcome = compile(&scratch, "ours", "rules");
        prop_assert_eq!(outcome.code, 0, "{:?}", outcome);
        if let Some(mut theirs) = original("s6-accessrules-cdb-from-fs") {
            finish(theirs.args(["theirs", "rules"]).current_dir(scratch.path("")));
            prop_assert_eq!(std::fs::read(scratch.path("ours")).unwrap(), std::fs::read(scratch.path("theirs")).unwrap());
            let mut theirs = original("s6-accessrules-fs-from-cdb").unwrap();
            finish(theirs.args(["their-tree", "ours"]).current_dir(scratch.path("")));
        }
        let back = finish(program("s6-accessrules-fs-from-cdb").args(["tree", "ours"]).current_dir(scratch.path("")));
        prop_assert_eq!(back.code, 0, "{:?}", back);
        if scratch.path("their-tree").exists() {
            prop_assert_eq!(tree(&scratch.path("tree")), tree(&scratch.path("their-tree")));
        }
    }

    /// Whoever asks, a directory of rules and its compiled form decide the same.
    #[test]
    fn a_directory_and_its_cdb_decide_the_same(
        rules in prop::collection::vec(rule(), 0..12), uid in 0..12u32, gid in 0..12u32,
    ) {
        let scratch = Scratch::new();
        // What a rule runs is random.
        let rules: Vec<Rule> = rules.into_iter().map(|rule| Rule { exec: None, ..rule }).collect();
        write_rules(&scratch, &rules);
        prop_assert_eq!(compile(&scratch, "cdb", "rules").code, 0);
        let ask = |option: &str, place: &str| {
            let mut command = program("s6-ipcserver-access");
            command.args(["-v2", "-l", "x", option, place, "env"]).current_dir(scratch.path("")).env_clear();
            command.env("PATH", "/usr/bin:/bin").env("PROTO", "IPC").env("A", "old");
            command.env("IPCREMOTEEUID", uid.to_string()).env("IPCREMOTEEGID", gid.to_string());
            let mut outcome = finish(&mut command);
            // The pid in the log differs.
            outcome.err = outcome.err.split(" uid ").map(|part| part.split(" pid ").next().unwrap()).collect();
            (outcome.code, outcome.out, outcome.err)
        };
        let by_directory = ask("-i", "rules");
        prop_assert!([0, 1].contains(&by_directory.0), "{:?}", by_directory);
        prop_assert_eq!(by_directory, ask("-x", "cdb"));
    }
}

#[test]
fn damaged_cdbs_are_refused_or_read_and_nothing_is_left_of_what_was_refused() {
    let scratch = Scratch::new();
    let rule = |key: &str, verdict, env: Option<&[u8]>| Rule {
        key: key.into(),
        verdict: Some(verdict),
        env: env.map(|value| vec![("NAME".into(), value.to_vec())]),
        exec: env.map(|_| b"exit 3".to_vec()),
    };
    let rules =
        [rule("uid/5", "allow", Some(b"value")), rule("gid/7", "deny", None), rule("uid/default", "allow", Some(b""))];
    write_rules(&scratch, &rules);
    assert_eq!(compile(&scratch, "good", "rules").code, 0);
    let good = std::fs::read(scratch.path("good")).unwrap();
    // A sequence that looks random and is the same each time.
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut refused = 0;
    for round in 0..150 {
        let mut bytes = good.clone();
        for _ in 0..1 + next(4) {
            // Half of the damage where the records are.
            let at = if next(2) == 0 { next(bytes.len()) } else { 2048 + next(bytes.len() - 2048) };
            bytes[at] = [0, 1, 0xff, next(256) as u8][next(4)];
        }
        if next(4) == 0 {
            bytes.truncate(next(bytes.len()));
        }
        scratch.write("bad", &bytes);
        let tree = format!("tree{round}");
        let outcome = finish(program("s6-accessrules-fs-from-cdb").args([&tree, "bad"]).current_dir(scratch.path("")));
        assert!([0, 111].contains(&outcome.code), "{outcome:?}");
        assert_eq!(scratch.path(&tree).exists(), outcome.code == 0);
        refused += u32::from(outcome.code == 111);
        let mut access = program("s6-ipcserver-access");
        access
            .args(["-l", "x", "-x", "bad", "true"])
            .env("PROTO", "IPC")
            .env("IPCREMOTEEUID", "5")
            .env("IPCREMOTEEGID", "7");
        let outcome = finish(access.current_dir(scratch.path("")).env("PATH", "/nonexistent"));
        assert!([1, 111, 127].contains(&outcome.code), "{outcome:?}");
    }
    assert!(refused > 20, "only {refused} of 150 were refused");
}

#[test]
fn names_in_a_cdb_lead_nowhere_else() {
    let scratch = Scratch::new();
    let allow = |env: &[u8]| s6::local::access::Allow { env: env.to_vec(), exec: Vec::new() }.encode().unwrap();
    let cases: &[(&[u8], Vec<u8>)] = &[
        (b"uid/../../outside", allow(b"")),
        (b"../outside", allow(b"")),
        (b"/outside", allow(b"")),
        (b"uid/.", allow(b"")),
        (b"uid//5", allow(b"")),
        (b"uid/5/", allow(b"")),
        (b"", allow(b"")),
        (b"uid/a\0b", allow(b"")),
        (b"uid/5", allow(b"../../../../outside=x\0")),
        (b"uid/5", allow(b"..=x\0")),
        (b"uid/5", allow(b"=x\0")),
    ];
    for (key, data) in cases {
        let mut cdb = s6::local::cdb::Writer::new();
        cdb.add(b"uid/4", &allow(b"A=b\0")).unwrap();
        cdb.add(key, data).unwrap();
        scratch.write("cdb", cdb.finish());
        let outcome = finish(program("s6-accessrules-fs-from-cdb").args(["tree", "cdb"]).current_dir(scratch.path("")));
        assert_eq!(outcome.code, 111, "{}: {outcome:?}", key.escape_ascii());
        let left: Vec<_> = std::fs::read_dir(scratch.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["cdb"], "{}", key.escape_ascii());
    }
}

#[test]
fn an_environment_that_a_reader_would_refuse_is_not_compiled() {
    let scratch = Scratch::new();
    // NAME=value and a NUL: 4096 bytes, and one more.
    for (length, code) in [(4092, 0), (4093, 100)] {
        let half = length / 2;
        scratch.write("rules/uid/5/allow", "");
        scratch.write("rules/uid/5/env/A", "x".repeat(half - 1));
        scratch.write("rules/uid/5/env/B", "x".repeat(length - half - 1));
        let outcome = compile(&scratch, "cdb", "rules");
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert_eq!(scratch.path("cdb").exists(), code == 0);
        let _ = std::fs::remove_file(scratch.path("cdb"));
    }
}

#[test]
fn rules_decide_about_other_users_by_what_the_kernel_says() {
    if !is_root() {
        return skip("another user needs root");
    }
    let access = common::bin_dir().join("s6-ipcserver-access");
    let server = Server::start(&[], &[access.to_str().unwrap(), "-v2", "-i", "rules", "sh", "-c", "echo $WHO"]);
    let bin = for_everyone(&server.scratch, &["s6-ipcclient"]);
    let allow = |key: &str, who: &str| {
        server.scratch.write(format!("rules/{key}/allow"), "");
        server.scratch.write(format!("rules/{key}/env/WHO"), who);
    };
    let ask = |uid: u32, gid: u32| {
        let mut client = Command::new(bin.join("s6-ipcclient"));
        client.args(["s", "sh", "-c", "cat <&6"]).current_dir(server.scratch.path("")).uid(uid).gid(gid);
        // What the client says of itself does not count.
        client.env("IPCREMOTEEUID", "0").env("PROTO", "IPC");
        finish(&mut client).out
    };
    allow("uid/self", "root");
    assert_eq!((ask(0, 0).as_str(), ask(NOBODY, NOBODY).as_str()), ("root\n", ""));
    allow("gid/77", "group");
    assert_eq!((ask(NOBODY, 77).as_str(), ask(NOBODY, 78).as_str()), ("group\n", ""));
    server.scratch.write(format!("rules/uid/{NOBODY}/deny"), "");
    allow("uid/default", "anyone");
    assert_eq!((ask(NOBODY, 77).as_str(), ask(12, 12).as_str()), ("", "anyone\n"));
    let refused = format!("uid {NOBODY} gid 77: Permission denied\n");
    until("the refusal is logged", || server.errors().contains(&refused));
}

#[test]
fn a_rule_limits_the_connections_of_each_user() {
    let bin = common::bin_dir();
    let (access, connlimit) = (bin.join("s6-ipcserver-access"), bin.join("s6-connlimit"));
    let handler =
        [access.to_str().unwrap(), "-i", "rules", connlimit.to_str().unwrap(), "sh", "-c", "echo up; exec cat"];
    let server = Server::start(&[], &handler);
    server.scratch.write("rules/uid/default/allow", "");
    server.scratch.write("rules/uid/default/env/IPCCONNMAX", "1");
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!((read_line(&mut one), read_line(&mut two)), ("up".into(), "up".into()));
    assert_eq!(server.ask(), "");
}

#[test]
fn a_rule_with_a_command_runs_it_in_place_of_the_program() {
    if !Path::new("/usr/bin/execlineb").exists() {
        return skip("execlineb is not installed (apt-get install execline)");
    }
    let scratch = Scratch::new();
    scratch.write("rules/uid/5/allow", "");
    scratch.write("rules/uid/5/exec", "echo instead");
    let mut command = program("s6-ipcserver-access");
    command.args(["-v0", "-E", "-i", "rules", "echo", "program"]).current_dir(scratch.path(""));
    command.env("PROTO", "X").env("XREMOTEEUID", "5").env("XREMOTEEGID", "5");
    let outcome = finish(&mut command);
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "instead\n", ""));
}

#[test]
fn wrong_usage_is_told_by_name() {
    for (name, args) in [
        ("s6-ipcclient", &["path"][..]),
        ("s6-ipcclient", &["-z", "path", "true"]),
        ("s6-ipcserver", &["path"]),
        ("s6-ipcserver", &["-c", "x", "path", "true"]),
        ("s6-ipcserver", &["-G", "x", "path", "true"]),
        ("s6-ipcserver", &["-a", "8", "path", "true"]),
        ("s6-ipcserver-socketbinder", &["path"]),
        ("s6-ipcserver-socketbinder", &["--name", "path", "true"]),
        ("s6-ipcserverd", &[]),
        ("s6-ipcserverd", &[""]),
        ("s6-ipcserver-access", &[""]),
        ("s6-ipcserver-access", &["-v", "-1", "true"]),
        ("s6-accessrules-cdb-from-fs", &["cdb"]),
        ("s6-accessrules-fs-from-cdb", &["dir"]),
    ] {
        let outcome = run(name, args);
        assert_eq!(outcome.code, 100, "{name} {args:?}");
        assert!(outcome.err.starts_with(&format!("{name}: usage: {name} ")), "{name} {args:?}: {}", outcome.err);
    }
    let outcome = finish(program("s6-connlimit").arg("true").env_remove("PROTO"));
    assert_eq!((outcome.code, outcome.err.as_str()), (100, "s6-connlimit: fatal: PROTO not set\n"));
}

#[test]
fn messages_say_what_could_not_be_done() {
    let scratch = Scratch::new();
    let at = |name: &str, args: &[&str]| {
        let outcome = finish(program(name).args(args).current_dir(scratch.path("")));
        (outcome.code, outcome.err)
    };
    let long = "x".repeat(108);
    for (name, args, code, message) in [
        ("s6-ipcclient", &["none", "true"][..], 111, "unable to connect to none: No such file or directory"),
        ("s6-ipcclient", &[&long, "true"], 111, &format!("unable to connect to {long}: File name too long")),
        (
            "s6-ipcserver-socketbinder",
            &["-D", ".", "true"],
            111,
            "unable to bind a socket to .: Address already in use",
        ),
        ("s6-ipcserver-socketbinder", &["s", "./none"], 127, "unable to exec ./none: No such file or directory"),
        ("s6-accessrules-cdb-from-fs", &["cdb", "none"], 111, "unable to read none: No such file or directory"),
        ("s6-accessrules-fs-from-cdb", &["dir", "none"], 111, "unable to open none: No such file or directory"),
    ] {
        assert_eq!(at(name, args), (code, format!("{name}: fatal: {message}\n")), "{name}");
    }
}

#[test]
fn a_client_finds_its_connection_on_six_and_seven_and_nothing_else_new() {
    let server = Server::start(&[], &["cat"]);
    let script = "echo ping >&7; read x <&6; echo $x; ls -l /proc/self/fd | grep -c socket:";
    let outcome = finish(program("s6-ipcclient").args(["s", "sh", "-c", script]).current_dir(server.scratch.path("")));
    assert_eq!(outcome.out, "ping\n2\n");
    let quiet = finish(program("s6-ipcclient").args(["-vq", "s", "true"]).current_dir(server.scratch.path("")));
    let loud = finish(program("s6-ipcclient").args(["-v", "s", "true"]).current_dir(server.scratch.path("")));
    assert_eq!((quiet.err.as_str(), loud.err.as_str()), ("", "s6-ipcclient: info: s6-ipcclient: connected to s\n"));
}

#[test]
fn a_server_that_takes_the_path_over_gets_the_new_clients() {
    let first = Server::start(&[], &["echo", "first"]);
    assert_eq!(first.ask(), "first\n");
    let mut second = program("s6-ipcserver");
    second.args(["-1", "s", "echo", "second"]).current_dir(first.scratch.path(""));
    let mut second = Background::start(second.stdin(Stdio::null()).stdout(Stdio::piped()));
    second.0.stdout.take().unwrap().read_exact(&mut [0; 1]).unwrap();
    assert_eq!(first.ask(), "second\n");
    let held = eventually("the lock is free", || {
        let lock = std::fs::File::options().write(true).open(first.scratch.path("s.lock")).ok()?;
        s6::sys::lock::is_locked(&lock).ok()
    });
    assert!(!held, "a running server holds no lock");
    assert!(lock_is_close_on_exec(second.pid()));
}

/// Whether a process has no descriptor of a lock file.
fn lock_is_close_on_exec(pid: i32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .all(|target| !target.to_string_lossy().ends_with(".lock"))
}
