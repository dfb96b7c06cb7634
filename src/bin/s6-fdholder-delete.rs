//! Have a held descriptor dropped.
#![no_main]
s6::program!(s6::fdholder::delete);
