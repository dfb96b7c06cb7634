//! Keeps one service running.
#![no_main]
s6::program!(s6::supervision::supervise);
