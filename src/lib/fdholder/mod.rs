//! Holding descriptors for services that restart (spec/events-and-fdholding.md 3, 4).

pub mod client;
pub mod daemon;
pub mod delete;
pub mod dump;
pub mod fdholderd;
pub mod getdump;
pub mod held;
pub mod list;
pub mod protocol;
pub mod retrieve;
pub mod rights;
pub mod server;
pub mod session;
pub mod setdump;
pub mod store;
pub mod transferdump;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &fdholderd::PROGRAM,
    &daemon::PROGRAM,
    &store::PROGRAM,
    &retrieve::PROGRAM,
    &delete::PROGRAM,
    &list::PROGRAM,
    &getdump::PROGRAM,
    &setdump::PROGRAM,
    &transferdump::PROGRAM,
];
