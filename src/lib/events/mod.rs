//! Fifodirs: directories in which subscribers put fifos and notifiers write letters (spec/events-and-fdholding.md 1).

pub mod cleanfifodir;
pub mod fifodir;
pub mod ftrig;
pub mod ftrig_listen;
pub mod ftrig_listen1;
pub mod ftrig_notify;
pub mod ftrig_wait;
pub mod ftrigr;
pub mod ftrigrd;
pub mod matcher;
pub mod mkfifodir;
pub mod subscription;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &cleanfifodir::PROGRAM,
    &ftrig_listen::PROGRAM,
    &ftrig_listen1::PROGRAM,
    &ftrig_notify::PROGRAM,
    &ftrig_wait::PROGRAM,
    &ftrigrd::PROGRAM,
    &mkfifodir::PROGRAM,
];
