//! The s6 supervision suite in Rust: the library behind all programs.
//!
//! # How the tree works
//!
//! A *service directory* has an executable `run`. [s6-supervise](supervision::supervise) starts it, learns from the
//! kernel when it dies, and starts it again; it is the parent of that one process, so nothing about the process has to
//! be guessed. Around it are three files and a directory: a fifo for commands (`supervise/control`), 35 bytes that say
//! what is going on (`supervise/status`), a lock that says that somebody is there (`supervise/lock`), and a
//! [fifodir](events) in which anybody may wait for the next event (`event`). A client needs no library and no bus: a
//! command is a letter written to the fifo, an event a letter read from one.
//!
//! A *scan directory* is a directory of service directories. [s6-svscan](supervision::svscan) keeps an s6-supervise on
//! each, and a pipe between each service and its logger, which it holds open so that neither loses anything when the
//! other dies. It may be process 1. All that it knows is which directories there are and which processes it started;
//! there is no state to save and no configuration to parse, and if a supervisor dies, the next one continues from the
//! service directory.
//!
//! Everything else is small programs. Some change one thing about themselves and execute another
//! ([chain-loaders](chain): user, environment, limits, locks), so that a `run` script is one line after the other;
//! some [log]; some [hold descriptors](fdholder) for services that restart, [serve](local) local sockets, or speak
//! the [notification protocol of systemd](notify).
//!
//! # How the code is laid out
//!
//! One module per program, with a [`PROGRAM`](error::Program) that says its name, its synopsis and what it does; a
//! program ends by returning an [`Exit`](error::Exit) or a [`Die`](error::Die), never in the middle. A long-lived
//! program is a *core*, which takes events and says what to do and can be tested without a kernel, and a *shell*, which
//! does it. [`sys`] is the only module with unsafe code: all that it hands out is owned, close-on-exec, and speaks
//! errno.

pub mod chain;
pub mod cli;
pub mod error;
pub mod events;
pub mod fdholder;
pub mod instance;
pub mod local;
pub mod log;
pub mod multicall;
pub mod notify;
pub mod programs;
pub mod readiness;
pub mod servicedir;
pub mod stamp;
pub mod start;
pub mod supervision;
#[allow(unsafe_code)]
pub mod sys;
pub mod tai;
pub mod text;
pub mod unixmessage;
pub mod users;
