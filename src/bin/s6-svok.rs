//! Is a service directory supervised?
#![no_main]
s6::program!(s6::supervision::svok);
