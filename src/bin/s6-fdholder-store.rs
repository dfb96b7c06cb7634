//! Have a descriptor held.
#![no_main]
s6::program!(s6::fdholder::store);
