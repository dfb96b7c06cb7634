//! systemd's notification protocol and fd store, served by s6-supervise: the acceptance cases of
//! spec/sd-notify-and-fdstore.md 5. The service is a probe, in Python, that does what a test tells it.

mod common;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::service::{Service, Supervised};
use common::{Background, eventually, is_alive, kill, program, run, skip, text, until, with_path};

const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/notify/probe.py");

/// A service under test that is up, and does what it is told.
struct Probed(Supervised);

impl std::ops::Deref for Probed {
    type Target = Supervised;

    fn deref(&self) -> &Supervised {
        &self.0
    }
}

/// A probe with a notify-socket and room for eight descriptors.
fn probe() -> Service {
    Service::new(&format!("exec python3 -IS {PROBE} probe.sock")).file("notify-socket", "").file("fdstore-max", "8")
}

fn start(service: Service) -> Probed {
    start_with(service, &mut program("s6-supervise"))
}

fn start_with(service: Service, command: &mut Command) -> Probed {
    let probed = Probed(service.supervise_with(command));
    probed.new_instance(0);
    probed
}

/// Whether root is here to do what only root may.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("it needs root");
    }
    root
}

impl Probed {
    /// The value of Python code in the probe that listens at this socket.
    fn ask(&self, socket: &str, code: &str) -> String {
        let path = self.service.path(socket);
        eventually(&format!("the probe answers {code}"), || {
            let mut stream = UnixStream::connect(&path).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
            stream.write_all(code.as_bytes()).ok()?;
            stream.shutdown(std::net::Shutdown::Write).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            (!answer.is_empty()).then_some(answer)
        })
    }

    fn py(&self, code: &str) -> String {
        self.ask("probe.sock", code)
    }

    /// Has code executed that may be the last.
    fn fire(&self, code: &str) {
        let mut stream = UnixStream::connect(self.service.path("probe.sock")).unwrap();
        stream.write_all(code.as_bytes()).unwrap();
    }

    /// The main process sends a message, and another that shows that it was looked at.
    fn tell(&self, payload: &str) {
        self.tell_with(payload, "");
    }

    /// The same with descriptors: Python expressions, each after a comma.
    fn tell_with(&self, payload: &str, fds: &str) {
        assert_eq!(self.py(&format!("tell({}{fds})", literal(payload))), "True", "{payload}");
    }

    /// Fields of s6-svstat.
    fn said(&self, fields: &str) -> String {
        let outcome = run("s6-svstat", &["-o", fields, self.service.dir().to_str().unwrap()]);
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        outcome.out.trim_end().to_owned()
    }

    fn summary(&self) -> String {
        run("s6-svstat", &[self.service.dir()]).out.trim_end().to_owned()
    }

    /// Waits until a field is as wanted.
    fn until_said(&self, field: &str, wanted: &str) {
        eventually(&format!("{field} is {wanted}"), || (self.said(field) == wanted).then_some(()));
    }

    /// Waits for another instance than `old`; its number.
    fn new_instance(&self, old: i32) -> i32 {
        if old != 0 {
            self.wait("the old one is gone", |status| status.pid as i32 != old);
            self.command("u"); // without the pause that follows a short life
        }
        eventually("a new instance answers", || {
            self.py("os.getpid()").parse().ok().filter(|&pid: &i32| pid != old && self.status().pid as i32 == pid)
        })
    }

    /// Restarts the service; the next instance is there when this returns.
    fn restart(&self) -> i32 {
        let old = self.status().pid as i32;
        self.command("r");
        self.new_instance(old)
    }

    fn send(&self, command: &str) {
        self.command(command);
    }

    fn letters(&mut self) -> &str {
        self.0.listener.letters()
    }

    fn names(&self) -> String {
        self.py("names()")
    }

    /// The address at which it is listened to.
    fn address(&self) -> String {
        self.py("environment['NOTIFY_SOCKET']").trim_matches('\'').to_owned()
    }

    /// This process sends a message, perhaps in the name of another.
    fn send_from_here(&self, payload: &str, pid: Option<i32>) {
        self.send_to(&self.address(), payload, pid);
    }

    /// To an address that is known already.
    fn send_to(&self, address: &str, payload: &str, pid: Option<i32>) {
        use s6::sys::{Pid, scm, socket};
        let here = socket::datagram().unwrap();
        let address = std::ffi::CString::new(address).unwrap();
        socket::connect(&here, &socket::notify_address(&address).unwrap()).unwrap();
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let sender = pid.map(|pid| scm::Sender { pid: Pid::from_raw(pid), uid, gid });
        scm::send_as(&here, &[std::io::IoSlice::new(payload.as_bytes())], &[], sender).unwrap();
    }
}

/// A payload as Python has it, without double quotes.
fn literal(payload: &str) -> String {
    let digits: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("bytes.fromhex('{digits}')")
}

/// Whether time that must have passed has.
fn assert_since(start: Instant, least: u64) {
    assert!(start.elapsed() >= Duration::from_millis(least), "only {:?}", start.elapsed());
}

// What a message says: NS-1 to NS-18.

#[test]
fn a_service_is_told_where_to_send_and_what_it_may_store() {
    let probed = start(probe());
    assert!(probed.address().starts_with('@'), "{}", probed.address());
    assert_eq!(probed.py("environment['FDSTORE']"), "'8'");
    assert_eq!(probed.py("[name for name in environment if name.startswith(('LISTEN_', 'WATCHDOG_'))]"), "[]");
}

#[test]
fn a_service_that_nobody_listens_to_is_not_told_where_to_send() {
    let probed = start(probe().file("notify-access", "none"));
    assert_eq!(probed.py("environment.get('NOTIFY_SOCKET'), environment['FDSTORE']"), "(None, '8')");
}

#[test]
fn ready_is_an_exact_line_with_or_without_a_newline_anywhere() {
    for payload in ["READY=1", "READY=1\n", "STATUS=a\nREADY=1", "READY=1\nSTATUS=a", "FOO=bar\nX_Y=1\nREADY=1"] {
        let mut probed = start(probe());
        for other in ["READY=0", "READY=10", "READY=1 ", " READY=1"] {
            probed.tell(other);
        }
        assert_eq!(probed.said("ready,notifystate"), "false starting");
        for _ in 0..3 {
            probed.tell(payload);
        }
        assert_eq!(probed.said("ready,notifystate"), "true ready", "{payload:?}");
        assert_eq!(probed.letters(), "suU");
        assert_eq!(probed.said("statustext"), if payload.contains("STATUS") { r#""a""# } else { r#""""# });
    }
}

#[test]
fn a_status_is_shown_when_the_barrier_is_over() {
    let probed = start(probe());
    for (payload, shown) in [
        ("STATUS=x", r#""x""#),
        ("STATUS=cr\r\nX=1", r#""cr""#),
        ("STATUS=one\nSTATUS=two", r#""one""#),
        ("STATUS=", r#""""#),
        ("STATUS=caf\u{e9}", "\"caf\u{e9}\""),
        ("STATUS=\x1b[31m \"\\", r#""\0x1b[31m \"\\""#),
    ] {
        probed.tell(payload);
        assert_eq!(probed.said("statustext"), shown, "{payload:?}");
    }
    assert!(probed.summary().ends_with(r#", notify starting, status "\0x1b[31m \"\\""#), "{}", probed.summary());
    assert_eq!(probed.py(r"tell(b'STATUS=\xff\xfe')"), "True");
    assert_eq!(probed.said("statustext"), r#""\0x1b[31m \"\\""#);
}

#[test]
fn messages_that_are_too_long_or_have_a_nul_inside_are_ignored_whole() {
    let probed = start(probe());
    assert_eq!(probed.py("tell('STATUS=' + 'a' * 4089)"), "True");
    assert_eq!(probed.said("statustext").len(), 4091);
    for ignored in [r"b'STATUS=' + b'b' * 4090", r"b'STATUS=b\0X=1'", r"b''", r"b'\n\n'"] {
        assert_eq!(probed.py(&format!("tell({ignored})")), "True");
        assert_eq!(probed.said("statustext").len(), 4091, "{ignored}");
    }
    assert_eq!(probed.py(r"tell(b'STATUS=nul\0')"), "True");
    assert_eq!(probed.said("statustext"), r#""nul""#);
}

#[test]
fn errors_are_recorded_if_they_make_sense() {
    let probed = start(probe());
    for errno in ["2", "ENOENT", "-5", "99999", "foo"] {
        probed.tell(&format!("ERRNO={errno}"));
        assert_eq!(probed.said("errno"), "2", "{errno}");
    }
    probed.tell("BUSERROR=org.x.Y\nVARLINKERROR=io.z.W");
    probed.tell("BUSERROR=\x01\nVARLINKERROR=\x01");
    assert_eq!(probed.said("buserror,varlinkerror"), r#""org.x.Y" "io.z.W""#);
}

// Who is listened to: NS-19 to NS-29.

#[test]
fn under_main_a_child_is_not_listened_to_and_its_descriptors_are_closed() {
    let probed = start(probe());
    assert_eq!(probed.py("in_child(\"barrier()\")"), "True");
    assert!(!probed.errors().contains("ignoring"), "{}", probed.errors());
    assert_eq!(probed.py("in_child(\"closes('STATUS=child')\")"), "True");
    assert_eq!(probed.said("statustext"), r#""""#);
    assert!(probed.errors().contains(": notify-access is main"), "{}", probed.errors());
}

#[test]
fn under_all_every_descendant_is_listened_to_and_nobody_else() {
    let probed = start(probe().file("notify-access", "all"));
    assert_eq!(probed.py("in_child(\"tell('STATUS=child')\")"), "True");
    assert_eq!(probed.said("statustext"), r#""child""#);
    assert_eq!(probed.py("in_child(\"tell('STATUS=orphan')\", orphan=True)"), "True");
    assert_eq!(probed.said("statustext"), r#""orphan""#);
    probed.send_from_here("STATUS=stranger", None);
    assert_eq!(probed.py("barrier()"), "True");
    assert_eq!(probed.said("statustext"), r#""orphan""#);
    assert!(probed.errors().contains("has ended already, or does not descend from this one"), "{}", probed.errors());
}

#[test]
fn a_privileged_sender_may_speak_for_the_service_and_for_nobody_else() {
    if !is_root() {
        return;
    }
    let probed = start(probe());
    probed.send_from_here("STATUS=one", Some(1));
    assert_eq!(probed.py("barrier()"), "True");
    assert_eq!(probed.said("statustext"), r#""""#);
    probed.send_from_here("STATUS=main", Some(probed.status().pid as i32));
    assert_eq!(probed.py("barrier()"), "True");
    assert_eq!(probed.said("statustext"), r#""main""#);
}

#[test]
fn an_unprivileged_child_cannot_speak_for_the_service() {
    if !is_root() {
        return;
    }
    let probed = start(probe());
    let claim = "os.setresuid(65534, 65534, 65534) or tell('STATUS=claimed', pid=main)";
    assert_eq!(probed.py(&format!("in_child({claim:?})")), "\"PermissionError(1, 'Operation not permitted')\"");
    let plain = "os.setresuid(65534, 65534, 65534) or tell('STATUS=plain')";
    assert_eq!(probed.py(&format!("in_child({plain:?})")), "True");
    assert_eq!(probed.said("statustext"), r#""""#);
}

#[test]
fn access_can_be_changed_by_who_has_it_until_the_end() {
    let probed = start(probe());
    probed.tell("NOTIFYACCESS=bogus\nSTATUS=s");
    assert_eq!(probed.said("statustext"), r#""s""#);
    probed.tell("NOTIFYACCESS=all");
    assert_eq!(probed.py("in_child(\"tell('STATUS=child')\")"), "True");
    assert_eq!(probed.said("statustext"), r#""child""#);
    probed.restart();
    assert_eq!(probed.py("in_child(\"tell('STATUS=child')\")"), "True");
    assert_eq!(probed.said("statustext"), r#""""#);
    probed.tell("NOTIFYACCESS=none");
    probed.tell("READY=1");
    assert_eq!(probed.said("ready"), "false");
}

#[test]
fn a_program_that_executes_the_service_speaks_for_it() {
    if !is_root() {
        return;
    }
    let mut notifiers = vec![common::bin_dir().join("s6-sdnotify").display().to_string()];
    match knows_exec("systemd-notify") {
        true => notifiers.push("systemd-notify".into()),
        false => eprintln!("systemd-notify is not here, or has no --exec"),
    }
    for notifier in notifiers {
        let service = Service::new(&format!("exec {notifier} --ready --status=x --exec \\; sleep 100"));
        let supervised = service.file("notify-socket", "").supervise();
        supervised.wait("it is ready", |status| status.is_up() && status.ready);
        assert!(text(supervised.service.path("supervise/notify")).contains("STATUS=x\n"));
    }
}

fn knows_exec(notifier: &str) -> bool {
    let help = Command::new(notifier).arg("--help").output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--exec"))
}

// States: NS-30 to NS-33.

#[test]
fn reloading_ends_with_one_more_event_and_never_leaves_ready() {
    let mut probed = start(probe());
    probed.tell("RELOADING=1");
    assert_eq!(probed.said("ready,notifystate"), "false starting");
    probed.tell("READY=1");
    let since = probed.status().readystamp;
    probed.tell("RELOADING=1");
    assert_eq!(probed.said("ready,notifystate"), "true reloading");
    probed.tell("READY=1");
    probed.tell("READY=1");
    assert_eq!(probed.said("ready,notifystate"), "true ready");
    assert_eq!((probed.status().readystamp, probed.letters()), (since, "suUU"));
    probed.tell("RELOADING=1\nREADY=1");
    assert_eq!(probed.letters(), "suUUU");
}

#[test]
fn the_end_of_a_reload_can_be_waited_for() {
    let probed = start(probe());
    probed.tell("READY=1");
    probed.py("signal.signal(signal.SIGHUP, lambda *_: (send('RELOADING=1'), send('READY=1')))");
    let dir = probed.service.dir();
    let wait = with_path(Command::new(common::bin_dir().join("s6-ftrig-listen1")))
        .args(["-t", "15000"])
        .arg(dir.join("event"))
        .args(["U", "s6-svc", "-l"])
        .arg(&dir)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(wait.success());
    assert_eq!(probed.said("notifystate"), "ready");
}

#[test]
fn a_reload_that_began_before_the_signal_is_no_answer_to_it() {
    let mut probed = start(probe());
    probed.tell("READY=1");
    probed.py("signal.signal(signal.SIGHUP, lambda *_: None)");
    let before = probed.py("time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000");
    probed.send("l");
    until("the signal is sent", || {
        // Until then the message counts, and READY ends what it began.
        probed.tell("READY=1");
        probed.tell(&format!("RELOADING=1\nMONOTONIC_USEC={before}"));
        probed.said("notifystate") == "ready"
    });
    let letters = probed.letters().len();
    probed.tell(&format!("RELOADING=1\nREADY=1\nMONOTONIC_USEC={before}"));
    assert_eq!(probed.letters().len(), letters, "an event for a reload that does not count");
    let after = probed.py("time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000");
    probed.tell(&format!("RELOADING=1\nMONOTONIC_USEC={after}"));
    assert_eq!(probed.said("notifystate"), "reloading");
}

#[test]
fn stopping_is_final_sends_no_signal_and_ends_in_time() {
    let mut probed = start(probe().file("timeout-kill", "500"));
    let pid = probed.status().pid as i32;
    probed.py("signal.signal(signal.SIGTERM, lambda *_: send('STATUS=signal'))");
    let begin = Instant::now();
    probed.tell("READY=1\nSTATUS=none");
    probed.tell("STOPPING=1");
    probed.tell("READY=1");
    probed.tell("RELOADING=1");
    assert_eq!(probed.said("notifystate,statustext"), r#"stopping "none""#);
    probed.new_instance(pid);
    assert_since(begin, 500);
    assert!(text(probed.service.path("supervise/death_tally")).as_bytes().ends_with(&[9]));
    assert_eq!(probed.letters(), "suUdDu");
}

#[test]
fn the_last_words_of_a_dying_service_always_count() {
    let script = "import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                  s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:]); \
                  s.send(b'STATUS=last %d\\nERRNO=5' % os.getpid()); os._exit(1)";
    let service = Service::new(&format!("echo $$ > pid; exec python3 -IS -c \"{script}\""));
    let supervised = service.file("notify-socket", "").file("down", "").supervise();
    for round in 0..60 {
        let before = supervised.status().stamp;
        supervised.command("o");
        supervised.wait("it has run", |status| status.stamp != before && status.pid == 0);
        let pid = text(supervised.service.path("pid"));
        let said = eventually("it is shown as dead", || {
            let said = text(supervised.service.path("supervise/notify"));
            said.contains("STATE=dead").then_some(said)
        });
        assert!(said.contains(&format!("STATUS=last {pid}ERRNO=5\n")), "round {round}: {said}");
        assert!(said.contains("RESULT=exit\n"), "{said}");
    }
}

// The main process: NS-34 to NS-39.

#[test]
fn another_process_takes_the_place_of_run_and_its_death_counts() {
    let mut probed = start(probe());
    let old = probed.status().pid as i32;
    let new: i32 = probed.py("second('second.sock', orphan=True)").parse().unwrap();
    probed.tell(&format!("MAINPID={new}\nSTATUS=new"));
    assert_eq!(probed.said("pid,statustext"), format!(r#"{new} "new""#));
    assert_eq!(probed.py("in_child(\"barrier()\")"), "True");
    common::kill(old, 9);
    until("the old one is gone", || !common::is_alive(old));
    assert_eq!(probed.ask("second.sock", "tell('READY=1')"), "True");
    assert_eq!(probed.said("pid"), new.to_string());
    assert_eq!(probed.letters(), "suU");
    probed.ask("second.sock", "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))");
    probed.send("dt");
    assert_eq!(probed.wait_down().wait_status.code(), Some(7));
    probed.0.listener.expect("suUdD");
    assert_eq!(probed.said("exitcode,result,notifystate"), "7 exit dead");
}

#[test]
fn a_main_process_whose_parent_lives_is_watched_too() {
    let mut probed = start(probe());
    let child: i32 = probed.py("second('second.sock')").parse().unwrap();
    probed.tell(&format!("MAINPID={child}"));
    probed.tell("STATUS=refused");
    assert_eq!(probed.said("pid,pgid,statustext"), format!(r#"{child} {} """#, probed.py("main")));
    assert_eq!(probed.ask("second.sock", &format!("tell('MAINPID={}')", probed.py("main"))), "True");
    assert_eq!(probed.said("pid"), probed.py("main"), "and back again");
    assert_eq!(probed.ask("second.sock", "os.setpgid(0, 0)"), "None");
    probed.tell(&format!("MAINPID={child}"));
    assert!(probed.summary().starts_with(&format!("up (pid {child} pgid {child}) ")));
    let parent = probed.py("main").parse().unwrap();
    common::kill(child, 9);
    probed.new_instance(child);
    assert_eq!(probed.letters(), "sudDu");
    common::kill(parent, 9);
}

#[test]
fn what_a_run_leaves_is_killed_before_the_next_unless_it_is_to_be_kept() {
    let run = "(trap '' TERM; exec sleep 1000) & echo $! >>left; s6-sdnotify --ready; exec sleep 1000";
    let left = |service: &Supervised, count| -> Vec<i32> {
        eventually("each run has left a process", || {
            let left: Vec<i32> = text(service.service.path("left")).lines().map(|pid| pid.parse().unwrap()).collect();
            (left.len() == count && service.status().ready && service.status().is_up()).then_some(left)
        })
    };
    for keep in [false, true] {
        let service = Service::new(run).file("notify-socket", "").file("notify-access", "all\n").finish("");
        let service = if keep { service.file("flag-keep-members", "") } else { service };
        let supervised = service.supervise();
        let first = left(&supervised, 1)[0];
        supervised.command("ru");
        let both = left(&supervised, 2);
        assert_eq!((is_alive(first), is_alive(both[1])), (keep, true));
        kill(first, 9);
        kill(both[1], 9);
    }
}

#[test]
fn numbers_that_are_no_live_member_are_refused() {
    let probed = start(probe());
    let pid = probed.said("pid");
    let (dead, supervisor, stranger) = (probed.py("dead_pid()"), probed.supervisor.pid(), std::process::id());
    for (round, wrong) in
        ["1", "0", "-3", "abc", &dead, &supervisor.to_string(), &stranger.to_string()].iter().enumerate()
    {
        probed.tell(&format!("MAINPID={wrong}\nSTATUS=round {round}"));
        assert_eq!(probed.said("pid,statustext"), format!(r#"{pid} "round {round}""#), "{wrong}");
    }
    probed.tell(&format!("MAINPID={pid}"));
    assert_eq!(probed.said("pid"), pid);
}

#[test]
fn a_pidfd_or_its_inode_tells_the_main_process() {
    let probed = start(probe());
    let main = probed.said("pid");
    let child = probed.py("second('second.sock')");
    let inode = probed.py(&format!("os.fstat(os.pidfd_open({child})).st_ino"));
    probed.tell(&format!("MAINPID={child}\nMAINPIDFDID=77"));
    assert_eq!(probed.said("pid"), main);
    for fds in ["", &format!(", os.pidfd_open({child}), os.pidfd_open({child})"), ", memfd('x')"] {
        probed.tell_with("MAINPIDFD=1", fds);
        assert_eq!(probed.said("pid"), main, "{fds}");
    }
    assert_eq!(probed.py("closes('MAINPIDFD=1', 2)"), "True");
    probed.tell(&format!("MAINPID={child}\nMAINPIDFDID={inode}"));
    assert_eq!(probed.said("pid"), child);
    assert_eq!(probed.ask("second.sock", &format!("tell('MAINPIDFD=1', os.pidfd_open({main}))")), "True");
    assert_eq!(probed.said("pid"), main);
    common::kill(child.parse().unwrap(), 9);
}

// The watchdog and time limits: NS-40 to NS-46.

#[test]
fn a_watchdog_bites_when_the_service_falls_silent() {
    let probed = start(probe().file("timeout-watchdog", "600"));
    let pid = probed.status().pid as i32;
    assert_eq!(probed.py("environment['WATCHDOG_USEC'], environment['WATCHDOG_PID']"), format!("('600000', '{pid}')"));
    assert_eq!(probed.said("watchdog"), "600000");
    probed.tell("READY=1");
    let begin = Instant::now();
    probed.py("[time.sleep(0.3) or send('WATCHDOG=1') for _ in range(3)]");
    assert_eq!(probed.status().pid as i32, pid);
    probed.send("o");
    let status = probed.wait_down();
    assert_since(begin, 1500);
    assert_eq!(status.wait_status.signal(), Some(libc::SIGABRT as u8));
    assert_eq!(probed.said("result"), "watchdog");
    assert!(probed.errors().contains("the service does not work"), "{}", probed.errors());
}

#[test]
fn a_watchdog_waits_until_the_service_is_ready() {
    let probed = start(probe().file("timeout-watchdog", "300"));
    let pid = probed.status().pid as i32;
    probed.py("time.sleep(0.9)");
    probed.tell("READY=1");
    assert_eq!(probed.status().pid as i32, pid);
    probed.new_instance(pid);
}

#[test]
fn a_service_can_pull_the_trigger_and_choose_the_signal() {
    let probed = start(probe().file("watchdog-signal", "SIGUSR2"));
    let pid = probed.status().pid as i32;
    probed.tell("WATCHDOG=2\nWATCHDOG_USEC=abc\nEXTEND_TIMEOUT_USEC=-1");
    probed.send("O");
    probed.fire("send('WATCHDOG=trigger')");
    assert_eq!(probed.wait_down().wait_status.signal(), Some(libc::SIGUSR2 as u8));
    assert!(!common::is_alive(pid));
}

#[test]
fn a_service_that_survives_the_watchdog_is_killed() {
    let probed = start(probe().file("timeout-kill", "300"));
    probed.py("signal.signal(signal.SIGABRT, lambda *_: send('STATUS=survived'))");
    probed.send("O");
    probed.fire("send('WATCHDOG=trigger')");
    assert_eq!(probed.wait_down().wait_status.signal(), Some(libc::SIGKILL as u8));
    assert_eq!(probed.said("result,statustext"), r#"watchdog "survived""#);
}

#[test]
fn a_watchdog_can_be_asked_for_and_sent_away() {
    let probed = start(probe());
    let pid = probed.status().pid as i32;
    probed.tell("READY=1\nWATCHDOG_USEC=200000");
    probed.tell("WATCHDOG_USEC=0");
    probed.py("time.sleep(0.5)");
    assert_eq!((probed.status().pid as i32, probed.said("watchdog").as_str()), (pid, "0"));
    let begin = Instant::now();
    probed.tell("WATCHDOG_USEC=400000");
    probed.new_instance(pid);
    assert_since(begin, 400);
}

#[test]
fn who_is_not_ready_in_time_is_brought_down_unless_it_asks_for_more() {
    let mut probed = start(probe().file("timeout-ready", "1000"));
    let pid = probed.status().pid as i32;
    let begin = Instant::now();
    probed.py("time.sleep(0.4) or send('EXTEND_TIMEOUT_USEC=1500000')");
    probed.py("time.sleep(1.1) or send('EXTEND_TIMEOUT_USEC=100000')");
    assert_eq!(probed.status().pid as i32, pid);
    until("it is dead", || text(probed.service.path("supervise/notify")).contains("RESULT=timeout-ready"));
    assert_since(begin, 1500);
    probed.new_instance(pid);
    assert_eq!(probed.letters(), "sudDu");
    assert!(probed.errors().contains("did not become ready in time"), "{}", probed.errors());
}

#[test]
fn an_exit_before_readiness_breaks_the_protocol() {
    let supervised = Service::new("exit 0").file("notify-socket", "").file("down", "").supervise();
    supervised.command("o");
    until("it is dead", || text(supervised.service.path("supervise/notify")).contains("RESULT=protocol"));
}

// The store: NS-47 to NS-69.

#[test]
fn a_stored_descriptor_comes_back_as_it_was() {
    let probed = start(probe());
    assert_eq!(probed.py("p = pipe(os.O_NONBLOCK); q = pipe()"), "None");
    probed.tell_with("FDSTORE=1\nFDNAME=p", ", p[0]");
    probed.tell_with("FDSTORE=1\nFDNAME=q", ", q[0]");
    probed.tell_with("FDSTORE=1\nFDNAME=w", ", p[1], q[1]");
    let links = probed.py("[os.readlink(f'/proc/self/fd/{fd}') for fd in (p[0], q[0], p[1], q[1])]");
    assert_eq!(probed.said("nfds,maxfds"), "4 8");
    for _ in 0..2 {
        probed.restart();
        assert_eq!(probed.py("[link for _, link, _, _ in files()]"), links);
        assert_eq!(
            probed.py("[(n, e, b) for n, _, e, b in files()]"),
            "[('p', 0, False), ('q', 0, True), ('w', 0, False), ('w', 0, True)]"
        );
    }
}

#[test]
fn names_are_printable_ascii_without_colon_or_none_at_all() {
    let probed = start(probe().file("fdstore-max", "20"));
    for name in ["FDNAME=bad:name", "FDNAME=caf\u{e9}", "X=1", &format!("FDNAME={}", "n".repeat(256))] {
        probed.tell_with(&format!("FDSTORE=1\n{name}"), ", memfd('m')");
    }
    let long = "n".repeat(255);
    for name in [&long, "with a space", ""] {
        probed.tell_with(&format!("FDSTORE=1\nFDNAME={name}"), ", memfd('m')");
    }
    probed.restart();
    assert_eq!(probed.names(), format!("['stored', 'stored', 'stored', 'stored', '{long}', 'with a space', '']"));
}

#[test]
fn an_open_file_is_stored_once_and_keeps_its_name() {
    let probed = start(probe());
    probed.py("f = os.open('run', os.O_RDONLY)");
    probed.tell_with("FDSTORE=1\nFDNAME=first", ", f");
    probed.tell_with("FDSTORE=1\nFDNAME=again", ", os.dup(f)");
    assert_eq!(probed.said("nfds"), "1");
    probed.tell_with("FDSTORE=1\nFDNAME=other", ", os.open('run', os.O_RDONLY)");
    probed.restart();
    assert_eq!(probed.names(), "['first', 'other']");
}

#[test]
fn a_full_store_closes_what_is_too_much() {
    let probed = start(probe());
    probed.py("mine = [memfd(str(n)) for n in range(9)]; ends = pipe()");
    probed.tell_with("FDSTORE=1\nFDNAME=five", ", *mine[:5]");
    probed.tell_with("FDSTORE=1\nFDNAME=more", ", *mine[5:8], ends[1], mine[8]");
    assert_eq!(probed.said("nfds"), "8");
    assert_eq!(probed.py("os.close(ends[1]) or hung_up(ends[0])"), "True");
    probed.tell("FDSTORE=1");
    assert_eq!(probed.said("nfds"), "8");
}

#[test]
fn descriptors_are_removed_by_name() {
    let probed = start(probe());
    probed.py("one = pipe(); two = pipe(); new = pipe()");
    probed.tell_with("FDSTORE=1\nFDNAME=n\nFDPOLL=0", ", one[1], two[1]");
    probed.tell_with("FDSTORE=1\nFDNAME=other", ", memfd('m')");
    for payload in ["FDSTOREREMOVE=1", "FDSTOREREMOVE=1\nFDNAME=unknown", "FDSTOREREMOVE=1\nFDNAME=o:o"] {
        probed.tell(payload);
        assert_eq!(probed.said("nfds"), "3", "{payload}");
    }
    probed.tell_with("FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=n", ", new[1]");
    assert_eq!(probed.said("nfds"), "1");
    assert_eq!(probed.py("[os.close(e[1]) or hung_up(e[0]) for e in (one, two, new)]"), "[True, True, True]");
}

#[test]
fn what_is_hung_up_disappears_and_the_rest_stays() {
    let probed = start(probe().file("fdstore-max", "20"));
    probed.py("full = pipe(); empty = pipe(); kept = pipe(); os.write(full[1], b'unread')");
    probed.tell_with("FDSTORE=1\nFDNAME=full", ", full[0]");
    probed.tell_with("FDSTORE=1\nFDNAME=empty", ", empty[0]");
    probed.tell_with("FDSTORE=1\nFDNAME=kept\nFDPOLL=0", ", kept[0]");
    probed.py("listener = socket.socket(socket.AF_UNIX); listener.bind(''); listener.listen()");
    probed.py("half, other = socket.socketpair(); other.shutdown(socket.SHUT_WR)");
    probed.tell_with(
        "FDSTORE=1\nFDNAME=stays",
        ", listener.fileno(), memfd('m'), os.open('.', os.O_RDONLY), half.fileno()",
    );
    assert_eq!(probed.said("nfds"), "7");
    probed.py("[os.close(fd) for fd in (full[1], empty[1], kept[1])]");
    probed.until_said("nfds", "5");
    probed.tell_with("FDSTORE=1\nFDNAME=unconnected", ", socket.socket(socket.AF_UNIX).detach()");
    probed.until_said("nfds", "5");
    probed.restart();
    assert_eq!(probed.names(), "['kept', 'stays', 'stays', 'stays']");
}

#[test]
fn descriptors_that_no_message_is_for_are_closed() {
    let probed = start(probe());
    for (payload, count) in [("STATUS=x", 1), ("BARRIER=1", 1), ("BARRIER=1", 2), ("BARRIER=1\nSTATUS=m", 1)] {
        let closes = format!("closes({}, {count})", literal(payload));
        assert_eq!(probed.py(&closes), "True", "{payload:?}");
        assert_eq!(probed.py(&format!("in_child(\"{closes}\")")), "True", "{payload:?}");
    }
    assert_eq!(probed.said("statustext,nfds"), r#""x" 0"#);
}

#[test]
fn a_service_that_is_killed_finds_its_store_again_unless_it_is_not_to_be_preserved() {
    for (preserve, left) in [("restart", "['n']"), ("yes", "['n']"), ("no", "[]")] {
        let probed = start(probe().file("fdstore-preserve", preserve));
        probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
        let pid = probed.status().pid as i32;
        common::kill(pid, 9);
        probed.new_instance(pid);
        assert_eq!(probed.names(), left, "{preserve}");
    }
}

#[test]
fn a_service_that_was_down_finds_its_store_again_only_if_it_is_preserved_for_good() {
    for (preserve, left) in [("restart", "[]"), ("yes", "['n']"), ("no", "[]")] {
        let probed = start(probe().file("fdstore-preserve", preserve));
        probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
        let pid = probed.status().pid as i32;
        probed.send("d");
        probed.wait_down();
        probed.send("u");
        probed.new_instance(pid);
        assert_eq!(probed.names(), left, "{preserve}");
    }
}

#[test]
fn who_is_told_that_the_service_is_down_finds_the_store_empty() {
    let probed = start(probe());
    let dir = probed.service.dir();
    let dir = dir.to_str().unwrap();
    for _ in 0..20 {
        let pid = probed.status().pid as i32;
        probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
        assert_eq!(run("s6-svc", &["-wD", "-d", dir]).code, 0);
        assert_eq!(probed.said("nfds"), "0");
        probed.send("u");
        probed.new_instance(pid);
    }
}

#[test]
fn a_service_that_is_wanted_again_before_it_is_down_keeps_its_store() {
    let probed = start(probe());
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
    probed.py("signal.signal(signal.SIGTERM, lambda *_: time.sleep(0.3) or os._exit(0))");
    let pid = probed.status().pid as i32;
    probed.send("d");
    probed.send("u");
    probed.new_instance(pid);
    assert_eq!(probed.names(), "['n']");
}

#[test]
fn finish_with_125_drops_the_store() {
    let probed = start(probe().finish("exit 125"));
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
    common::kill(probed.status().pid as i32, 9);
    probed.wait_down();
    probed.until_said("nfds", "0");
}

#[test]
fn a_store_is_emptied_by_hand_while_the_service_is_down_and_not_while_it_is_up() {
    let probed = start(probe().file("fdstore-preserve", "yes"));
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
    let dir = probed.service.dir();
    let empty = || assert_eq!(run("s6-svc", &["-F".as_ref(), dir.as_os_str()]).code, 0);
    empty();
    assert_eq!(probed.py("barrier()"), "True");
    until("it is refused", || probed.errors().contains("not emptying the store"));
    assert_eq!(probed.said("nfds"), "1");
    probed.send("d");
    probed.wait_down();
    assert_eq!(probed.said("nfds"), "1");
    empty();
    probed.until_said("nfds", "0");
}

#[test]
fn finish_gets_nothing_of_the_store() {
    let finish = "env > env; ls /proc/self/fd > fds";
    let listings = |service: Service| {
        let supervised = service.finish(finish).supervise();
        supervised.wait_up();
        if supervised.service.path("notify-socket").exists() {
            let probed = Probed(supervised);
            probed.new_instance(0);
            probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
            probed.restart();
            probed.send("d");
            probed.wait_down();
            return (text(probed.service.path("env")), text(probed.service.path("fds")));
        }
        supervised.command("d");
        supervised.wait_down();
        (text(supervised.service.path("env")), text(supervised.service.path("fds")))
    };
    let (_, plain) = listings(Service::sleeper());
    let (env, fds) = listings(probe());
    assert_eq!(fds, plain);
    assert!(!env.contains("LISTEN_") && !env.contains("NOTIFY_SOCKET") && !env.contains("FDSTORE"), "{env}");
    let (env, _) = listings(probe().file("notify-access", "exec"));
    assert!(!env.contains("LISTEN_") && env.contains("NOTIFY_SOCKET=@") && env.contains("FDSTORE=8"), "{env}");
}

#[test]
fn finish_may_ask_for_more_time_if_it_is_listened_to() {
    let sdnotify = common::bin_dir().join("s6-sdnotify");
    let service = probe()
        .file("notify-access", "all")
        .file("timeout-finish", "500")
        .finish(&format!("{} EXTEND_TIMEOUT_USEC=10000000 STATUS=finish; sleep 1; touch finished", sdnotify.display()));
    let probed = start(service);
    probed.send("d");
    probed.wait_down();
    assert!(probed.service.path("finished").exists(), "{}", probed.errors());
    assert_eq!(probed.said("statustext"), r#""finish""#);
}

#[test]
fn the_order_is_that_of_arrival() {
    let probed = start(probe());
    for name in ["a", "b", "c"] {
        probed.tell_with(&format!("FDSTORE=1\nFDNAME={name}"), ", memfd('m')");
    }
    for _ in 0..2 {
        probed.restart();
        assert_eq!(probed.py("environment['LISTEN_FDNAMES']"), "'a:b:c'");
        assert_eq!(probed.py("environment['LISTEN_PID'] == str(os.getpid())"), "True");
    }
}

#[test]
fn as_many_descriptors_as_a_message_can_have_are_stored() {
    let probed = start(probe().file("fdstore-max", "300"));
    probed.py("many = [memfd(str(n)) for n in range(253)]");
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", *many");
    assert_eq!(probed.said("nfds"), "253");
    assert!(probed.py("send('FDSTORE=1', *many, 0)").contains("OSError"));
    probed.restart();
    assert_eq!(probed.py("[link for _, link, _, _ in files()] == [f'/memfd:{n}' for n in range(253)]"), "True");
}

#[test]
fn a_supervisor_without_room_for_descriptors_drops_the_message_and_goes_on() {
    let service = probe();
    let mut command = with_path(Command::new("sh"));
    command
        .arg("-c")
        .arg(format!("ulimit -S -n 40; exec {}/s6-supervise \"$@\"", common::bin_dir().display()))
        .arg("sh");
    let probed = start_with(service, &mut command);
    let before = probed.descriptors();
    assert_eq!(probed.py("closes('FDSTORE=1\\nSTATUS=dropped', 253)"), "True");
    assert_eq!((probed.said("statustext").as_str(), probed.descriptors()), (r#""""#, before));
    probed.tell("READY=1");
    assert!(probed.errors().contains("more descriptors than there is room for"), "{}", probed.errors());
}

/// Any bytes and any number of descriptors: the supervisor neither dies nor keeps what it should not.
#[test]
fn nonsense_with_descriptors_leaves_nothing_behind() {
    let probed = start(probe());
    let before = probed.descriptors();
    let nonsense = "import random
words = [b'FDSTORE=1', b'FDSTOREREMOVE=1', b'FDNAME=x', b'FDNAME=:', b'FDPOLL=0', b'STATUS=s', b'STATUS=\\xff', b'READY=1',
         b'RELOADING=1', b'BARRIER=1', b'MAINPID=1', b'MAINPIDFD=1', b'MAINPIDFDID=x', b'ERRNO=7', b'X', b'', b'\\0',
         b'EXTEND_TIMEOUT_USEC=99999999999999999999', b'NOTIFYACCESS=main', b'X_S6_SERIAL=4294967295', b'a' * 5000]
for seed in range(1500):
    r = random.Random(seed)
    text = r.randbytes(r.randrange(100)) if seed % 3 == 0 else b'\\n'.join(r.choices(words, k=r.randrange(6)))
    fds = [os.dup(0) if r.random() < 0.3 else memfd('m') for _ in range(r.randrange(12))]
    send(text, *fds)
    [os.close(fd) for fd in fds]
";
    assert_eq!(probed.py(nonsense), "None");
    assert_eq!(probed.py("barrier()"), "True");
    let stored: usize = probed.said("nfds").parse().unwrap();
    assert_eq!(probed.descriptors(), before + stored);
    probed.tell("STATUS=well");
    assert_eq!(probed.said("statustext"), r#""well""#);
}

// The rest: NS-70 to NS-76.

#[test]
fn a_flood_from_a_stranger_stops_nothing_and_leaves_nothing() {
    let probed = start(probe());
    let memory = || {
        let status = text(format!("/proc/{}/status", probed.supervisor.pid()));
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    probed.tell("READY=1");
    let (before, fds) = (memory(), probed.descriptors());
    let address = std::ffi::CString::new(probed.address()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use s6::sys::{scm, socket};
            let here = socket::datagram().unwrap();
            socket::connect(&here, &socket::notify_address(&address).unwrap()).unwrap();
            let files = [here.as_fd(), here.as_fd(), here.as_fd()];
            for round in 0..100_000 {
                let payload = [std::io::IoSlice::new(b"STATUS=flood\nFDSTORE=1")];
                scm::send(&here, &payload, if round % 2 == 0 { &files } else { &[] }).unwrap();
            }
        });
        probed.send("d");
        probed.wait_down();
        probed.send("u");
        probed.wait_up();
    });
    probed.new_instance(0);
    assert_eq!(probed.py("barrier()"), "True");
    assert_eq!((probed.said("statustext,nfds").as_str(), probed.descriptors()), (r#""" 0"#, fds));
    assert!(memory() < before + 300, "{before} kB became {} kB", memory());
    assert!(probed.errors().lines().count() < 10, "{}", probed.errors());
}

#[test]
fn a_notification_fd_among_the_reserved_ones_is_ignored() {
    let probed = start(probe().file("notification-fd", "5").file("lock-fd", "10"));
    assert!(probed.errors().contains("ignoring notification-fd") && probed.errors().contains("ignoring lock-fd"));
    probed.tell("READY=1");
    assert_eq!(probed.said("ready"), "true");
}

#[test]
fn what_is_stored_keeps_its_number_when_less_may_be() {
    let probed = start(probe().file("notification-fd", "20"));
    probed.tell_with("FDSTORE=1\nFDNAME=a", ", memfd('a'), memfd('b'), memfd('c')");
    probed.service.scratch.write("service/fdstore-max", "1");
    probed.service.scratch.write("service/notification-fd", "4");
    probed.restart();
    assert_eq!(probed.py("[file for _, file, _, _ in files()]"), "['/memfd:a', '/memfd:b', '/memfd:c']");
    assert!(probed.errors().contains("ignoring notification-fd"));
}

#[test]
fn a_newline_and_a_message_both_mean_ready_and_the_first_counts() {
    let mut probed = start(probe().file("notification-fd", "20"));
    probed.py("os.write(20, b'\\n')");
    probed.until_said("ready", "true");
    probed.tell("READY=1");
    assert_eq!(probed.letters(), "suU");
    assert_eq!(probed.said("notifystate"), "ready");
}

#[test]
fn without_a_notify_socket_nothing_is_different() {
    let service = Service::new("env > env; exec sleep 1000").file("fdstore-max", "8");
    let supervised = service.supervise_with(
        program("s6-supervise").env("NOTIFY_SOCKET", "@x").env("LISTEN_FDS", "1").env("WATCHDOG_USEC", "5"),
    );
    supervised.wait_up();
    until("it has written", || text(supervised.service.path("env")).contains("NOTIFY_SOCKET=@x\n"));
    let env = text(supervised.service.path("env"));
    assert!(env.contains("LISTEN_FDS=1\n") && env.contains("WATCHDOG_USEC=5\n"), "{env}");
    let files: Vec<_> = std::fs::read_dir(supervised.service.path("supervise"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().all(|file| ["control", "death_tally", "lock", "status"].contains(&&**file)), "{files:?}");
    assert!(supervised.errors().contains("ignoring fdstore-max: there is no notify-socket"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", supervised.supervisor.pid())).unwrap();
    let links: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    assert!(!links.iter().any(|link| link.to_string_lossy().starts_with("socket:")), "{links:?}");
    let outcome = run("s6-svstat", &[supervised.service.dir()]);
    assert!(!outcome.out.contains("notify"), "{}", outcome.out);
    let outcome = run(
        "s6-svstat",
        &["-o", "notifystate,statustext,errno,nfds,result", supervised.service.dir().to_str().unwrap()],
    );
    assert_eq!(outcome.out, "NA \"\" -1 -1 NA\n");
}

#[test]
fn with_a_notify_socket_what_was_meant_for_the_supervisor_is_not_handed_on() {
    let probed = start_with(
        probe(),
        program("s6-supervise")
            .env("NOTIFY_SOCKET", "@x")
            .env("LISTEN_FDS", "1")
            .env("LISTEN_PID", "1")
            .env("WATCHDOG_USEC", "5"),
    );
    assert_eq!(probed.py("sorted(n for n in environment if n.startswith(('LISTEN_', 'WATCHDOG_')))"), "[]");
    assert_ne!(probed.address(), "@x");
}

#[test]
fn a_service_in_a_pid_namespace_is_told_its_number_there() {
    if !is_root() {
        return;
    }
    let service = probe().file("flag-newpidns", "").file("timeout-watchdog", "60000");
    let probed = Probed(service.supervise());
    let outside = probed.wait_up();
    assert_eq!(probed.py("os.getpid(), environment['WATCHDOG_PID']"), "(1, '1')");
    probed.tell_with("READY=1\nMAINPID=2\nFDSTORE=1", ", memfd('m')");
    assert_eq!(probed.said("ready,pid,nfds"), format!("true {outside} 1"));
    probed.send("k");
    probed.wait("another instance is up", |status| status.is_up() && status.pid as i32 != outside);
    until("it answers", || probed.py("names(), environment.get('LISTEN_PID')") == "(['stored'], '1')");
}

#[test]
fn a_socket_in_the_file_system_can_be_reached_from_everywhere() {
    use std::os::unix::fs::PermissionsExt;
    let probed = start(probe().file("notify-socket", "notify.sock\n"));
    let path = probed.service.path("notify.sock");
    assert_eq!(probed.address(), path.display().to_string());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    probed.tell("READY=1");
    if is_root() {
        for directory in [probed.service.dir(), probed.service.scratch.path("")] {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let unshare = "ctypes.CDLL(None).unshare(0x40000000)";
        probed.py(&format!("{unshare}; os.setresuid(65534, 65534, 65534)"));
        probed.tell("STATUS=from far away");
        assert_eq!(probed.said("statustext"), r#""from far away""#);
    }
}

#[test]
fn a_socket_may_get_another_name_for_the_same_path() {
    let probed = start(probe().file("notify-socket", "socket"));
    std::fs::write(probed.service.path("notify-socket"), "./socket").unwrap();
    probed.restart();
    probed.tell("READY=1");
    assert!(probed.status().ready);
    std::fs::write(probed.service.path("notify-socket"), "").unwrap();
    probed.restart();
    assert!(!probed.service.path("socket").exists());
}

#[test]
fn what_could_not_be_shown_is_tried_again() {
    let probed = start(probe());
    let (report, old) = (probed.service.path("supervise/notify"), probed.service.path("supervise/old"));
    std::fs::rename(&report, old).unwrap();
    std::fs::create_dir(&report).unwrap();
    probed.tell("STATUS=x");
    until("it complains", || probed.errors().contains("unable to write supervise/notify"));
    std::fs::remove_dir(&report).unwrap();
    until("it is shown without another event", || text(&report).contains("STATUS=x"));
}

#[test]
fn who_speaks_while_the_service_is_down_is_not_listened_to_for_that_reason() {
    let probed = start(probe().file("notify-access", "all"));
    let address = probed.address();
    probed.send("d");
    probed.wait_down();
    probed.send_to(&address, "STATUS=late", None);
    until("it complains", || probed.errors().contains("ignoring a message from process"));
    assert!(probed.errors().ends_with(": the service is down\n"), "{}", probed.errors());
}

#[test]
fn a_path_that_no_client_could_reach_is_not_used() {
    for length in [107, 108] {
        let probed = start(probe().file("notify-socket", &"x".repeat(length)));
        assert!(probed.address().starts_with('@'), "{}", probed.address());
        assert!(probed.errors().contains("ignoring the content of notify-socket"), "{}", probed.errors());
        probed.tell("READY=1");
        assert_eq!(probed.said("ready"), "true");
    }
}

#[test]
fn the_files_may_be_where_s6_rc_keeps_them() {
    let service = Service::new(&format!("exec python3 -IS {PROBE} probe.sock"));
    let probed = start(service.file("data/s6-rs/notify-socket", "").file("data/s6-rs/fdstore-max", "3"));
    probed.tell("READY=1");
    assert_eq!(probed.said("ready,maxfds"), "true 3");
}

#[test]
fn a_socket_that_is_no_longer_wanted_goes_with_the_next_start() {
    let probed = start(probe().file("notify-socket", "one"));
    std::fs::write(probed.service.path("notify-socket"), "two").unwrap();
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
    probed.restart();
    assert!(!probed.service.path("one").exists() && probed.service.path("two").exists());
    assert_eq!(probed.names(), "['n']");
    std::fs::remove_file(probed.service.path("notify-socket")).unwrap();
    probed.restart();
    assert!(!probed.service.path("two").exists() && !probed.service.path("supervise/notify").exists());
    assert_eq!(probed.py("environment.get('NOTIFY_SOCKET')"), "None");
    assert!(probed.errors().contains("ignoring fdstore-max: there is no notify-socket"));
}

#[test]
fn a_daemon_that_forks_may_also_notify() {
    let run = format!("python3 -IS {PROBE} probe.sock & echo $! > pid");
    let probed = start(Service::new(&run).file("notify-socket", "").file("fdstore-max", "8").file("pidfile", "pid"));
    probed.tell("READY=1\nSTATUS=forked");
    assert_eq!(probed.said("ready,statustext"), r#"true "forked""#);
    probed.tell_with("FDSTORE=1\nFDNAME=n", ", memfd('m')");
    assert_eq!(probed.said("nfds"), "1");
}

#[test]
fn deaths_are_forgotten_on_request() {
    let probed = start(probe());
    let pid = probed.status().pid as i32;
    common::kill(pid, 9);
    probed.new_instance(pid);
    assert_eq!(run("s6-svdt", &[probed.service.dir()]).out.lines().count(), 1);
    probed.tell("RESTART_RESET=1\nEXIT_STATUS=7");
    assert_eq!(run("s6-svdt", &[probed.service.dir()]).out, "");
}

#[test]
fn a_store_is_listed_with_what_the_kernel_knows_of_it() {
    let probed = start(probe());
    probed.tell_with("FDSTORE=1\nFDNAME=null", ", os.open('/dev/null', os.O_WRONLY)");
    probed.tell_with("FDSTORE=1\nFDNAME=dir", ", os.open('/', os.O_RDONLY)");
    probed.tell_with("FDSTORE=1\nFDNAME=sock", ", *[s.detach() for s in socket.socketpair()]");
    let outcome = run("s6-fdstore-list", &[probed.service.dir()]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let lines: Vec<Vec<&str>> = outcome.out.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 4, "{}", outcome.out);
    assert_eq!((lines[0][0], lines[0][1], &lines[0][4..]), ("null", "chr", &["1:3", "/dev/null", "wo"][..]));
    assert_eq!((lines[1][0], lines[1][1], &lines[1][4..]), ("dir", "dir", &["-", "/", "ro"][..]));
    assert!(lines[2][5].starts_with("socket:[") && lines[2][6] == "rw", "{}", outcome.out);
    assert_eq!(run("s6-fdstore-list", &[probed.service.scratch.path("missing")]).code, 1);
    assert_eq!(run::<&str>("s6-fdstore-list", &[]).code, 100);
}

// The holder: NS-75.

/// An fd-holder that lets us do everything, at `holder` in a scratch directory.
fn holder(service: &Service) -> Background {
    for (file, value) in [
        ("allow", ""),
        ("env/S6_FDHOLDER_STORE_REGEX", "\n"),
        ("env/S6_FDHOLDER_RETRIEVE_REGEX", "\n"),
        ("env/S6_FDHOLDER_LIST", "\n"),
    ] {
        service.scratch.write(format!("rules/uid/self/{file}"), value);
    }
    let path = service.scratch.path("holder");
    let holder = Background::start(
        program("s6-fdholder-daemon").arg("-i").arg(service.scratch.path("rules")).arg(&path).stdin(Stdio::null()),
    );
    until("the holder listens", || run("s6-fdholder-list", &[&path]).code == 0);
    holder
}

fn held(probed: &Probed) -> Vec<String> {
    let outcome = run("s6-fdholder-list", &[probed.service.scratch.path("holder")]);
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let mut held: Vec<String> = outcome.out.lines().map(str::to_owned).collect();
    held.sort();
    held
}

impl Probed {
    /// The supervisor and the service are killed, and another supervisor comes.
    fn lose_everything(&mut self) {
        let old = self.status().pid as i32;
        self.0.supervisor.signal(9);
        common::kill(old, 9);
        self.0.supervisor.code();
        let errors = std::fs::File::options().append(true).open(self.service.scratch.path("stderr")).unwrap();
        self.0.supervisor = Background::start(
            program("s6-supervise")
                .arg("service")
                .current_dir(self.service.scratch.path(""))
                .stdin(Stdio::null())
                .stderr(errors),
        );
        self.new_instance(old);
    }
}

#[test]
fn with_a_holder_the_store_outlives_the_supervisor() {
    let service = probe().file("fdstore-holder", "../holder");
    let _holder = holder(&service);
    let mut probed = start(service);
    probed.py("p = pipe()");
    probed.tell_with("FDSTORE=1\nFDNAME=a", ", memfd('one')");
    probed.tell_with("FDSTORE=1\nFDNAME=gone", ", memfd('two')");
    probed.tell_with("FDSTORE=1\nFDNAME=b c\nFDPOLL=0", ", p[0]");
    probed.tell_with("FDSTORE=1\nFDNAME=a", ", memfd('three')");
    probed.tell("FDSTOREREMOVE=1\nFDNAME=gone");
    let wanted = ["fdstore:service:0000:a", "fdstore:service:0002n:b c", "fdstore:service:0003:a"];
    until("the holder has it", || held(&probed) == wanted);
    for round in 0..2 {
        probed.lose_everything();
        assert_eq!(probed.names(), "['a', 'b c', 'a']", "{}", probed.errors());
        assert_eq!(probed.py("[link for _, link, _, _ in files()][::2]"), "['/memfd:one', '/memfd:three']");
        assert_eq!(probed.said("nfds"), "3");
        assert_eq!(held(&probed), wanted, "round {round}");
    }
    probed.tell_with("FDSTORE=1\nFDNAME=new", ", memfd('four')");
    until("the holder has the new one", || held(&probed).last().unwrap() == "fdstore:service:0004:new");
    probed.restart();
    assert_eq!(probed.names(), "['a', 'b c', 'a', 'new']");
    probed.send("d");
    until("the holder has nothing", || held(&probed).is_empty());
}

#[test]
fn a_service_gets_no_more_back_than_may_be_stored_and_the_holder_drops_the_rest() {
    let service = probe().file("fdstore-holder", "../holder");
    let _holder = holder(&service);
    let mut probed = start(service);
    for name in ["a", "b", "c"] {
        probed.tell_with(&format!("FDSTORE=1\nFDNAME={name}"), &format!(", memfd('{name}')"));
    }
    until("the holder has it", || held(&probed).len() == 3);
    std::fs::write(probed.service.path("fdstore-max"), "2").unwrap();
    std::fs::write(probed.service.path("notification-fd"), "5").unwrap();
    probed.lose_everything();
    assert_eq!(probed.names(), "['a', 'b']", "{}", probed.errors());
    assert!(probed.py("os.readlink('/proc/self/fd/5')").contains("pipe:"), "notification-fd is not what it was");
    assert_eq!(probed.said("nfds"), "2");
    until("the holder has the rest", || held(&probed) == ["fdstore:service:0000:a", "fdstore:service:0001:b"]);
}

#[test]
fn a_holder_is_told_to_drop_what_a_leaving_supervisor_drops() {
    for (preserve, left) in [("restart", 0), ("yes", 1)] {
        let service = probe().file("fdstore-holder", "../holder").file("fdstore-preserve", preserve);
        let _holder = holder(&service);
        let mut probed = start(service);
        probed.tell_with("FDSTORE=1", ", memfd('m')");
        until("the holder has it", || held(&probed).len() == 1);
        probed.send("dx");
        probed.0.supervisor.code();
        until("the holder has what it should", || held(&probed).len() == left);
    }
}

#[test]
fn a_holder_that_is_not_there_stops_nothing() {
    let mut probed = start(probe().file("fdstore-holder", "../holder"));
    probed.tell_with("FDSTORE=1\nFDNAME=a\nREADY=1", ", memfd('one')");
    probed.restart();
    assert_eq!(probed.names(), "['a']");
    until("it is said", || probed.errors().contains("s6-fdholder-store: fatal: unable to connect"));
    assert!(probed.errors().contains("s6-fdstore-restore: warning: unable to connect"), "{}", probed.errors());
    probed.lose_everything();
    assert_eq!(probed.names(), "[]");
}

// The proxy, under Debian's supervisor and under ours.

/// A probe behind the proxy, under each supervisor there is.
fn proxied(options: &str, check: impl Fn(&Probed)) {
    let proxy = common::bin_dir().join("s6-notify-proxy");
    let mut supervisors = vec![program("s6-supervise")];
    supervisors.extend(common::original("s6-supervise").map(with_path));
    for mut supervisor in supervisors {
        let service = Service::new(&format!("exec {} {options} python3 -IS {PROBE} probe.sock", proxy.display()))
            .file("notification-fd", "3")
            .file("data/x", "");
        let holder = holder(&service);
        check(&start_with(service, &mut supervisor));
        drop(holder);
    }
}

#[test]
fn a_supervisor_that_does_not_listen_has_a_proxy() {
    proxied("-d 3", |probed| {
        probed.tell("STATUS=starting");
        assert!(!probed.status().ready);
        assert_eq!(probed.py("in_child(\"tell('READY=1')\")"), "True");
        assert!(!probed.status().ready);
        probed.tell("READY=1\nSTATUS=here");
        probed.wait("it is ready", |status| status.ready);
        let report = text(probed.service.path("data/notify"));
        assert!(report.starts_with("STATE=ready\nSTATUS=here\n"), "{report}");
        probed.restart();
        let report = text(probed.service.path("data/notify"));
        assert!(report.starts_with("STATE=starting\nNOTIFYACCESS=main\n"), "{report}");
        probed.tell("NOTIFYACCESS=all");
        assert_eq!(probed.py("in_child(\"tell('READY=1')\")"), "True");
        probed.wait("it is ready", |status| status.ready);
        let pid = probed.status().pid as i32;
        probed.fire("send('WATCHDOG=trigger')");
        let status = probed.wait("it is dead", |status| status.pid as i32 != pid);
        assert_eq!(status.wait_status.signal(), Some(libc::SIGABRT as u8));
        until("that is shown", || text(probed.service.path("data/notify")).starts_with("STATE="));
    });
}

#[test]
fn a_proxy_needs_no_holder_for_a_store() {
    proxied("-m 2", |probed| {
        assert_eq!(probed.py("environment['FDSTORE']"), "'2'");
        probed.tell_with("FDSTORE=1", ", memfd('one'), memfd('two'), memfd('three')");
        assert!(text(probed.service.path("data/notify")).contains("FDSTORE=2/2\n"));
    });
}

#[test]
fn a_proxy_keeps_the_store_in_the_holder() {
    proxied("-m 8 -H ../holder -n name", |probed| {
        assert_eq!(probed.py("environment['FDSTORE']"), "'8'");
        probed.py("p = pipe()");
        probed.tell_with("FDSTORE=1\nFDNAME=a", ", memfd('one')");
        probed.tell_with("FDSTORE=1\nFDNAME=b", ", memfd('two')");
        probed.tell_with("FDSTORE=1\nFDNAME=p", ", p[0]");
        until("the holder has them", || held(probed).len() == 3);
        probed.tell("FDSTOREREMOVE=1\nFDNAME=a");
        probed.py("os.close(p[1])");
        until("the holder has the rest", || held(probed) == ["fdstore:name:0001:b"]);
        probed.restart();
        assert_eq!(probed.py("[(name, link) for name, link, _, _ in files()]"), "[('b', '/memfd:two')]");
        probed.tell_with("FDSTORE=1\nFDNAME=c", ", memfd('three')");
        until("the holder has the new one", || held(probed) == ["fdstore:name:0001:b", "fdstore:name:0002:c"]);
        until("of the dead ones nothing is left", || proxies(&probed.service.dir()) == 1);
    });
}

/// How many helpers work in a service directory.
fn proxies(dir: &std::path::Path) -> usize {
    let is_one = |pid: i32| {
        text(format!("/proc/{pid}/cmdline")).contains("s6-notify-proxy")
            && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
    };
    s6::sys::process::all().iter().filter(|entry| entry.alive && is_one(entry.pid.as_raw())).count()
}
