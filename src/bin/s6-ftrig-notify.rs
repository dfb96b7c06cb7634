//! Sends letters to the subscribers of a fifodir.
#![no_main]
s6::program!(s6::events::ftrig_notify);
