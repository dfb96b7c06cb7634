//! Service links, instances, user trees (spec/local-services-and-instances.md 6 to 11).

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[];
