//! Run a daemon that writes a newline, and tell systemd's socket.
#![no_main]
s6::program!(s6::notify::socket_from_fd);
