//! Access rules compiled.
#![no_main]
s6::program!(s6::local::cdb_from_fs);
