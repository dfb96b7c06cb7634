//! Local services over unix sockets, and privilege without suid (spec/local-services-and-instances.md 1 to 5).

pub mod access;
pub mod cdb;
pub mod cdb_from_fs;
pub mod connlimit;
pub mod fs_from_cdb;
pub mod ioconnect;
pub mod ipcclient;
pub mod ipcserver;
pub mod ipcserver_access;
pub mod ipcserverd;
pub mod socketbinder;
pub mod sudo;
pub mod sudoc;
pub mod sudod;

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[
    &ipcclient::PROGRAM,
    &ipcserver::PROGRAM,
    &ipcserverd::PROGRAM,
    &socketbinder::PROGRAM,
    &ipcserver_access::PROGRAM,
    &sudo::PROGRAM,
    &sudoc::PROGRAM,
    &sudod::PROGRAM,
    &cdb_from_fs::PROGRAM,
    &fs_from_cdb::PROGRAM,
    &connlimit::PROGRAM,
    &ioconnect::PROGRAM,
];
