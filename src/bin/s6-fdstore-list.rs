//! Lists the descriptors that a supervisor keeps for its service.
#![no_main]
s6::program!(s6::notify::fdstore_list);
