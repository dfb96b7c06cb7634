//! The supervision tree and its clients (spec/supervision.md).

pub mod svok;
