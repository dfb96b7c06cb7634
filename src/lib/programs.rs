//! Every program of the suite, family by family: what the multi-call binary dispatches on and the tests walk over.

use crate::error::Program;

/// The families' lists.
pub const FAMILIES: &[&[&Program]] = &[
    crate::supervision::PROGRAMS,
    crate::events::PROGRAMS,
    crate::notify::PROGRAMS,
    crate::fdholder::PROGRAMS,
    crate::log::PROGRAMS,
    crate::chain::PROGRAMS,
    crate::local::PROGRAMS,
    crate::instance::PROGRAMS,
];

/// All programs.
pub fn all() -> impl Iterator<Item = &'static Program> {
    FAMILIES.iter().copied().flatten().copied()
}

/// The program of that name, with or without its `s6-`.
pub fn find(name: &[u8]) -> Option<&'static Program> {
    all().find(|p| p.name.as_bytes() == name || p.name.as_bytes().strip_prefix(b"s6-") == Some(name))
}
