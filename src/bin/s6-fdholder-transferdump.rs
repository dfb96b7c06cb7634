//! Copy all held descriptors from one server to another.
#![no_main]
s6::program!(s6::fdholder::transferdump);
