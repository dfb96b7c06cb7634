//! Who may see, control and listen to a service.
#![no_main]
s6::program!(s6::instance::svperms);
