//! Carry bytes both ways between the standard descriptors and two others.
#![no_main]
s6::program!(s6::local::ioconnect);
