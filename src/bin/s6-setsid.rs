//! Leave the session or the process group.
#![no_main]
s6::program!(s6::chain::setsid);
