//! Readiness and the notification protocol of systemd (spec/sd-notify-and-fdstore.md).

use crate::error::Program;

/// The programs of this family.
pub const PROGRAMS: &[&Program] = &[];
