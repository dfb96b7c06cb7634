//! Services that come and go in a live scan directory: links, instances, user trees, the logger of the tree, and the
//! old names for all of it.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::service::{Scandir, Scanned, c, is_supervised};
use common::user::{NOBODY, for_everyone, is_root};
use common::{Background, Outcome, Scratch, finish, original, program, run, skip, text, until};
use s6::servicedir::status::Status;

/// A live scan directory `scan`, and room for services beside it.
struct Place {
    /// Ends before the services are removed.
    tree: Option<Scanned>,
    scratch: Scratch,
}

impl Place {
    fn new() -> Place {
        Place { scratch: Scratch::new(), tree: Some(Scandir::new().scan(&[])) }
    }

    fn scandir(&self) -> PathBuf {
        let path = self.tree.as_ref().unwrap().scandir.scratch.path("");
        path.components().collect()
    }

    fn scanner(&self) -> i32 {
        self.tree.as_ref().unwrap().scanner.pid()
    }

    /// Makes a service; its run script.
    fn service(&self, name: &str, run: &str) -> PathBuf {
        self.scratch.script(format!("{name}/run"), format!("#!/bin/sh\n{run}\n"));
        self.scratch.path(name)
    }

    /// Runs s6-svlink with these options for the service `name`.
    fn link(&self, options: &[&str], name: &str) -> Outcome {
        finish(program("s6-svlink").args(options).arg(self.scandir()).arg(self.scratch.path(name)))
    }

    fn unlink(&self, options: &[&str], name: &str) -> Outcome {
        finish(program("s6-svunlink").args(options).arg(self.scandir()).arg(name))
    }

    /// The entries that are no dot files.
    fn links(&self) -> Vec<String> {
        entries(&self.scandir())
    }

    fn is_supervised(&self, name: &str) -> bool {
        is_supervised(&c(self.scratch.path(name)))
    }

    fn status(&self, name: &str) -> Status {
        Status::read(&c(self.scratch.path(name))).unwrap()
    }
}

const SLEEP: &str = "exec sleep 1000";

/// The names in a directory that do not begin with a dot, sorted.
fn entries(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

// Links.

#[test]
fn a_service_is_linked_supervised_unlinked_and_gone() {
    let place = Place::new();
    place.service("one", SLEEP);
    place.service("one/log", "exec cat > data");
    assert_eq!(place.link(&[], "one/"), Outcome::default());
    assert_eq!(std::fs::read_link(place.scandir().join("one")).unwrap(), place.scratch.path("one/"));
    assert!(place.is_supervised("one") && place.is_supervised("one/log"));
    assert_eq!((mode(place.scratch.path("one/event")), place.status("one").wanted_up), (0o3730, true));

    let again = place.link(&[], "one");
    assert_eq!((again.code, again.err.starts_with("s6-svlink: warning: ")), (0, true), "{again:?}");

    assert_eq!(place.unlink(&[], "one").code, 0);
    assert!(!place.is_supervised("one") && !place.is_supervised("one/log") && place.links().is_empty());
    assert_eq!(place.unlink(&[], "one").code, 0);
}

#[test]
fn a_relative_service_is_linked_by_its_real_path() {
    let place = Place::new();
    place.service("deep/one", SLEEP);
    symlink("deep", place.scratch.path("short")).unwrap();
    let mut command = program("s6-svlink");
    command.arg(place.scandir()).args(["short/one", "name"]).current_dir(place.scratch.path(""));
    assert_eq!(finish(&mut command).code, 0);
    let real = std::fs::canonicalize(place.scratch.path("deep/one")).unwrap();
    assert_eq!(std::fs::read_link(place.scandir().join("name")).unwrap(), real);
}

#[test]
fn a_service_may_be_linked_down_for_now_or_for_good() {
    let place = Place::new();
    for (name, options, stays) in [("now", &["-d"][..], false), ("good", &["-D"], true), ("last", &["-Dd"], false)] {
        place.service(name, SLEEP);
        assert_eq!(place.link(options, name).code, 0);
        assert!(!place.status(name).wanted_up && place.status(name).pid == 0);
        assert_eq!(place.scratch.path(name).join("down").exists(), stays, "{name}");
    }
    place.service("own", SLEEP);
    place.scratch.write("own/down", "");
    assert_eq!(place.link(&[], "own").code, 0);
    assert!(!place.status("own").wanted_up && place.scratch.path("own/down").exists());
}

#[test]
fn who_may_listen_is_set_when_the_fifodir_is_made_or_when_forced() {
    let place = Place::new();
    place.service("public", SLEEP);
    assert_eq!(place.link(&["-P"], "public").code, 0);
    assert_eq!(mode(place.scratch.path("public/event")), 0o1733);
    for (name, options, wanted) in [("kept", &[][..], 0o1733), ("forced", &["-f"], 0o3730)] {
        place.service(name, SLEEP);
        let event = place.scratch.path(name).join("event");
        std::fs::create_dir(&event).unwrap();
        std::fs::set_permissions(&event, PermissionsExt::from_mode(0o1733)).unwrap();
        assert_eq!(place.link(options, name).code, 0);
        assert_eq!(mode(&event), wanted, "{name}");
    }
}

/// Stops the scanner for the time of a test, so that no supervisor starts.
struct Stopped(i32);

impl Stopped {
    fn new(pid: i32) -> Self {
        common::kill(pid, libc::SIGSTOP);
        until("the scanner is stopped", || text(format!("/proc/{pid}/stat")).contains(") T "));
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        common::kill(self.0, libc::SIGCONT);
    }
}

#[test]
fn what_a_link_that_fails_has_made_is_removed_and_what_was_there_is_not() {
    let place = Place::new();
    place.service("one", SLEEP);
    {
        let _stopped = Stopped::new(place.scanner());
        let outcome = place.link(&["-d", "-t", "60"], "one");
        assert_eq!((outcome.code, outcome.err.as_str()), (99, "s6-svlink: fatal: timed out\n"));
        assert!(place.links().is_empty() && !place.scratch.path("one/down").exists());

        place.scratch.write("one/down", "");
        assert_eq!(place.link(&["-d", "-t", "60"], "one").code, 99);
        assert!(place.scratch.path("one/down").exists());

        symlink("/elsewhere", place.scandir().join("taken")).unwrap();
        place.service("taken", SLEEP);
        let outcome = place.link(&["-D", "-t", "60"], "taken");
        assert_eq!(outcome.code, 111, "{outcome:?}");
        assert_eq!(std::fs::read_link(place.scandir().join("taken")).unwrap(), Path::new("/elsewhere"));
        assert!(!place.scratch.path("taken/down").exists());
        std::fs::remove_file(place.scandir().join("taken")).unwrap();
    }
    assert!(!place.is_supervised("one"));
}

#[test]
fn a_link_that_is_interrupted_is_undone() {
    let place = Place::new();
    place.service("one", SLEEP);
    let _stopped = Stopped::new(place.scanner());
    let mut link = program("s6-svlink");
    link.args(["-d"]).arg(place.scandir()).arg(place.scratch.path("one")).stderr(Stdio::null());
    let mut link = Background::start(&mut link);
    until("the link is there", || place.links() == ["one"]);
    link.signal(libc::SIGTERM);
    assert_eq!(link.code(), 111);
    assert!(place.links().is_empty() && !place.scratch.path("one/down").exists());
}

#[test]
fn a_link_does_not_wait_for_a_scanner_that_is_gone() {
    let mut place = Place::new();
    place.service("one", SLEEP);
    let stopped = Stopped::new(place.scanner());
    let mut link = program("s6-svlink");
    link.arg(place.scandir()).arg(place.scratch.path("one")).stderr(Stdio::null());
    let mut link = Background::start(&mut link);
    until("the link is there", || place.links() == ["one"]);
    common::kill(stopped.0, libc::SIGKILL);
    until("the scanner is gone", || !place.tree.as_mut().unwrap().scanner.is_running());
    assert_eq!(link.code(), 1);
    assert!(place.links().is_empty());
}

#[test]
fn what_cannot_be_linked_is_refused_before_anything_is_made() {
    let place = Place::new();
    place.service("good", SLEEP);
    std::fs::create_dir(place.scratch.path("empty")).unwrap();
    place.scratch.write("plain/run", "");
    place.service("bad-log", SLEEP);
    place.scratch.write("bad-log/log", "");
    place.service("empty-log", SLEEP);
    std::fs::create_dir(place.scratch.path("empty-log/log")).unwrap();
    place.scratch.write("empty-with-bad-log/log", "");
    for (name, code) in [
        ("none", 111),
        ("empty", 111),
        ("plain", 100),
        ("bad-log", 100),
        ("empty-log", 111),
        ("empty-with-bad-log", 111),
    ] {
        assert_eq!(place.link(&["-D"], name).code, code, "{name}");
    }
    for name in ["", ".hidden", "/absolute"] {
        let mut command = program("s6-svlink");
        command.arg(place.scandir()).arg(place.scratch.path("good")).arg(name);
        assert_eq!(finish(&mut command).code, 100, "{name:?}");
    }
    assert!(place.links().is_empty() && entries(&place.scratch.path("good")) == ["run"]);

    std::fs::create_dir(place.scratch.path("no-scan")).unwrap();
    let link_in =
        |dir: &str| finish(program("s6-svlink").arg(place.scratch.path(dir)).arg(place.scratch.path("good"))).code;
    assert_eq!(link_in("no-scan"), 111);
    place.scratch.write("no-scan/.s6-svscan/lock", "");
    assert_eq!(link_in("no-scan"), 1);
}

#[test]
fn an_unlinked_service_is_waited_for_as_long_as_told() {
    let place = Place::new();
    place.service(
        "slow",
        "trap 'while ! [ -e go ]; do sleep 0.02; done; exit' TERM; : > up; while :; do sleep 0.02; done",
    );
    assert_eq!(place.link(&[], "slow").code, 0);
    until("it is up", || place.scratch.path("slow/up").exists());
    assert_eq!(place.unlink(&["-t", "60"], "slow"), Outcome::default());
    assert!(place.is_supervised("slow") && place.links().is_empty());
    place.scratch.write("slow/go", "");
    until("it ends", || !place.is_supervised("slow"));

    std::fs::remove_file(place.scratch.path("slow/go")).unwrap();
    assert_eq!(place.link(&[], "slow").code, 0);
    until("it is up", || place.status("slow").is_up());
    assert_eq!(place.unlink(&["-X"], "slow").code, 0);
    assert!(place.links().is_empty());
    place.scratch.write("slow/go", "");
}

#[test]
fn a_supervisor_that_is_killed_ends_the_wait_too() {
    let place = Place::new();
    place.service("stuck", "trap '' TERM; while :; do sleep 0.02; done");
    assert_eq!(place.link(&[], "stuck").code, 0);
    until("it is up", || place.status("stuck").is_up());
    let (supervisor, service) = {
        let dir = c(place.scratch.path("stuck"));
        (common::service::supervisor_of(&dir).unwrap(), place.status("stuck").pid as i32)
    };
    let mut unlink = program("s6-svunlink");
    let mut unlink = Background::start(unlink.arg(place.scandir()).arg("stuck"));
    until("the link is gone", || place.links().is_empty());
    common::kill(supervisor, libc::SIGKILL);
    assert_eq!(unlink.code(), 0);
    common::kill(service, libc::SIGKILL);
}

#[test]
fn a_directory_in_the_place_of_a_link_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.scandir().join("real")).unwrap();
    assert_eq!(place.unlink(&[], "real").code, 100);
    assert_eq!(place.unlink(&[], "nothing").code, 0);
    assert_eq!(finish(program("s6-svunlink").arg(place.scratch.path("none")).arg("name")).code, 0);
    assert_eq!(place.links(), ["real"]);
}

#[test]
fn links_of_debian_and_ours_are_the_same_to_the_tree_of_the_other() {
    for (ours_link, ours_scan) in [(true, false), (false, true)] {
        let tool = |name: &str| if ours_link { Some(program(name)) } else { original(name) };
        let scan = if ours_scan { Some(program("s6-svscan")) } else { original("s6-svscan") };
        let (Some(mut scan), Some(mut link), Some(mut unlink)) = (scan, tool("s6-svlink"), tool("s6-svunlink")) else {
            return;
        };
        let tree = Scandir::new().scan_with(&mut scan);
        let place = Place { scratch: Scratch::new(), tree: Some(tree) };
        place.service("one", SLEEP);
        place.service("one/log", "exec cat > data");
        assert_eq!(finish(link.arg("-d").arg(place.scandir()).arg(place.scratch.path("one"))).code, 0);
        assert!(place.is_supervised("one") && !place.status("one").wanted_up);
        // 2.11 leaves it to the user.
        let _ = std::fs::remove_file(place.scratch.path("one/log/down"));
        assert_eq!(finish(unlink.arg(place.scandir()).arg("one")).code, 0);
        until("it is gone", || !place.is_supervised("one") && !place.is_supervised("one/log"));
    }
}

/// Two services want one name: each time one of them gets it, and nothing of the other is left.
#[test]
fn links_of_one_name_that_compete_200_times_have_one_winner_each_time() {
    let place = Place::new();
    let dirs = ["a", "b"].map(|name| {
        place.service(&format!("{name}/one"), SLEEP);
        place.scratch.path(format!("{name}/one"))
    });
    for round in 0..200 {
        let mut links = dirs.each_ref().map(|dir| {
            let mut command = program("s6-svlink");
            Background::start(command.arg("-D").arg(place.scandir()).arg(dir).stderr(Stdio::null()))
        });
        let codes = links.each_mut().map(Background::code);
        let winner = codes.iter().position(|&code| code == 0).unwrap_or_else(|| panic!("round {round}: {codes:?}"));
        assert_eq!(codes[1 - winner], 111, "round {round}");
        assert_eq!(std::fs::read_link(place.scandir().join("one")).unwrap(), dirs[winner]);
        assert!(is_supervised(&c(&dirs[winner])) && !is_supervised(&c(&dirs[1 - winner])), "round {round}");
        let downs = dirs.each_ref().map(|dir| dir.join("down").exists());
        assert_eq!((downs[winner], downs[1 - winner]), (true, false), "round {round}");
        assert_eq!(place.unlink(&[], "one").code, 0);
        std::fs::remove_file(dirs[winner].join("down")).unwrap();
    }
    assert!(place.links().is_empty());
}

// Instances.

/// An instanced service under supervision, as s6-instance-maker writes it.
struct Instanced {
    scratch: Scratch,
    supervisor: Background,
}

impl Instanced {
    fn new(run: &str) -> Instanced {
        Instanced::made(&[], |scratch| {
            scratch.script("template/run", format!("#!/bin/sh\n{run}\n"));
            scratch.write("template/data/.file", "text");
        })
    }

    fn made(options: &[&str], template: impl FnOnce(&Scratch)) -> Instanced {
        let scratch = Scratch::new();
        template(&scratch);
        let mut maker = program("s6-instance-maker");
        let outcome = finish(maker.args(options).arg(scratch.path("template")).arg(scratch.path("service")));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let mut supervise = program("s6-supervise");
        let errors = std::fs::File::create(scratch.path("err")).unwrap();
        supervise.arg("service").current_dir(scratch.path("")).stdin(Stdio::null()).stdout(Stdio::null());
        let supervisor = Background::start(supervise.stderr(errors));
        let made = Instanced { scratch, supervisor };
        let dir = c(made.scratch.path("service"));
        until("the inner scanner is ready", || Status::read(&dir).is_ok_and(|status| status.is_up() && status.ready));
        made
    }

    fn tool(&self, name: &str, args: &[&str]) -> Outcome {
        finish(program(name).args(args).current_dir(self.scratch.path("")))
    }

    fn create(&self, options: &[&str], name: &str) -> Outcome {
        self.tool("s6-instance-create", &[options, &["service", name]].concat())
    }

    fn delete(&self, options: &[&str], name: &str) -> Outcome {
        self.tool("s6-instance-delete", &[options, &["service", name]].concat())
    }

    fn instance(&self, name: &str) -> PathBuf {
        self.scratch.path("service/instances").join(name)
    }

    /// Names of the links, and of the copies.
    fn names(&self) -> (Vec<String>, Vec<String>) {
        (entries(&self.scratch.path("service/instance")), entries(&self.scratch.path("service/instances")))
    }
}

impl Drop for Instanced {
    fn drop(&mut self) {
        self.supervisor.signal(libc::SIGTERM);
        if !std::thread::panicking() {
            until("the service ends", || !self.supervisor.is_running());
        }
    }
}

#[test]
fn an_instance_lives_from_create_to_delete() {
    let made = Instanced::new("echo $1 > name; exec sleep 1000");
    assert_eq!(made.create(&[], "one"), Outcome::default());
    assert_eq!(std::fs::read_link(made.scratch.path("service/instance/one")).unwrap(), Path::new("../instances/one"));
    assert_eq!(text(made.instance("one").join("data/.file")), "text");
    until("it knows its name", || text(made.instance("one").join("name")) == "one\n");
    assert_eq!(made.tool("s6-instance-status", &["-o", "up,wantedup", "service", "one"]).out, "true true\n");
    assert_eq!(made.tool("s6-instance-control", &["-wD", "-T20000", "-d", "service", "one"]).code, 0);
    assert_eq!(made.tool("s6-instance-status", &["-uw", "service", "one"]).out, "false false\n");

    assert_eq!(made.create(&["-D"], "two").code, 0);
    assert!(made.instance("two").join("down").exists());
    let list = made.tool("s6-instance-list", &["service"]).out;
    let mut names: Vec<&str> = list.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(made.create(&[], "one").code, 100);

    for name in ["one", "two", "two"] {
        assert_eq!(made.delete(&[], name), Outcome::default());
    }
    assert_eq!(made.names(), (vec![], vec![]));
    assert_eq!(made.tool("s6-instance-status", &["service", "one"]).code, 1);
    assert_eq!(made.create(&[], "one").code, 0);
}

#[test]
fn an_instance_that_cannot_be_created_leaves_nothing() {
    let made = Instanced::new(SLEEP);
    let run = made.scratch.path("service/template/run");
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(made.create(&[], "one").code, 100);
    std::fs::rename(&run, run.with_extension("away")).unwrap();
    assert_eq!(made.create(&[], "one").code, 111);
    assert_eq!(made.names(), (vec![], vec![]));
    for name in ["", ".x", "a b", "a\tb", "a/b", "../x", "a\nb"] {
        assert_eq!((made.create(&[], name).code, made.delete(&[], name).code), (100, 100), "{name:?}");
    }

    std::fs::rename(run.with_extension("away"), &run).unwrap();
    std::fs::set_permissions(&run, PermissionsExt::from_mode(0o755)).unwrap();
    let dir = c(made.scratch.path("service"));
    let scanner = Stopped::new(Status::read(&dir).unwrap().pid as i32);
    assert_eq!(made.create(&["-t", "60"], "one").code, 99);
    assert_eq!(made.names(), (vec![], vec![]));

    let mut create = program("s6-instance-create");
    create.args(["service", "one"]).current_dir(made.scratch.path("")).stderr(Stdio::null());
    let mut create = Background::start(&mut create);
    until("the link is there", || made.names().0 == ["one"]);
    // Whoever wants the same name waits for its turn, as long as it was told.
    assert_eq!((made.create(&["-t", "60"], "one").code, made.delete(&["-t", "60"], "one").code), (99, 111));
    create.signal(libc::SIGINT);
    assert_eq!(create.code(), 111);
    assert_eq!(made.names(), (vec![], vec![]));
    drop(scanner);
}

#[test]
fn a_template_that_cannot_be_read_whole_makes_no_instance() {
    if !is_root() {
        return skip("a file that this user may not read needs root");
    }
    let made = Instanced::new(SLEEP);
    let bin = for_everyone(&made.scratch, &["s6-instance-create"]);
    std::fs::set_permissions(made.scratch.path("service/template/data/.file"), PermissionsExt::from_mode(0o600))
        .unwrap();
    for dir in ["service/instance", "service/instances"] {
        std::fs::set_permissions(made.scratch.path(dir), PermissionsExt::from_mode(0o777)).unwrap();
    }
    for file in ["service/instance/.s6-svscan", "service/instance/.s6-svscan/lock"] {
        std::fs::set_permissions(made.scratch.path(file), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut create = Command::new(bin.join("s6-instance-create"));
    create.args(["service", "one"]).current_dir(made.scratch.path("")).uid(NOBODY).gid(NOBODY);
    let outcome = finish(&mut create);
    assert_eq!(outcome.code, 111);
    assert_eq!(
        outcome.err,
        "s6-instance-create: fatal: unable to copy service/template/data/.file: Permission denied\n"
    );
    assert_eq!(made.names(), (vec![], vec![]));
}

#[test]
fn an_instance_has_its_logger() {
    let made = Instanced::made(&["-c", "2"], |scratch| {
        scratch.script("template/run", "#!/bin/sh\necho hello from $1\nexec sleep 1000\n");
        scratch.script("template/log/run", "#!/bin/sh\necho logger $1 > name\nexec cat > data\n");
    });
    assert_eq!(made.create(&[], "one").code, 0);
    let log = made.instance("one").join("log");
    until("the line arrives", || {
        text(log.join("data")) == "hello from one\n" && text(log.join("name")) == "logger one/log\n"
    });
    assert_eq!(made.delete(&[], "one").code, 0);
    assert_eq!(made.names(), (vec![], vec![]));
}

#[test]
fn a_running_instance_can_be_deleted_without_waiting() {
    let made = Instanced::new(
        "trap 'while ! [ -e ../go ]; do sleep 0.02; done; exit' TERM; : > up; while :; do sleep 0.02; done",
    );
    for options in [&["-X"][..], &["-t", "60"]] {
        assert_eq!(made.create(&[], "slow").code, 0);
        let status = || Status::read(&c(made.instance("slow"))).unwrap();
        until("it is up", || made.instance("slow").join("up").exists() && status().is_up());
        let pid = status().pid as i32;
        assert_eq!(made.delete(options, "slow").code, 0);
        assert_eq!(made.names(), (vec![], vec![]));
        assert!(common::is_alive(pid));
        common::kill(pid, libc::SIGKILL);
    }
}

/// Of creating and deleting one instance at the same time, 200 times, every outcome is one that the two could have had
/// one after the other.
#[test]
fn create_and_delete_that_compete_200_times_leave_a_whole_instance_or_none() {
    let made = Instanced::new(SLEEP);
    let start = |name: &str| {
        let mut command = program(name);
        command.args(["service", "one"]).current_dir(made.scratch.path("")).stderr(Stdio::null());
        Background::start(&mut command)
    };
    for round in 0..200 {
        let mut create = start("s6-instance-create");
        if round % 2 == 0 {
            until("the copy is begun", || made.instance("one").exists());
        }
        let mut delete = start("s6-instance-delete");
        let mut rival = start("s6-instance-create");
        let codes = [create.code(), rival.code()];
        assert_eq!(delete.code(), 0, "round {round}");
        assert!(codes.iter().all(|code| [0, 100].contains(code)) && codes.contains(&0), "round {round}: {codes:?}");
        let (links, copies) = made.names();
        assert_eq!(links, copies, "round {round}: {codes:?}");
        if let [name] = &links[..] {
            let instance = made.instance(name);
            assert!(is_supervised(&c(&instance)), "round {round}");
            assert_eq!(text(instance.join("data/.file")), "text", "round {round}");
        }
        assert_eq!(made.delete(&[], "one").code, 0, "round {round}");
        assert_eq!(made.names(), (vec![], vec![]), "round {round}");
    }
}

#[test]
fn different_instances_do_not_wait_for_each_other() {
    let made = Instanced::new("trap '' TERM; : > up; while ! [ -e go ]; do sleep 0.02; done");
    assert_eq!(made.create(&[], "slow").code, 0);
    until("it is up", || made.instance("slow").join("up").exists());
    let mut delete = program("s6-instance-delete");
    let mut delete = Background::start(delete.args(["service", "slow"]).current_dir(made.scratch.path("")));
    until("its link is gone", || made.names().0.is_empty());
    assert_eq!(made.create(&[], "other").code, 0);
    assert!(delete.is_running());
    std::fs::write(made.instance("slow").join("go"), "").unwrap();
    assert_eq!(delete.code(), 0);
    std::fs::write(made.instance("other").join("go"), "").unwrap();
}

#[test]
fn commands_and_fields_are_counted_and_checked() {
    let many = format!("-{}", "u".repeat(63));
    let fields = vec!["pid"; 17].join(",");
    for (name, args) in [
        ("s6-instance-control", &["-l", "service", "one"][..]),
        ("s6-instance-control", &["-w", "x", "service", "one"]),
        ("s6-instance-control", &[&many, "service", "one"]),
        ("s6-instance-status", &["-o", "pid,,up", "service", "one"]),
        ("s6-instance-status", &["-o", "", "service", "one"]),
        ("s6-instance-status", &["-o", &fields, "service", "one"]),
        ("s6-instance-list", &[""]),
        ("s6-instance-list", &[]),
    ] {
        assert_eq!(run(name, args).code, 100, "{name} {args:?}");
    }
}

// What the makers write.

#[test]
fn a_maker_that_fails_leaves_nothing() {
    let scratch = Scratch::new();
    let maker = |args: &[&str]| finish(program("s6-instance-maker").args(args).current_dir(scratch.path(""))).code;
    assert_eq!(maker(&["-L", "/log", "none", "made"]), 111);
    scratch.script("template/run", "");
    assert_eq!(maker(&["template", "template"]), 111);
    assert_eq!(maker(&["template", "template/inside"]), 111);
    assert_eq!(entries(&scratch.path("template")), ["run"]);
    scratch.write("sources/log/file", "");
    assert_eq!(maker(&["-r", "service/log", "-L", "/log", "template", "sources"]), 111);
    assert_eq!(
        (entries(&scratch.path("")), entries(&scratch.path("sources"))),
        (vec!["sources".into(), "template".into()], vec!["log".into()])
    );
}

#[test]
fn sources_for_s6_rc_have_their_files() {
    let scratch = Scratch::new();
    scratch.script("template/run", "");
    let made = finish(
        program("s6-instance-maker")
            .args(["-r", "getty/getty-log/getties", "-L", "/var/log/getty", "template", "sources"])
            .current_dir(scratch.path("")),
    );
    assert_eq!(made.code, 0, "{made:?}");
    let file = |name: &str| text(scratch.path("sources").join(name));
    assert_eq!(entries(&scratch.path("sources/getty")), ["notification-fd", "producer-for", "run", "template", "type"]);
    assert_eq!((file("getty/type").as_str(), file("getty/producer-for").as_str()), ("longrun\n", "getty-log\n"));
    assert_eq!(
        (file("getty-log/consumer-for").as_str(), file("getty-log/pipeline-name").as_str()),
        ("getty\n", "getties\n")
    );
    assert_eq!(mode(scratch.path("sources/getty/run")) & 0o111, 0);
}

/// A maker that finds no execlineb, and so writes for `/bin/sh`.
fn without_execline(name: &str) -> Command {
    let mut command = program(name);
    command.env("PATH", common::bin_dir());
    command
}

#[test]
fn scripts_are_in_execline_where_it_is_installed_and_for_sh_elsewhere() {
    let scratch = Scratch::new();
    scratch.script("template/run", "");
    scratch.script("fake/execlineb", "");
    for (name, path, service, logger) in [
        (
            "execline",
            scratch.path("fake"),
            format!(
                "#!{0} -P\n\nfdmove -c 2 1\ns6-setuidgid \"bob\"\ns6-svscan -d3 -C1000 -- instance\n",
                scratch.path("fake/execlineb").display()
            ),
            format!(
                "#!{0} -P\ns6-log -bd3 -- t n10 s1000000 \"pa \\\"b\" \"/l\"\n",
                scratch.path("fake/execlineb").display()
            ),
        ),
        (
            "shell",
            scratch.path("nowhere"),
            "#!/bin/sh\nexec 2>&1\nexec s6-setuidgid bob s6-svscan -d3 -C1000 -- instance\n".to_owned(),
            "#!/bin/sh\nexec s6-log -bd3 -- t n10 s1000000 'pa \"b' /l\n".to_owned(),
        ),
    ] {
        let mut maker = program("s6-instance-maker");
        maker.env("PATH", path).current_dir(scratch.path(""));
        let made = finish(maker.args(["-u", "bob", "-L", "/l", "-P", "a \"b", "template", name]));
        assert_eq!(made.code, 0, "{made:?}");
        assert_eq!(text(scratch.path(name).join("run")), service);
        assert_eq!(text(scratch.path(name).join("log/run")), logger);
    }
}

/// A directory with an s6-svscan that writes down how it was called, for the PATH of a script.
fn recorder(scratch: &Scratch) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nexec 9> {0}/recorded\necho \"args: $*\" >&9\nenv >&9\nid -u >&9\necho to stdout; echo to stderr >&2\n",
        scratch.path("").display()
    );
    scratch.script("recorder/s6-svscan", script);
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    scratch.path("recorder")
}

#[test]
fn a_user_tree_runs_as_the_user_with_a_fresh_environment() {
    if !is_root() {
        return skip("becoming another user needs root");
    }
    let scratch = Scratch::new();
    let helpers = for_everyone(&scratch, &["s6-envuidgid", "s6-applyuidgid", "s6-envdir"]);
    let bin = recorder(&scratch);
    scratch.write("env/GREETING", "hello ${USER} in ${HOME}, it's $HOME\n");
    scratch.write("env/SPARE", "untouched ${USER}");
    let path = format!("{}:${{HOME}}/bin:/usr/bin:/bin", bin.display());
    let made = finish(
        without_execline("s6-usertree-maker")
            .args(["-p", &path, "-d", "/run/user/${UID}/it's here", "-E"])
            .arg(scratch.path("env"))
            .args(["-e", "GREETING", "-e", "ABSENT", "daemon", "/var/log/x"])
            .arg(scratch.path("tree")),
    );
    assert_eq!(made.code, 0, "{made:?}");
    let mut run = Command::new("./run");
    run.current_dir(scratch.path("tree"))
        .env("SECRET", "x")
        .env("PATH", format!("{}:/usr/bin:/bin", helpers.display()));
    let outcome = finish(&mut run);
    assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("to stdout\nto stderr\n", ""), "{outcome:?}");

    let recorded = text(scratch.path("recorded"));
    let home = nix::unistd::User::from_name("daemon").unwrap().unwrap().dir.display().to_string();
    let variable = |name: &str| {
        recorded.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or("not set").to_owned()
    };
    assert!(recorded.starts_with("args: -d3 -- /run/user/1/it's here\n"), "{recorded}");
    assert!(recorded.ends_with("\n1\n"), "{recorded}");
    assert_eq!(variable("GREETING"), format!("hello daemon in {home}, it's $HOME"));
    assert_eq!((variable("SPARE").as_str(), variable("ABSENT").as_str()), ("untouched ${USER}", ""));
    assert_eq!(variable("PATH"), path.replace("${HOME}", &home));
    for (name, value) in
        [("USER", "daemon"), ("HOME", home.as_str()), ("UID", "1"), ("GID", "1"), ("SECRET", "not set")]
    {
        assert_eq!(variable(name), value, "{name}");
    }
}

#[test]
fn user_trees_of_nobody_are_refused() {
    for args in [
        &["a b", "/log", "dir"][..],
        &["$(id)", "/log", "dir"],
        &["bob", "log", "dir"],
        &["-d", "relative", "bob", "/log", "dir"],
        &["-E", "/e", "-e", "A=B", "bob", "/log", "dir"],
        &["-E", "/e", "-e", "1A", "bob", "/log", "dir"],
        &["-r", "service", "bob", "/log", "dir"],
        &["bob", "/log"],
    ] {
        assert_eq!(finish(without_execline("s6-usertree-maker").args(args)).code, 100, "{args:?}");
    }
    let scratch = Scratch::new();
    let made = finish(without_execline("s6-usertree-maker").args(["no-such-user", "/log"]).arg(scratch.path("tree")));
    assert_eq!(made.code, 0);
    let outcome = finish(&mut Command::new(scratch.path("tree/run")));
    assert_eq!((outcome.code, outcome.out.as_str()), (111, "run: fatal: no home directory for no-such-user\n"));
}

#[test]
fn in_the_language_of_execline_any_name_can_be_quoted() {
    let scratch = Scratch::new();
    scratch.script("fake/execlineb", "");
    let maker = |args: &[&str]| {
        let mut maker = program("s6-usertree-maker");
        finish(maker.env("PATH", scratch.path("fake")).args(args).current_dir(scratch.path("")))
    };
    assert_eq!(maker(&["-E", "/e", "-e", "A=B", "bob", "/log", "none"]).code, 100);
    assert_eq!(maker(&["-E", "/e", "-e", "1\"A", "a \"b\\", "/log", "tree"]).code, 0);
    let script = text(scratch.path("tree/run"));
    for line in [
        r#"export USER "a \"b\\""#,
        r#"s6-envuidgid -i -- "a \"b\\""#,
        r#"backtick -in HOME { homeof "a \"b\\" }"#,
        r#"  importas -D "" -- "1\"A" "1\"A""#,
        r#"export "1\"A" ${"1\"A"}"#,
    ] {
        assert!(script.lines().any(|other| other == line), "{line}: {script}");
    }
}

#[test]
fn the_logger_of_a_tree_is_in_execline_where_it_is_installed_and_for_sh_elsewhere() {
    let scratch = Scratch::new();
    scratch.script("fake/execlineb", "");
    scratch.script("fake/s6-svscan", "#!/bin/sh\n");
    scratch.script("other/s6-svscan", "#!/bin/sh\n");
    let user = if is_root() { Some("daemon") } else { None };
    for (path, words) in [
        (
            "fake",
            [
                format!("#!{} -s1\nfdmove -c 1 2\nredirfd -rnb 0 fifo\n", scratch.path("fake/execlineb").display()),
                user.map_or_else(String::new, |user| format!("s6-setuidgid \"{user}\"\n")),
                format!("exec -c\ns6-log -bpd3 -- T \"pa b\" \"{}\"\n", scratch.path("lo gs").display()),
            ],
        ),
        (
            "other",
            [
                "#!/bin/sh\nexec 1>&2\nexec 4<>fifo 0<fifo 4>&-\nexec ".to_owned(),
                user.map_or_else(String::new, |user| format!("s6-setuidgid {user} ")),
                format!("env -i \"$(command -v s6-log)\" -bpd3 -- T 'pa b' '{}'\n", scratch.path("lo gs").display()),
            ],
        ),
    ] {
        let mut boot = program("s6-svscanboot");
        boot.args(["-D", "lo gs", "-o", "T \"pa b\""]).args(user.map(|user| format!("-l{user}"))).arg("scan");
        let outcome = finish(boot.env("PATH", scratch.path(path)).current_dir(scratch.path("")));
        assert_eq!(outcome, Outcome::default());
        assert_eq!(text(scratch.path("scan/s6-svscan-log/run")), words.concat());
    }
}

/// The catch-all logger of a tree, from the first line to the last.
#[test]
fn a_booted_tree_logs_what_has_no_logger() {
    log_what_has_no_logger(None);
}

#[test]
fn a_booted_tree_needs_no_execline() {
    let tools = Scratch::new();
    for tool in ["env", "sleep"] {
        let found = Command::new("/bin/sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
        symlink(String::from_utf8(found.stdout).unwrap().trim_end(), tools.path(tool)).unwrap();
    }
    log_what_has_no_logger(Some(tools.path("")));
}

/// With `path`, nothing is in PATH but that and the suite.
fn log_what_has_no_logger(path: Option<PathBuf>) {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("scan")).unwrap();
    // It speaks before there can be a logger, once and never again, and lives on if nobody kills it for that.
    let run = "#!/bin/sh\nif test -e spoke; then exec sleep 1000; fi\n: >spoke\necho one line >&2\nexec sleep 1000\n";
    scratch.script("scan/talker/run", run);
    let logs = scratch.path("lo gs");
    let console = std::fs::File::create(scratch.path("console")).unwrap();
    let mut boot = program("s6-svscanboot");
    boot.arg("-D").arg(&logs).args(["-m", "0700", "-o", "s100000 n3 \"plog entry:\""]).arg(scratch.path("scan"));
    if let Some(path) = path {
        boot.env("PATH", format!("{}:{}", common::bin_dir().display(), path.display()));
    }
    let mut tree = Background::start(boot.stdin(Stdio::null()).stderr(console));
    let pid = tree.pid();
    until("the line is logged", || text(logs.join("current")) == "log entry: one line\n");
    assert_eq!((mode(&logs), mode(scratch.path("scan/s6-svscan-log/fifo"))), (0o700, 0o600));
    assert_eq!(text(format!("/proc/{pid}/comm")), "s6-svscan\n");
    assert_eq!(text(scratch.path("scan/talker/supervise/death_tally")), "");
    let event = scratch.path("scan/s6-svscan-log/event");
    until("nobody else holds the fifo", || std::fs::read_dir(&event).unwrap().next().is_none());
    common::kill(pid, libc::SIGTERM);
    assert_eq!(tree.code(), 0);
    assert_eq!(text(scratch.path("console")), "");
}

#[test]
fn a_boot_that_cannot_be_leaves_the_old_logger_alone() {
    let scratch = Scratch::new();
    scratch.write("scan/s6-svscan-log/run", "old");
    let boot = |args: &[&str]| {
        finish(program("s6-svscanboot").args(args).current_dir(scratch.path("")).env_remove("XDG_RUNTIME_DIR"))
    };
    for (args, code) in [
        (&["-C", "x", "scan"][..], 100),
        (&["--bogus", "scan"], 100),
        (&["-m", "9", "scan"], 100),
        (&["-o", "\"open", "scan"], 100),
        (&["-d", "2", "scan"], 100),
        (&["-d", "199", "scan"], 111),
        (&["-u", "scan"], 100),
        (&["-l", "no-such-user-x", "-D", "logs", "scan"], if is_root() { 111 } else { 0 }),
        (&["-c", "none/console", "-D", "logs", "scan"], 111),
        (&["-D", "scan/s6-svscan-log/run", "scan"], 111),
        (&[], 100),
    ] {
        if code != 0 {
            assert_eq!(boot(args).code, code, "{args:?}");
        }
    }
    assert_eq!(text(scratch.path("scan/s6-svscan-log/run")), "old");
    assert_eq!(mode(scratch.path("scan/s6-svscan-log/run")) & 0o111, 0);
    // The message of a failed execution does not go down the fifo.
    let mut boot = Command::new(common::bin_dir().join("s6-svscanboot"));
    let outcome = finish(boot.args(["-D", "logs", "scan"]).current_dir(scratch.path("")).env("PATH", "/nonexistent"));
    assert_eq!(outcome.code, 111);
    assert_eq!(outcome.err, "s6-svscanboot: fatal: unable to exec s6-svscan: No such file or directory\n");
}

// Permissions.

/// A directory as a supervisor leaves it.
fn supervised_looking(scratch: &Scratch, name: &str) -> PathBuf {
    let dir = scratch.path(name);
    std::fs::create_dir_all(dir.join("supervise")).unwrap();
    std::fs::create_dir(dir.join("event")).unwrap();
    nix::unistd::mkfifo(&dir.join("supervise/control"), nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
        .unwrap();
    for (name, mode) in [("supervise", 0o700), ("supervise/control", 0o600), ("event", 0o3730)] {
        std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    dir
}

#[test]
fn permissions_are_set_and_told_in_the_words_of_debian() {
    let scratch = Scratch::new();
    let dir = supervised_looking(&scratch, "service");
    let gid = format!(":{}", nix::unistd::getegid());
    for (options, modes, told) in [
        (&["-u"][..], (0o700, 0o600, 0o3730), "status: owner"),
        (&["-g", &gid], (0o710, 0o600, 0o3730), "status: group "),
        (&["-G", &gid], (0o710, 0o620, 0o3730), "control: group "),
        (&["-o", "-e"], (0o711, 0o600, 0o1733), "events: public"),
        (&["-O", &gid, "-E", &gid], (0o711, 0o620, 0o3730), "status: public"),
        (&["-O", &gid, "-u"], (0o700, 0o600, 0o3730), "control: owner"),
    ] {
        let quiet = finish(program("s6-svperms").args(options).arg("service").current_dir(scratch.path("")));
        assert_eq!(quiet, Outcome::default());
        let found = (mode(dir.join("supervise")), mode(dir.join("supervise/control")), mode(dir.join("event")));
        assert_eq!(found, modes, "{options:?}");
        let ours = finish(program("s6-svperms").arg("service").current_dir(scratch.path("")));
        assert!(ours.code == 0 && ours.out.contains(&format!("service {told}")), "{ours:?}");
        if let Some(mut theirs) = original("s6-svperms") {
            assert_eq!(finish(theirs.arg("service").current_dir(scratch.path(""))).out, ours.out, "{options:?}");
        }
    }
}

#[test]
fn a_name_that_is_not_there_is_unlinked_by_anybody() {
    assert_eq!(run("s6-svunlink", &["", "name"]), Outcome::default());
    if !is_root() {
        return skip("a directory that this user may not change needs root");
    }
    let scratch = Scratch::new();
    let bin = for_everyone(&scratch, &["s6-svunlink"]);
    std::fs::create_dir(scratch.path("scan")).unwrap();
    symlink("somewhere", scratch.path("scan/one")).unwrap();
    let unlink = |name: &str| {
        finish(Command::new(bin.join("s6-svunlink")).arg(scratch.path("scan")).arg(name).uid(NOBODY).gid(NOBODY)).code
    };
    assert_eq!((unlink("none"), unlink("one")), (0, 111));
    assert!(scratch.path("scan/one").is_symlink());
}

#[test]
fn an_ordinary_user_sets_permissions_of_its_own_services_only() {
    if !is_root() {
        return skip("another user needs root");
    }
    let scratch = Scratch::new();
    let bin = for_everyone(&scratch, &["s6-svperms"]);
    let own = supervised_looking(&scratch, "own");
    let foreign = supervised_looking(&scratch, "foreign");
    for path in [own.clone(), own.join("supervise"), own.join("supervise/control"), own.join("event")] {
        nix::unistd::chown(&path, Some(NOBODY.into()), Some(NOBODY.into())).unwrap();
    }
    let set = |options: &[&str], dir: &Path| {
        finish(Command::new(bin.join("s6-svperms")).args(options).arg(dir).uid(NOBODY).gid(NOBODY)).code
    };
    assert_eq!((set(&["-o", "-e"], &own), set(&["-o"], &foreign), set(&["-G", ":1"], &own)), (0, 111, 111));
    assert_eq!((mode(own.join("event")), mode(foreign.join("supervise"))), (0o1733, 0o700));
    assert_eq!(own.join("event").metadata().unwrap().gid(), NOBODY);
}

// Old names.

#[test]
fn names_of_daemontools_and_runit_lead_to_ours() {
    let scratch = Scratch::new();
    symlink(common::bin_dir().join("s6-alias"), scratch.path("svok")).unwrap();
    assert_eq!(
        finish(&mut common::with_path(Command::new(scratch.path("svok")))).err,
        "s6-svok: usage: s6-svok servicedir\n"
    );
    let outcome = run("s6-alias", &["-v", "svok", "none"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, "s6-alias: info: the s6 version of svok is s6-svok\n"));
    scratch.script("bin/s6-svscan", "#!/bin/sh\necho \"$@\"\n");
    let outcome = finish(program("s6-alias").args(["runsvdir", "-P", "dir", "log"]).env("PATH", scratch.path("bin")));
    assert_eq!(outcome.out, "-t0 dir\n");
    assert_eq!(outcome.err.lines().filter(|line| line.starts_with("s6-alias: warning: ")).count(), 2);
    for name in ["runit", "svlogd", "readproctitle", "nonsense"] {
        assert_eq!(run("s6-alias", &[name]).code, 100, "{name}");
    }
}

#[test]
fn sv_commands_wait_and_tell_and_count_what_failed() {
    let place = Place::new();
    place.service("one", SLEEP);
    place.service("one/log", "exec cat");
    assert_eq!(place.link(&["-d"], "one").code, 0);
    let sv = |args: &[&str]| finish(program("s6-alias-sv").args(args).env("SVDIR", place.scandir()));
    let told = sv(&["start", "one"]);
    let dir = place.scandir().join("one");
    assert_eq!(told.code, 0, "{told:?}");
    let lines: Vec<&str> = told.out.lines().collect();
    assert!(lines[0].starts_with(&format!("{}: up (pid ", dir.display())), "{told:?}");
    assert!(lines[1].starts_with(&format!("{}/log: ", dir.display())), "{told:?}");
    let first = place.status("one").pid;
    assert_eq!(sv(&["try-restart", "one"]).code, 0);
    assert_ne!(place.status("one").pid, first);
    assert_eq!(sv(&["-v", "d", "one"]).code, 0);
    assert!(!place.status("one").is_up());
    assert_eq!((sv(&["try-restart", "one"]).code, place.status("one").is_up()), (0, false));
    assert_eq!(sv(&["check", "one"]).code, 0);
    assert_eq!(sv(&["up", "one", "none", "none either"]).code, 2);
    until("it is up", || place.status("one").is_up());
    for letter in ["1", "2"] {
        let told = sv(&["-v", letter, "one"]);
        assert!(told.out.starts_with(&format!("{}: ", dir.display())), "{letter} {told:?}");
    }
    for (word, warnings) in [("up", 0), ("force-stop", 1), ("D", 1), ("x", 1), ("E", 2), ("force-shutdown", 2)] {
        assert_eq!(sv(&[word, "none"]).err.matches("s6-alias-sv: warning: ").count(), warnings, "{word}");
    }
    assert_eq!((sv(&["bogus", "one"]).code, sv(&["-w", "x", "up", "one"]).code, sv(&["up"]).code), (100, 100, 100));
}

#[test]
fn chpst_changes_what_it_is_told_to() {
    let scratch = Scratch::new();
    scratch.write("env/NAME", "value\n");
    let chpst = |args: &[&str]| finish(program("s6-alias-chpst").args(args).current_dir(scratch.path("")));
    let outcome = chpst(&[
        "-v",
        "-P",
        "-e",
        "env",
        "-o",
        "50",
        "-L",
        "lock",
        "-b",
        "other",
        "-0",
        "sh",
        "-c",
        "echo $NAME $0; ulimit -n; read x",
    ]);
    assert_eq!(outcome.out, "value other\n50\n");
    let line = "s6-alias-chpst: info: executing the following command line: s6-setsid -- s6-envdir -- env s6-setlock -n -- lock \
                s6-softlimit -o 50 -- s6-alias-chpst -0 -b other -- sh -c ";
    assert!(outcome.err.starts_with(line), "{}", outcome.err);
    assert_eq!(chpst(&["-b", "login-name", "sh", "-c", "echo $0"]).out, "login-name\n");
    assert_eq!((chpst(&["-v"]).code, chpst(&["-n", "0", "--"]).code, chpst(&["-b", "name"]).code), (0, 0, 100));
    assert_eq!((chpst(&[]).code, chpst(&["-P"]).code, chpst(&["-u", "no-such-user-x", "true"]).code), (0, 100, 100));
    assert_eq!((chpst(&["./none"]).code, chpst(&["-m", "x", "true"]).code), (127, 100));
}

#[test]
fn chpst_changes_identity_and_root_together() {
    if !is_root() {
        return skip("another user needs root");
    }
    let scratch = Scratch::new();
    let chpst = |args: &[&str]| finish(program("s6-alias-chpst").args(args).current_dir(scratch.path("")));
    assert_eq!(chpst(&["-u", ":12:13:14:15", "sh", "-c", "id -u; id -g; id -G"]).out, "12\n13\n13 14 15\n");
    assert_eq!(chpst(&["-u", "daemon:bin:sys", "sh", "-c", "id -un; id -gn; id -Gn"]).out, "daemon\nbin\nbin sys\n");
    assert_eq!(chpst(&["-U", "daemon", "sh", "-c", "echo $UID $GID; id -u"]).out, "1 1\n0\n");
    // Nothing is there to be run, as nobody: the new root is in effect, and only then is there no program.
    std::fs::create_dir(scratch.path("root")).unwrap();
    let outcome = chpst(&["-u", ":12:13", "-/", "root", "/bin/true"]);
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (127, "s6-alias-chpst: fatal: unable to exec /bin/true: No such file or directory\n")
    );
}
