//! Holding descriptors for services that restart (spec/events-and-fdholding.md 3, 4).

pub mod fdholderd;
pub mod held;
pub mod protocol;
pub mod rights;
pub mod server;
pub mod session;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&fdholderd::PROGRAM];
