//! The clients of a supervisor: s6-svok and its kin.

mod common;

use common::{Scratch, run};

#[test]
fn svok_says_no_for_what_is_not_supervised() {
    let scratch = Scratch::new();
    assert_eq!(run("s6-svok", &[scratch.path("missing")]).code, 1);
    scratch.write("service/supervise/lock", "");
    assert_eq!(run("s6-svok", &[scratch.path("service")]).code, 1);
}

#[test]
fn svok_without_a_directory_is_wrong_usage() {
    let outcome = run::<&str>("s6-svok", &[]);
    assert_eq!((outcome.code, outcome.err.as_str()), (100, "s6-svok: usage: s6-svok servicedir\n"));
}
