//! The supervision tree and its clients (spec/supervision.md).

pub mod background;
pub mod background_watch;
pub mod listening;
pub mod permafailon;
pub mod supervise;
pub mod svc;
pub mod svdt;
pub mod svdt_clear;
pub mod svlisten;
pub mod svlisten1;
pub mod svok;
pub mod svscan;
pub mod svscanctl;
pub mod svstat;
pub mod svwait;
pub mod waiting;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &svscan::PROGRAM,
    &svscanctl::PROGRAM,
    &supervise::PROGRAM,
    &background_watch::PROGRAM,
    &svc::PROGRAM,
    &svok::PROGRAM,
    &svstat::PROGRAM,
    &svwait::PROGRAM,
    &svlisten::PROGRAM,
    &svlisten1::PROGRAM,
    &svdt::PROGRAM,
    &svdt_clear::PROGRAM,
    &permafailon::PROGRAM,
];
