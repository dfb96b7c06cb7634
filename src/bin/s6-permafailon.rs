//! In a finish script, gives a service up that died too often.
#![no_main]
s6::program!(s6::supervision::permafailon);
