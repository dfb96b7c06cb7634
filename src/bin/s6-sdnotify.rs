//! Tells the supervisor what systemd-notify tells systemd.
#![no_main]
s6::program!(s6::notify::sdnotify);
