//! Run a program with a held descriptor as its standard input.
#![no_main]
s6::program!(s6::fdholder::retrieve);
