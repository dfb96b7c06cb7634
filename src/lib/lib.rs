//! The s6 supervision suite in Rust: the library behind all programs.

pub mod chain;
pub mod cli;
pub mod error;
pub mod events;
pub mod fdholder;
pub mod instance;
pub mod local;
pub mod log;
pub mod notify;
pub mod programs;
pub mod servicedir;
pub mod supervision;
#[allow(unsafe_code)]
pub mod sys;
pub mod tai;
pub mod text;
