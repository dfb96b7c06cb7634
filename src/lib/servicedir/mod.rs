//! Service and scan directories: names, small files, the status and death-tally codecs, the control fifos
//! (spec/supervision.md 1 and 2).

pub mod control;
pub mod files;
pub mod status;
pub mod tally;
