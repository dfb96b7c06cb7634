//! Logging: s6-log and the programs around it (spec/logging-and-chainloaders.md 2 to 6, 15).

pub mod automaton;
pub mod ere;
pub mod filter;
pub mod human;
pub mod lines;
pub mod logdir;
pub mod logger;
pub mod outlet;
pub mod priority;
pub mod rotate;
pub mod script;
pub mod select;
pub mod socklog;
pub mod tai64n;
pub mod tai64nlocal;
pub mod ucspilogd;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] =
    &[&logger::PROGRAM, &tai64n::PROGRAM, &tai64nlocal::PROGRAM, &socklog::PROGRAM, &ucspilogd::PROGRAM];
