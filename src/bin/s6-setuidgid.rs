//! Become another user, by name.
#![no_main]
s6::program!(s6::chain::setuidgid);
