//! Takes a lock that lasts as long as the program it becomes.
#![no_main]
s6::program!(s6::chain::setlock);
