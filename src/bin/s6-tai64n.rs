//! Put a stamp in front of each line.
#![no_main]
s6::program!(s6::log::tai64n);
