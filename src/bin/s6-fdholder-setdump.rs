//! Have all descriptors of a dump held.
#![no_main]
s6::program!(s6::fdholder::setdump);
