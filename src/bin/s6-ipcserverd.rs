//! The unix super-server: one process per connection.
#![no_main]
s6::program!(s6::local::ipcserverd);
