//! The end of an instance.
#![no_main]
s6::program!(s6::instance::delete);
