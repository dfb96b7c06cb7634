//! A connection to a unix socket for a program.
#![no_main]
s6::program!(s6::local::ipcclient);
