//! Local services over unix sockets, and privilege without suid (spec/local-services-and-instances.md 1 to 5).

pub mod access;
pub mod cdb;
pub mod ioconnect;
pub mod connlimit;
pub mod ipcclient;
pub mod ipcserver;
pub mod ipcserverd;
pub mod socketbinder;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[&ioconnect::PROGRAM];
pub const PROGRAMS: &[&Program] =
    &[&ipcclient::PROGRAM, &ipcserver::PROGRAM, &ipcserverd::PROGRAM, &socketbinder::PROGRAM, &connlimit::PROGRAM];
