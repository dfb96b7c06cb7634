//! Hold descriptors for services that restart.
#![no_main]
s6::program!(s6::fdholder::fdholderd);
