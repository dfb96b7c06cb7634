//! The s6 supervision suite in Rust: the library behind all programs.

pub mod cli;
pub mod error;
pub mod events;
pub mod servicedir;
pub mod supervision;
#[allow(unsafe_code)]
pub mod sys;
pub mod tai;
pub mod text;
