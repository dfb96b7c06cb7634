//! Starts a program and waits for what it does to a service.
#![no_main]
s6::program!(s6::supervision::svlisten1);
