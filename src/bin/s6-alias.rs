//! The names of daemontools and runit.
#![no_main]
s6::program!(s6::instance::alias);
