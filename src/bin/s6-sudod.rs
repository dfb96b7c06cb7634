//! The server's end of s6-sudo.
#![no_main]
s6::program!(s6::local::sudod);
