//! Service links, instances, user trees (spec/local-services-and-instances.md 6 to 11).

mod link;
mod maker;
mod tree;
mod turn;
mod unlink;

pub mod alias;
pub mod alias_chpst;
pub mod alias_sv;
pub mod control;
pub mod create;
pub mod delete;
mod execline;
pub mod instance_maker;
pub mod list;
pub mod status;
pub mod svlink;
pub mod svperms;
pub mod svscanboot;
pub mod svunlink;
pub mod usertree_maker;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &svlink::PROGRAM,
    &svunlink::PROGRAM,
    &create::PROGRAM,
    &delete::PROGRAM,
    &list::PROGRAM,
    &control::PROGRAM,
    &status::PROGRAM,
    &alias::PROGRAM,
    &alias_sv::PROGRAM,
    &alias_chpst::PROGRAM,
    &svperms::PROGRAM,
    &svscanboot::PROGRAM,
    &instance_maker::PROGRAM,
    &usertree_maker::PROGRAM,
];
