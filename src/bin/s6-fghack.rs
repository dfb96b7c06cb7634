//! Keep a daemon that forks in the foreground.
#![no_main]
s6::program!(s6::chain::fghack);
