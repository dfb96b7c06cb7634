//! Waits for services.
#![no_main]
s6::program!(s6::supervision::svwait);
