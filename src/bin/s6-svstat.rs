//! Prints the state of a service.
#![no_main]
s6::program!(s6::supervision::svstat);
