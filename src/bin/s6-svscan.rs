//! Keeps a supervisor on every service directory of a scan directory.
#![no_main]
s6::program!(s6::supervision::svscan);
