//! Starts a program and waits for what it does to services.
#![no_main]
s6::program!(s6::supervision::svlisten);
