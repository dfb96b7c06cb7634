//! List the names of held descriptors.
#![no_main]
s6::program!(s6::fdholder::list);
