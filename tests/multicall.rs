//! s6-rs, called by links or by name, is each of the programs.

mod common;

use std::process::Command;

use common::service::Scandir;
use common::{Outcome, Scratch, bin_dir, finish, program, until};
use s6::programs;

/// A directory of links to the one file, a link for every program.
struct Links(Scratch);

impl Links {
    fn new() -> Self {
        let links = Links(Scratch::new());
        for program in programs::all() {
            std::os::unix::fs::symlink(bin_dir().join("s6-rs"), links.0.path(program.name)).unwrap();
        }
        links
    }

    /// A program of the directory, which is all there is in PATH before the system's own.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.path(name));
        command.env("PATH", format!("{}:/usr/bin:/bin", self.0.path("").display()));
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Outcome {
        finish(self.program(name).args(args))
    }
}

/// The multi-call binary by its own name.
fn s6_rs(args: &[&str]) -> Outcome {
    finish(program("s6-rs").args(args))
}

#[test]
fn a_tree_of_links_goes_up_takes_commands_and_goes_down() {
    let links = Links::new();
    let scandir = Scandir::new();
    scandir.service("one", "exec sleep 1000");
    let mut tree = scandir.scan_with(&mut links.program("s6-svscan"));
    let first = tree.wait_up("one");
    let one = tree.service("one").into_string().unwrap();

    let supervisor = common::service::supervisor_of(&tree.service("one")).unwrap();
    let file = std::fs::read_link(format!("/proc/{supervisor}/exe")).unwrap();
    assert_eq!(file, bin_dir().join("s6-rs").canonicalize().unwrap(), "the supervisor is the multi-call binary");

    assert!(links.run("s6-svstat", &[&one]).out.starts_with(&format!("up (pid {first} ")));
    assert_eq!(links.run("s6-svc", &["-wd", "-T20000", "-d", &one]).code, 0);
    assert!(links.run("s6-svstat", &[&one]).out.starts_with("down (signal SIGTERM)"));
    assert_eq!(links.run("s6-svlisten1", &["-u", "-t20000", &one, "s6-svc", "-u", &one]).code, 0);
    assert_ne!(tree.wait_up("one"), first);

    let dir = tree.dir().into_string().unwrap();
    assert_eq!(links.run("s6-svscanctl", &["-t", &dir]).code, 0);
    until("the tree ends", || !tree.scanner.is_running());
    assert_eq!(links.run("s6-svok", &[&one]).code, 1);
}

#[test]
fn chain_loaders_find_each_other_by_their_links() {
    let links = Links::new();
    let locks = Scratch::new();
    let lock = |name| locks.path(name).display().to_string();
    let outcome = links.run("s6-setlock", &[&lock("a"), "s6-setlock", &lock("b"), "sh", "-c", "echo $PPID $0"]);
    assert_eq!(outcome.out, format!("{} sh\n", std::process::id()), "one process became the other: {outcome:?}");
    let outcome = links.run("s6-setlock", &[&lock("a"), "s6-setlock", &lock("b"), "s6-svok", "/nowhere"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (1, ""));
}

#[test]
fn a_link_answers_as_the_program_does() {
    let links = Links::new();
    let here = Scratch::new();
    for name in programs::all().map(|p| p.name) {
        let answer = |command: &mut Command| {
            let outcome = finish(command.arg("--no-such-option").current_dir(here.path("")).env("PATH", "/nowhere"));
            (outcome.code, outcome.out, outcome.err)
        };
        let separate = answer(&mut program(name));
        assert_eq!(answer(&mut links.program(name)), separate, "{name} as a link");
        assert_eq!(answer(program("s6-rs").arg(name)), separate, "s6-rs {name}");
    }
}

#[test]
fn the_name_may_be_the_first_argument_with_or_without_its_beginning() {
    for name in ["svok", "s6-svok"] {
        assert_eq!(s6_rs(&[name, "/nowhere"]).code, 1);
        let wrong = s6_rs(&[name]);
        assert_eq!((wrong.code, wrong.err.as_str()), (100, "s6-svok: usage: s6-svok servicedir\n"));
    }
    let renamed = Scratch::new();
    std::os::unix::fs::symlink(bin_dir().join("s6-rs"), renamed.path("supervision")).unwrap();
    assert_eq!(finish(Command::new(renamed.path("supervision")).args(["svok", "/nowhere"])).code, 1);
}

#[test]
fn without_a_name_it_lists_the_programs() {
    let nothing = s6_rs(&[]);
    assert_eq!((nothing.code, nothing.out.as_str()), (100, ""));
    let mut lines = nothing.err.lines();
    assert_eq!(lines.next(), Some("s6-rs: usage: s6-rs program [ argument... ]"));
    let listed: Vec<_> = lines.map(|line| line.trim_start().to_owned()).collect();
    assert_eq!(listed, programs::all().map(|p| p.usage).collect::<Vec<_>>());

    let unknown = s6_rs(&["no-such"]);
    assert_eq!(unknown.code, 100);
    assert_eq!(unknown.err, "s6-rs: fatal: no program is called no-such: without arguments, s6-rs lists them\n");
}
