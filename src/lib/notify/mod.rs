//! Readiness and the notification protocol of systemd (spec/sd-notify-and-fdstore.md).

pub mod checks;
pub mod client;
pub mod fd_from_socket;
pub mod fdstore_list;
pub mod fdstore_restore;
pub mod grammar;
pub mod helper;
pub mod mirror;
pub mod notify_proxy;
pub mod notifyoncheck;
pub mod receiver;
pub mod report;
pub mod sdnotify;
pub mod socket_from_fd;
pub mod store;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &notifyoncheck::PROGRAM,
    &fd_from_socket::PROGRAM,
    &socket_from_fd::PROGRAM,
    &sdnotify::PROGRAM,
    &fdstore_list::PROGRAM,
    &fdstore_restore::PROGRAM,
    &notify_proxy::PROGRAM,
];
