//! chpst of runit.
#![no_main]
s6::program!(s6::instance::alias_chpst);
