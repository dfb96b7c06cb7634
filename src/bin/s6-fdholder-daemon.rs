//! Hold descriptors, listening on a socket in the file system.
#![no_main]
s6::program!(s6::fdholder::daemon);
