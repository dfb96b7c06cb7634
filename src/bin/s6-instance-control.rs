//! Commands to the supervisor of an instance.
#![no_main]
s6::program!(s6::instance::control);
