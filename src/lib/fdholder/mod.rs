//! Holding descriptors for services that restart (spec/events-and-fdholding.md 3, 4).

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[];
