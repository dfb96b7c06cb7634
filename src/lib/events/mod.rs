//! Fifodirs: directories in which subscribers put fifos and notifiers write letters (spec/events-and-fdholding.md 1).

pub mod fifodir;
pub mod subscription;
