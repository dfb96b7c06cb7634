//! Put the numbers of an account in the environment.
#![no_main]
s6::program!(s6::chain::envuidgid);
