//! Waits for letters in a fifodir.
#![no_main]
s6::program!(s6::events::ftrig_wait);
