//! Make syslog messages readable.
#![no_main]
s6::program!(s6::log::ucspilogd);
