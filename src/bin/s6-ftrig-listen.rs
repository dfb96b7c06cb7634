//! Starts a program and waits for letters in several fifodirs.
#![no_main]
s6::program!(s6::events::ftrig_listen);
