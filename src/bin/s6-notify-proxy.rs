//! Runs a daemon that notifies under a supervisor that does not listen.
#![no_main]
s6::program!(s6::notify::notify_proxy);
