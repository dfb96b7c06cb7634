//! A service taken out of a live scan directory.
#![no_main]
s6::program!(s6::instance::svunlink);
