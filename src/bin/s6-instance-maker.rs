//! A service directory for a service that has instances.
#![no_main]
s6::program!(s6::instance::instance_maker);
