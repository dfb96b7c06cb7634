//! Become another user, by number.
#![no_main]
s6::program!(s6::chain::applyuidgid);
