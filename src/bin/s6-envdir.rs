//! Change the environment as a directory says.
#![no_main]
s6::program!(s6::chain::envdir);
