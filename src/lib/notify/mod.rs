//! Readiness and the notification protocol of systemd (spec/sd-notify-and-fdstore.md).

pub mod checks;
pub mod fd_from_socket;
pub mod helper;
pub mod notifyoncheck;
pub mod socket_from_fd;
pub mod client;
pub mod fdstore_list;
pub mod grammar;
pub mod receiver;
pub mod report;
pub mod sdnotify;
pub mod store;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&fd_from_socket::PROGRAM, &notifyoncheck::PROGRAM, &sdnotify::PROGRAM, &socket_from_fd::PROGRAM];
pub const PROGRAMS: &[&Program] = &[&fd_from_socket::PROGRAM, &notifyoncheck::PROGRAM, &socket_from_fd::PROGRAM];
pub const PROGRAMS: &[&Program] = &[&sdnotify::PROGRAM];
pub const PROGRAMS: &[&Program] = &[&sdnotify::PROGRAM, &fdstore_list::PROGRAM];
