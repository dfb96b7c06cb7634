//! Every program in one file.
#![no_main]
s6::program!(choose s6::multicall::choose);
