//! Who may connect, by rules.
#![no_main]
s6::program!(s6::local::ipcserver_access);
