//! Change resource limits.
#![no_main]
s6::program!(s6::chain::softlimit);
