//! Chain-loaders: programs that change one thing about themselves and become another (spec/logging-and-chainloaders.md
//! 7 to 14).

pub mod envdir;

pub mod setlock;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&setlock::PROGRAM];
