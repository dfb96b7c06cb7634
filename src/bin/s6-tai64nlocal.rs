//! Make the stamps of a log readable.
#![no_main]
s6::program!(s6::log::tai64nlocal);
