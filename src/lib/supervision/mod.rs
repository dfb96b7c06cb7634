//! The supervision tree and its clients (spec/supervision.md).

pub mod supervise;
pub mod svok;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&supervise::PROGRAM, &svok::PROGRAM];
