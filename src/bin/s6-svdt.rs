//! Prints the recorded deaths of a service.
#![no_main]
s6::program!(s6::supervision::svdt);
