//! Print syslog messages.
#![no_main]
s6::program!(s6::log::socklog);
