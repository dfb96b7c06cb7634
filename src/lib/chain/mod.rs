//! Chain-loaders: programs that change one thing about themselves and become another (spec/logging-and-chainloaders.md
//! 7 to 14).

pub mod applyuidgid;
pub mod envdir;
pub mod envuidgid;
pub mod fghack;
pub mod identity;
pub mod setlock;
pub mod setsid;
pub mod setuidgid;
pub mod softlimit;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &setlock::PROGRAM,
    &setuidgid::PROGRAM,
    &envuidgid::PROGRAM,
    &applyuidgid::PROGRAM,
    &envdir::PROGRAM,
    &softlimit::PROGRAM,
    &setsid::PROGRAM,
    &fghack::PROGRAM,
];
