//! A service directory for the supervision tree of a user.
#![no_main]
s6::program!(s6::instance::usertree_maker);
