//! A program that a server runs for its client.
#![no_main]
s6::program!(s6::local::sudo);
