//! Local services over unix sockets, and privilege without suid (spec/local-services-and-instances.md 1 to 5).

pub mod access;
pub mod cdb;
pub mod ioconnect;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&ioconnect::PROGRAM];
