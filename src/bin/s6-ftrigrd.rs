//! Subscribe to fifodirs for a program of the C suite.
#![no_main]
s6::program!(s6::events::ftrigrd);
