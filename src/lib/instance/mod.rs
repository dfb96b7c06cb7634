//! Service links, instances, user trees (spec/local-services-and-instances.md 6 to 11).

mod link;
mod tree;
mod turn;
mod unlink;

pub mod create;
pub mod delete;
pub mod list;
pub mod svlink;
pub mod svunlink;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] =
    &[&svlink::PROGRAM, &svunlink::PROGRAM, &create::PROGRAM, &delete::PROGRAM, &list::PROGRAM];
