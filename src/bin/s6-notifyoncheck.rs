//! Run a daemon, and say that it is ready when a check succeeds.
#![no_main]
s6::program!(s6::notify::notifyoncheck);
