//! The supervision tree and its clients (spec/supervision.md).

pub mod background;
pub mod supervise;
pub mod svok;
pub mod svscan;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&svscan::PROGRAM, &supervise::PROGRAM, &svok::PROGRAM];
