//! A service added to a live scan directory.
#![no_main]
s6::program!(s6::instance::svlink);
