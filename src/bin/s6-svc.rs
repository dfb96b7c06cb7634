//! Sends commands to supervisors.
#![no_main]
s6::program!(s6::supervision::svc);
