//! Removes from a fifodir the fifos of subscribers that are gone.
#![no_main]
s6::program!(s6::events::cleanfifodir);
