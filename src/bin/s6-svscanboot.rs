//! A supervision tree with a logger for what has none.
#![no_main]
s6::program!(s6::instance::svscanboot);
