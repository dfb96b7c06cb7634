//! Run a program with all held descriptors.
#![no_main]
s6::program!(s6::fdholder::getdump);
