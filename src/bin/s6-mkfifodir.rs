//! Makes a fifodir.
#![no_main]
s6::program!(s6::events::mkfifodir);
