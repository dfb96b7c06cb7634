//! Follows a daemon that forks itself into the background.
#![no_main]
s6::program!(s6::supervision::background_watch);
