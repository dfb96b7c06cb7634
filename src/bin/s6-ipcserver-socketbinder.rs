//! A bound unix socket for a program.
#![no_main]
s6::program!(s6::local::socketbinder);
