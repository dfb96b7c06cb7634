//! What clients and server say to each other: the bodies of messages (spec/events-and-fdholding.md 4).

use std::ffi::CStr;

use crate::fdholder::held::Held;
use crate::tai::{PACKED, Tai64n};
use crate::unixmessage::MAX_FDS;

/// The most bytes of an identifier.
pub const MAX_ID: usize = 255;
/// The most bytes of an entry in a dump: limit, length, identifier, NUL.
const MAX_ENTRY: usize = PACKED + 1 + MAX_ID + 1;
/// The most bytes of a request, dump data aside.
pub const MAX_REQUEST: usize = 1 + MAX_ENTRY;
/// The most bytes of dump data.
pub const MAX_DUMP_DATA: usize = 1 + MAX_FDS * MAX_ENTRY;

/// A request, as it stands in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Keep the one descriptor that comes with this.
    Store {
        /// Until when.
        limit: Tai64n,
        /// Under which name.
        id: &'a CStr,
    },
    /// Drop a descriptor.
    Delete {
        /// Its name.
        id: &'a CStr,
    },
    /// Give a descriptor.
    Retrieve {
        /// Its name.
        id: &'a CStr,
        /// Whether to drop it then.
        delete: bool,
    },
    /// Give the names.
    List,
    /// Give everything.
    GetDump,
    /// Expect so many descriptors.
    SetDump {
        /// How many.
        total: u32,
    },
    /// Some of them: one descriptor for each entry, at least one.
    DumpData(Entries<'a>),
}

/// Understands a request that came with so many descriptors. `None`: a mistake of the client.
pub fn parse(body: &[u8], fds: usize) -> Option<Request<'_>> {
    let (letter, mut rest) = body.split_first()?;
    let request = match (letter, fds) {
        (b'S', 1) => Request::Store { limit: take_limit(&mut rest)?, id: take_id(&mut rest)? },
        (b'D', 0) => Request::Delete { id: take_id(&mut rest)? },
        (b'R', 0) => {
            let (delete, after) = rest.split_first()?;
            rest = after;
            Request::Retrieve { delete: *delete != 0, id: take_id(&mut rest)? }
        }
        (b'L', 0) => Request::List,
        (b'?', 0) => Request::GetDump,
        (b'!', 0) => Request::SetDump { total: take_u32(&mut rest)? },
        (b'.', 1..=MAX_FDS) => Request::DumpData(Entries::parse(std::mem::take(&mut rest), fds)?),
        _ => return None,
    };
    rest.is_empty().then_some(request)
}

/// Well-formed entries of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Exactly `count` entries, or nothing.
    pub fn parse(bytes: &'a [u8], count: usize) -> Option<Self> {
        let mut entries = Entries(bytes);
        let well_formed = (0..count).all(|_| entries.next().is_some()) && entries.0.is_empty();
        well_formed.then_some(Entries(bytes))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Tai64n, &'a CStr);

    fn next(&mut self) -> Option<Self::Item> {
        Some((take_limit(&mut self.0)?, take_id(&mut self.0)?))
    }
}

fn take_limit(bytes: &mut &[u8]) -> Option<Tai64n> {
    let (limit, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(Tai64n::unpack(limit))
}

/// A length of 1 to 255, so many bytes other than NUL, a NUL.
fn take_id<'a>(bytes: &mut &'a [u8]) -> Option<&'a CStr> {
    let (length, rest) = bytes.split_first().filter(|(length, _)| **length > 0)?;
    let (id, rest) = rest.split_at_checked(usize::from(*length) + 1)?;
    *bytes = rest;
    CStr::from_bytes_with_nul(id).ok()
}

/// A number in the next four bytes.
pub fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*number))
}

/// An identifier as it stands in a request, its length before it; `None` if it is too long. (An empty one can be
/// said: the server drops who says it.)
pub fn put_id(body: &mut Vec<u8>, id: &CStr) -> Option<()> {
    body.push(u8::try_from(id.count_bytes()).ok()?);
    body.extend(id.to_bytes_with_nul());
    Some(())
}

/// How many messages carry a dump of so many descriptors.
pub fn messages(total: u32) -> u32 {
    total.div_ceil(MAX_FDS as u32)
}

/// Appends one entry of a dump.
pub fn put_entry<F>(body: &mut Vec<u8>, held: &Held<F>) -> Option<()> {
    body.extend(held.limit.pack());
    put_id(body, &held.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: &[u8; 12] = b"\x40\0\0\0\0\0\0\x01\0\0\0\x02";

    fn with_limit(letter: &[u8], rest: &[u8]) -> Vec<u8> {
        [letter, LIMIT, rest].concat()
    }

    #[test]
    fn requests_are_understood() {
        let limit = Tai64n::unpack(LIMIT);
        let store = with_limit(b"S", b"\x02id\0");
        assert_eq!(parse(&store, 1), Some(Request::Store { limit, id: c"id" }));
        assert_eq!(parse(b"D\x01x\0", 0), Some(Request::Delete { id: c"x" }));
        assert_eq!(parse(b"R\x07\x01x\0", 0), Some(Request::Retrieve { id: c"x", delete: true }));
        assert_eq!(parse(b"L", 0), Some(Request::List));
        assert_eq!(parse(b"?", 0), Some(Request::GetDump));
        assert_eq!(parse(b"!\0\0\x01\x02", 0), Some(Request::SetDump { total: 258 }));
        let data = [with_limit(b".", b"\x01a\0"), with_limit(b"", b"\x01b\0")].concat();
        let Some(Request::DumpData(entries)) = parse(&data, 2) else { panic!("not understood") };
        assert_eq!(entries.collect::<Vec<_>>(), [(limit, c"a"), (limit, c"b")]);
    }

    #[test]
    fn lengths_and_numbers_of_descriptors_are_exact() {
        for (body, fds) in [
            (&b""[..], 0),
            (b"L", 1),
            (b"Lx", 0),
            (b"Z", 0),
            (b"D\0\0", 0),
            (b"D\x02x\0", 0),
            (b"D\x01xy", 0),
            (b"D\x01x\0z", 0),
            (b"D\x03x\0y\0", 0),
            (b"R\x01x\0", 0),
            (b"!\0\0\0", 0),
            (b"!\0\0\0\0\0", 0),
            (b".", 0),
            (b".", 1),
            (&with_limit(b".", b"\x01a\0"), 2),
            (&with_limit(b".", b"\x01a\0x"), 1),
            (&with_limit(b"S", b"\x01a\0"), 0),
            (&with_limit(b"S", b"\x01a\0"), 2),
        ] {
            assert_eq!(parse(body, fds), None, "{body:?} {fds}");
        }
    }

    #[test]
    fn a_message_carries_253_entries_of_a_dump() {
        for (total, want) in [(0, 0), (1, 1), (253, 1), (254, 2), (506, 2), (507, 3), (u32::MAX, 16976156)] {
            assert_eq!(messages(total), want);
        }
    }

    #[test]
    fn the_longest_requests_are_as_long_as_the_limits_say() {
        let id = [&b"\xff"[..], &[b'x'; 255], b"\0"].concat();
        assert_eq!(with_limit(b"S", &id).len(), MAX_REQUEST);
        let data = [&b"."[..], &with_limit(b"", &id).repeat(253)].concat();
        assert_eq!(data.len(), MAX_DUMP_DATA);
        assert!(parse(&data, 253).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(
            letter in prop::sample::select(b"SDRL?!.Z".to_vec()), rest in any::<Vec<u8>>(), fds in 0..4usize,
        ) {
            let _ = parse(&[vec![letter], rest].concat(), fds);
        }
    }
}
