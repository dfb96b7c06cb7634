//! The unix super-server.
#![no_main]
s6::program!(s6::local::ipcserver);
