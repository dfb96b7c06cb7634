//! Compiled access rules as a directory.
#![no_main]
s6::program!(s6::local::fs_from_cdb);
