//! Messages with descriptors over a unix stream socket: a header of six bytes (length of the body, number of
//! descriptors, big-endian), then the body (spec/events-and-fdholding.md 3).
//!
//! The descriptors of a message travel with its first byte. So while a message is still coming in, what lies in the
//! queue of descriptors is its own, and more than it announced, or any without a message, is a mistake of the peer
//! (EPROTO) that costs us nothing but closing them.

use std::collections::{VecDeque, vec_deque};
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{Errno, scm};

/// Bytes of a header.
const HEADER: usize = 6;
/// The most bytes of a body.
pub const MAX_BODY: usize = 1 << 28;
/// The most descriptors of a message.
pub const MAX_FDS: usize = scm::MAX_FDS;

/// How large a message may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most bytes of its body.
    pub body: usize,
    /// The most descriptors.
    pub fds: usize,
}

impl Limits {
    /// Those of the format.
    pub const FORMAT: Limits = Limits { body: MAX_BODY, fds: MAX_FDS };
}

/// Bytes that are read at once, unless a larger message is known to come.
const READ: usize = 512;
/// The most bytes that are read at once.
const LARGE_READ: usize = 65536;
/// An empty buffer of more than this is given back.
const KEPT: usize = 4096;

/// Length of the body and number of descriptors.
fn parse(header: &[u8; HEADER]) -> (usize, usize) {
    let [a, b, c, d, e, f] = *header;
    (u32::from_be_bytes([a, b, c, d]) as usize, u16::from_be_bytes([e, f]).into())
}

/// What came from a socket and is not taken yet. Of type `OwnedFd` anywhere but in tests.
#[derive(Debug)]
pub struct Inbox<F = OwnedFd> {
    bytes: Vec<u8>,
    /// How many of the bytes have been taken.
    taken: usize,
    fds: VecDeque<F>,
}

impl<F> Default for Inbox<F> {
    fn default() -> Self {
        Inbox { bytes: Vec::new(), taken: 0, fds: VecDeque::new() }
    }
}

/// One message.
#[derive(Debug)]
pub struct Message<'a, F = OwnedFd> {
    /// Its body.
    pub body: &'a [u8],
    /// Its descriptors. Those that are not taken are closed.
    pub fds: vec_deque::Drain<'a, F>,
}

impl<F> Inbox<F> {
    /// Whether nothing is there, not even a part of a message.
    pub fn is_empty(&self) -> bool {
        self.taken == self.bytes.len() && self.fds.is_empty()
    }

    /// The next whole message, if it is there. EPROTO if it is larger than `limits`, which are within those of the
    /// format, or its descriptors are not those that came; the connection is then of no more use.
    pub fn take(&mut self, limits: Limits) -> Result<Option<Message<'_, F>>, Errno> {
        let rest = &self.bytes[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk() else {
            return self.unless_more_fds_than(if rest.is_empty() { 0 } else { limits.fds });
        };
        let (length, fds) = parse(header);
        if length > limits.body || fds > limits.fds {
            return Err(Errno::EPROTO);
        }
        if rest.len() < length {
            return self.unless_more_fds_than(fds);
        }
        if self.fds.len() < fds || rest.len() == length && self.fds.len() > fds {
            return Err(Errno::EPROTO);
        }
        let start = self.taken + HEADER;
        self.taken = start + length;
        Ok(Some(Message { body: &self.bytes[start..self.taken], fds: self.fds.drain(..fds) }))
    }

    fn unless_more_fds_than(&self, most: usize) -> Result<Option<Message<'_, F>>, Errno> {
        if self.fds.len() > most { Err(Errno::EPROTO) } else { Ok(None) }
    }

    /// Makes room and says how much is to be read.
    fn make_room(&mut self) -> usize {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        let end = self.bytes.first_chunk().map_or(0, |header| HEADER + parse(header).0);
        end.saturating_sub(self.bytes.len()).clamp(READ, LARGE_READ)
    }
}

impl Inbox {
    /// Reads once. 0 is the end. EPROTO for control data that is not descriptors.
    ///
    /// To be called when [`Inbox::take`] has nothing more to give, which bounds what is held here: one message.
    pub fn fill(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        let room = self.make_room();
        let before = self.bytes.len();
        self.bytes.resize(before + room, 0);
        let received = scm::receive(socket, &mut self.bytes[before..], &mut self.fds);
        self.bytes.truncate(before + received.as_ref().map_or(0, |r| r.length));
        match received? {
            received if received.foreign || received.sender.is_some() => Err(Errno::EPROTO),
            received => Ok(received.length),
        }
    }
}

/// A message on its way out, or none.
#[derive(Debug)]
pub struct Outbox<D = OwnedFd> {
    bytes: Vec<u8>,
    /// How many of the bytes have been sent.
    sent: usize,
    /// Descriptors that have not been sent yet.
    fds: Vec<D>,
}

impl<D> Default for Outbox<D> {
    fn default() -> Self {
        Outbox { bytes: Vec::new(), sent: 0, fds: Vec::new() }
    }
}

impl<D> Outbox<D> {
    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Puts a message in, whose body is made of these parts. EPROTO if it is longer than a message can be.
    ///
    /// To be called when the outbox is empty: one message at a time is what bounds it.
    pub fn put(&mut self, body: &[&[u8]], fds: impl IntoIterator<Item = D>) -> Result<(), Errno> {
        debug_assert!(self.is_empty());
        self.fds = fds.into_iter().collect();
        self.bytes.clear();
        self.sent = 0;
        let length = body.iter().map(|part| part.len()).sum::<usize>();
        if length > MAX_BODY || self.fds.len() > MAX_FDS {
            self.fds.clear();
            return Err(Errno::EPROTO);
        }
        self.bytes.reserve_exact(HEADER + length);
        self.bytes.extend((length as u32).to_be_bytes());
        self.bytes.extend((self.fds.len() as u16).to_be_bytes());
        body.iter().for_each(|part| self.bytes.extend_from_slice(part));
        Ok(())
    }
}

impl<D: AsFd> Outbox<D> {
    /// Sends what can be sent now; whether that was all.
    pub fn flush(&mut self, socket: impl AsFd) -> Result<bool, Errno> {
        while !self.is_empty() {
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(D::as_fd).collect();
            match scm::send(socket.as_fd(), &[IoSlice::new(&self.bytes[self.sent..])], &fds) {
                Ok(sent) => self.sent += sent,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno),
            }
            self.fds.clear();
        }
        if self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{fd, socket};
    use proptest::prelude::*;
    use std::rc::Rc;

    #[test]
    fn messages_and_their_descriptors_pass_a_socket_that_is_too_small() {
        let (here, there) = socket::pair().unwrap();
        fd::set_nonblocking(&here, true).unwrap();
        fd::set_nonblocking(&there, true).unwrap();
        let mut outbox = Outbox::default();
        let mut inbox = Inbox::default();
        let body = vec![b'x'; 3_000_000];
        outbox.put(&[&body[..1], &body[1..]], vec![here.as_fd(); MAX_FDS]).unwrap();
        assert!(!outbox.flush(&here).unwrap());
        loop {
            if let Some(message) = inbox.take(Limits::FORMAT).unwrap() {
                assert_eq!((message.body.len(), message.fds.len()), (body.len(), MAX_FDS));
                break;
            }
            match inbox.fill(&there) {
                Err(Errno::EAGAIN) => drop(outbox.flush(&here).unwrap()),
                read => assert!(read.unwrap() > 0),
            }
        }
        assert!(outbox.is_empty() && inbox.is_empty());
    }

    #[test]
    fn what_no_message_can_hold_is_refused() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.put(&[], vec![(); MAX_FDS + 1]), Err(Errno::EPROTO));
        assert!(outbox.is_empty());
    }

    /// The bytes of a message, and what stands for its descriptors.
    fn encode<F>(body: &[u8], fds: Vec<F>) -> (Vec<u8>, Vec<F>) {
        let mut outbox = Outbox::default();
        outbox.put(&[body], fds).unwrap();
        (outbox.bytes, outbox.fds)
    }

    #[test]
    fn descriptors_must_be_those_announced() {
        for (header, fds, complete) in [
            (&b"\0\0\0\0\0\x01"[..], 0, true), // announced, did not come
            (b"", 1, true),                    // no message
            (b"\0\0\0\0\0\x01", 2, true),      // more than announced
            (b"\0\0\0\x05\0\x01", 2, true),    // more than announced, message incomplete
            (b"\0\0\0\x05\0\xfe", 0, true),    // more than a message can have
            (b"\x7f\0\0\0\0\0", 0, true),      // longer than allowed
            (b"\0\0\0", 254, true),            // more than any header will announce
            (b"\0\0\0", 253, false),
            (b"\0\0\0\x05\0\x01", 1, false),
        ] {
            let mut inbox = Inbox { bytes: header.to_vec(), taken: 0, fds: vec![(); fds].into() };
            let outcome = inbox.take(Limits { body: 1000, fds: MAX_FDS }).map(|message| message.is_some());
            assert_eq!(outcome, if complete { Err(Errno::EPROTO) } else { Ok(false) }, "{header:?}");
        }
    }

    proptest! {
        /// However the bytes are cut, the same messages come out, each with its own descriptors.
        #[test]
        fn messages_survive_any_cut(
            messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0..4usize), 0..12),
            cuts in prop::collection::vec(1..30usize, 1..100),
        ) {
            let (mut bytes, mut starts) = (Vec::new(), Vec::new());
            for (number, (body, fds)) in messages.iter().enumerate() {
                starts.push((bytes.len(), vec![number; *fds]));
                bytes.extend(encode(body, vec![number; *fds]).0);
            }
            let mut inbox = Inbox::<usize>::default();
            let (mut position, mut count) = (0, 0);
            for cut in cuts.iter().cycle() {
                while let Some(message) = inbox.take(Limits { body: 40, fds: 4 }).unwrap() {
                    prop_assert_eq!(message.body, &messages[count].0);
                    prop_assert_eq!(message.fds.collect::<Vec<_>>(), vec![count; messages[count].1]);
                    count += 1;
                }
                if position == bytes.len() {
                    break;
                }
                let end = (position + cut).min(bytes.len());
                inbox.make_room();
                inbox.bytes.extend(&bytes[position..end]);
                let started = starts.iter().filter(|(start, _)| (position..end).contains(start));
                inbox.fds.extend(started.flat_map(|(_, fds)| fds));
                position = end;
            }
            prop_assert_eq!(count, messages.len());
            prop_assert!(inbox.is_empty());
        }

        /// Whatever comes, little is held, and every descriptor is handed over, closed, or still held.
        #[test]
        fn nonsense_is_bounded_and_leaks_nothing(
            reads in prop::collection::vec((prop::collection::vec(prop::sample::select(vec![0u8, 0, 0, 1, 9, 255]), 0..50), 0..MAX_FDS), 0..20), most in 0..=MAX_FDS,
        ) {
            let token = Rc::new(());
            let limits = Limits { body: 60, fds: most };
            let mut inbox = Inbox::<Rc<()>>::default();
            'reads: for (bytes, fds) in reads {
                inbox.make_room();
                inbox.bytes.extend(bytes);
                inbox.fds.extend(vec![token.clone(); fds]);
                loop {
                    match inbox.take(limits) {
                        Ok(Some(message)) => prop_assert!(message.body.len() <= 60 && message.fds.len() <= most),
                        Ok(None) => break,
                        Err(errno) => {
                            prop_assert_eq!(errno, Errno::EPROTO);
                            break 'reads;
                        }
                    }
                }
                prop_assert!(inbox.fds.len() <= most && inbox.bytes.len() - inbox.taken < 60 + HEADER);
            }
            prop_assert_eq!(Rc::strong_count(&token), 1 + inbox.fds.len());
        }
    }
}
