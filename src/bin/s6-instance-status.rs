//! The status of an instance.
#![no_main]
s6::program!(s6::instance::status);
