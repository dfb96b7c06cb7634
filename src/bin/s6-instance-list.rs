//! The instances of a service.
#![no_main]
s6::program!(s6::instance::list);
