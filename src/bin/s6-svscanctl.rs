//! Sends commands to a scanner.
#![no_main]
s6::program!(s6::supervision::svscanctl);
