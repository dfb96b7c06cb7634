//! A limit on the connections of one client.
#![no_main]
s6::program!(s6::local::connlimit);
