//! Log standard input to rotated directories.
#![no_main]
s6::program!(s6::log::logger);
