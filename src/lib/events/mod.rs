//! Fifodirs: directories in which subscribers put fifos and notifiers write letters (spec/events-and-fdholding.md 1).

pub mod fifodir;
pub mod matcher;
pub mod subscription;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[];
