//! Logging: s6-log and the programs around it (spec/logging-and-chainloaders.md 2 to 6, 15).

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[];
