//! Run a daemon that tells systemd's socket, and pass that on to a descriptor.
#![no_main]
s6::program!(s6::notify::fd_from_socket);
