//! Runs a service with what an fd-holder has of its store.
#![no_main]
s6::program!(s6::notify::fdstore_restore);
