//! The core of the server: one client's conversation. A request comes in with its descriptors, an answer goes out,
//! and descriptors are kept or dropped. No input, no output, no clock.

use std::os::raw::c_int;

use crate::fdholder::held::{Holdings, Shared};
use crate::fdholder::protocol::{self, MAX_DUMP_DATA, MAX_REQUEST, Request};
use crate::fdholder::rights::Rights;
use crate::sys::Errno;
use crate::unixmessage::{Limits, MAX_FDS};

/// A client, as far as what it said decides what it may say next.
#[derive(Debug)]
pub struct Session {
    rights: Rights,
    /// Descriptors of an announced dump that have not come yet. While there are any, nothing else is understood.
    missing: u32,
}

/// What to send to a client.
#[derive(Debug)]
pub enum Answer<F> {
    /// One byte.
    Code(u8),
    /// This body.
    Body(Vec<u8>),
    /// Success, with this descriptor.
    Descriptor(Shared<F>),
    /// Success, then all of these, in messages of 253.
    Dump(Vec<Shared<F>>),
}

/// A mistake of the client, which is to be dropped without an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake;

impl Session {
    /// A client that has said nothing yet.
    pub fn new(rights: Rights) -> Self {
        Session { rights, missing: 0 }
    }

    /// How large the next request can be. So a client that may not set a dump cannot make us hold more than one
    /// descriptor before we know what it wants.
    pub fn limits(&self) -> Limits {
        match self.missing {
            0 => Limits { body: MAX_REQUEST, fds: 1 },
            missing => Limits { body: MAX_DUMP_DATA, fds: MAX_FDS.min(missing as usize) },
        }
    }

    /// Does what a request asks for. Descriptors that are not kept are dropped.
    pub fn answer<F>(
        &mut self,
        holdings: &mut Holdings<F>,
        body: &[u8],
        mut fds: impl ExactSizeIterator<Item = F>,
    ) -> Result<Answer<F>, Mistake> {
        let request = protocol::parse(body, fds.len()).ok_or(Mistake)?;
        if (self.missing > 0) != matches!(request, Request::DumpData(_)) {
            return Err(Mistake);
        }
        let rights = &self.rights;
        let allowed = |right: bool| if right { Ok(()) } else { Err(Errno::EPERM) };
        let answer = match request {
            Request::Store { limit, id } => allowed(rights.may_store(id)).and_then(|()| match fds.next() {
                Some(fd) => holdings.add(id, limit, fd).map(|()| Answer::Code(0)),
                None => Err(Errno::EBADF),
            }),
            Request::Delete { id } => allowed(rights.may_store(id)).and_then(|()| match holdings.remove(id) {
                true => Ok(Answer::Code(0)),
                false => Err(Errno::ENOENT),
            }),
            Request::Retrieve { id, delete } => allowed(rights.may_retrieve(id) && (!delete || rights.may_store(id)))
                .and_then(|()| {
                    let found = holdings.get(id).ok_or(Errno::ENOENT)?;
                    if delete {
                        holdings.remove(id);
                    }
                    Ok(Answer::Descriptor(found))
                }),
            Request::List => allowed(rights.list).map(|()| Answer::Body(list(holdings))),
            Request::GetDump => allowed(rights.get_dump).map(|()| Answer::Dump(holdings.iter().cloned().collect())),
            Request::SetDump { total } => {
                let outcome = allowed(rights.set_dump).and_then(|()| holdings.check_room(total as usize));
                outcome.map(|()| {
                    self.missing = total;
                    Answer::Body([&[0][..], &protocol::messages(total).to_be_bytes()].concat())
                })
            }
            Request::DumpData(entries) => {
                let count = fds.len();
                self.missing = self.missing.checked_sub(count as u32).ok_or(Mistake)?;
                match holdings.check_room(count) {
                    Ok(()) => {
                        entries.zip(fds).for_each(|((limit, id), fd)| holdings.put(id, limit, fd));
                        Ok(Answer::Code(if self.missing > 0 { code(Errno::EAGAIN) } else { 0 }))
                    }
                    Err(errno) => {
                        self.missing += count as u32; // they did not come after all
                        Err(errno)
                    }
                }
            }
        };
        Ok(answer.unwrap_or_else(|errno| Answer::Code(code(errno))))
    }
}

/// An errno as it is sent: the host's number.
fn code(errno: Errno) -> u8 {
    (errno as c_int) as u8
}

/// `00`, how many, each name with its NUL.
fn list<F>(holdings: &Holdings<F>) -> Vec<u8> {
    let mut body = vec![0];
    body.extend((holdings.len() as u32).to_be_bytes());
    holdings.iter().for_each(|shared| body.extend(shared.0.id.to_bytes_with_nul()));
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::access::Allow;
    use crate::tai::Tai64n;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    fn rights(env: &[u8]) -> Rights {
        Rights::from_rule(&Allow { env: env.to_vec(), exec: Vec::new() }).unwrap()
    }

    const ALL: &[u8] = b"S6_FDHOLDER_STORE_REGEX=\0S6_FDHOLDER_RETRIEVE_REGEX=\0S6_FDHOLDER_LIST=\0\
        S6_FDHOLDER_GETDUMP=\0S6_FDHOLDER_SETDUMP=\0";

    /// The body of an answer; what comes as descriptors, or as a dump, is put behind it.
    fn said(answer: Result<Answer<u32>, Mistake>) -> Option<(Vec<u8>, Vec<u32>)> {
        Some(match answer.ok()? {
            Answer::Code(code) => (vec![code], vec![]),
            Answer::Body(body) => (body, vec![]),
            Answer::Descriptor(shared) => (vec![0], vec![shared.0.fd]),
            Answer::Dump(all) => (vec![0], all.iter().map(|shared| shared.0.fd).collect()),
        })
    }

    fn entry(limit: u64, id: u8) -> Vec<u8> {
        [&Tai64n { seconds: limit, nanoseconds: 0 }.pack()[..], &[1, id, 0]].concat()
    }

    fn ask(
        session: &mut Session,
        holdings: &mut Holdings<u32>,
        body: &[u8],
        fds: &[u32],
    ) -> Option<(Vec<u8>, Vec<u32>)> {
        said(session.answer(holdings, body, fds.iter().copied()))
    }

    #[test]
    fn while_a_dump_is_expected_nothing_else_is_understood() {
        let (mut holdings, mut session) = (Holdings::new(9), Session::new(rights(ALL)));
        let dot = |ids: &[u8]| [b".".to_vec(), ids.iter().flat_map(|&id| entry(9, id)).collect()].concat();
        assert_eq!(ask(&mut session, &mut holdings, &dot(b"a"), &[1]), None, "not announced");
        assert_eq!(ask(&mut session, &mut holdings, b"!\0\0\0\x03", &[]), Some((b"\0\0\0\0\x01".to_vec(), vec![])));
        assert_eq!(session.limits(), Limits { body: MAX_DUMP_DATA, fds: 3 });
        assert_eq!(ask(&mut session, &mut holdings, &dot(b"aa"), &[1, 2]), Some((vec![11], vec![])));
        assert_eq!(ask(&mut session, &mut holdings, b"L", &[]), None);
        assert_eq!(ask(&mut session, &mut holdings, &dot(b"b"), &[3]), Some((vec![0], vec![])));
        assert_eq!(ask(&mut session, &mut holdings, b"?", &[]), Some((vec![0], vec![2, 3])));
        assert_eq!(session.limits(), Limits { body: MAX_REQUEST, fds: 1 });
    }

    #[test]
    fn more_than_announced_is_a_mistake_and_stores_nothing() {
        let (mut holdings, mut session) = (Holdings::new(9), Session::new(rights(ALL)));
        ask(&mut session, &mut holdings, b"!\0\0\0\x01", &[]).unwrap();
        let two = [&b"."[..], &entry(9, b'a'), &entry(9, b'b')].concat();
        assert_eq!(ask(&mut session, &mut holdings, &two, &[1, 2]), None);
        assert!(holdings.is_empty());
    }

    #[test]
    fn room_is_checked_again_when_the_dump_comes() {
        let mut holdings = Holdings::new(2);
        let (mut one, mut two) = (Session::new(rights(ALL)), Session::new(rights(ALL)));
        ask(&mut one, &mut holdings, b"!\0\0\0\x02", &[]).unwrap();
        ask(&mut two, &mut holdings, &[&b"S"[..], &entry(9, b'x')].concat(), &[7]).unwrap();
        let dot = [&b"."[..], &entry(9, b'a'), &entry(9, b'x')].concat();
        assert_eq!(ask(&mut one, &mut holdings, &dot, &[1, 2]), Some((vec![23], vec![])));
        assert_eq!(ask(&mut two, &mut holdings, b"D\x01x\0", &[]), Some((vec![0], vec![])));
        assert_eq!(ask(&mut one, &mut holdings, &dot, &[1, 2]), Some((vec![0], vec![])));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Ask(Vec<u8>, usize),
        Store(u64, u8),
        Retrieve(u8, bool),
        Delete(u8),
        Dump(Vec<(u64, u8)>),
        Expire(u64),
    }

    fn id() -> impl Strategy<Value = u8> {
        b'a'..b'f'
    }

    fn event() -> impl Strategy<Value = Event> {
        let bytes = prop::collection::vec(prop::sample::select(b"SDRL?!.\0\x01ab".to_vec()), 0..20);
        prop_oneof![
            1 => (bytes, 0..3usize).prop_map(|(body, fds)| Event::Ask(body, fds)),
            8 => (0..20u64, id()).prop_map(|(limit, id)| Event::Store(limit, id)),
            4 => (id(), any::<bool>()).prop_map(|(id, delete)| Event::Retrieve(id, delete)),
            4 => id().prop_map(Event::Delete),
            4 => prop::collection::vec((0..20u64, id()), 0..4).prop_map(Event::Dump),
            2 => (0..20u64).prop_map(Event::Expire),
        ]
    }

    /// What the holdings should be, in the simplest form, and every descriptor a token that counts itself.
    struct Model {
        holdings: Holdings<Rc<()>>,
        expected: BTreeMap<u8, u64>,
        token: Rc<()>,
    }

    const ROOM: usize = 3;

    impl Model {
        fn ask(&mut self, session: &mut Session, body: &[u8], fds: usize) -> Option<Answer<Rc<()>>> {
            session.answer(&mut self.holdings, body, vec![self.token.clone(); fds].into_iter()).ok()
        }

        fn code(&mut self, session: &mut Session, body: &[u8], fds: usize) -> Option<u8> {
            match self.ask(session, body, fds)? {
                Answer::Code(code) => Some(code),
                Answer::Body(body) => Some(body[0]),
                _ => Some(0),
            }
        }

        fn happen(&mut self, session: &mut Session, event: &Event) -> Result<(), TestCaseError> {
            match event {
                Event::Ask(body, fds) => {
                    // Random bytes that make sense are rare and small; then the holdings say what they did.
                    let _ = self.ask(session, body, *fds);
                    *session = Session::new(rights(ALL));
                    self.expected = self.holdings.iter().map(|s| (s.0.id.to_bytes()[0], s.0.limit.seconds)).collect();
                }
                &Event::Store(limit, id) => {
                    let want = match (self.expected.len() < ROOM, self.expected.contains_key(&id)) {
                        (false, _) => 23,
                        (true, true) => 16,
                        (true, false) => 0,
                    };
                    let body = [&b"S"[..], &entry(limit, id)].concat();
                    prop_assert_eq!(self.code(session, &body, 1), Some(want));
                    if want == 0 {
                        self.expected.insert(id, limit);
                    }
                }
                &Event::Retrieve(id, delete) => {
                    let want = if self.expected.contains_key(&id) { 0 } else { 2 };
                    prop_assert_eq!(self.code(session, &[b'R', delete.into(), 1, id, 0], 0), Some(want));
                    if delete {
                        self.expected.remove(&id);
                    }
                }
                &Event::Delete(id) => {
                    let want = if self.expected.remove(&id).is_some() { 0 } else { 2 };
                    prop_assert_eq!(self.code(session, &[b'D', 1, id, 0], 0), Some(want));
                }
                Event::Dump(entries) => {
                    let total = entries.len();
                    let want = if self.expected.len() + total > ROOM { 23 } else { 0 };
                    prop_assert_eq!(self.code(session, &[b'!', 0, 0, 0, total as u8], 0), Some(want));
                    if want == 0 && total > 0 {
                        let data = entries.iter().flat_map(|&(limit, id)| entry(limit, id));
                        let body: Vec<u8> = std::iter::once(b'.').chain(data).collect();
                        prop_assert_eq!(self.code(session, &body, total), Some(0));
                        self.expected.extend(entries.iter().map(|&(limit, id)| (id, limit)));
                    }
                }
                &Event::Expire(now) => {
                    self.holdings.expire(Tai64n { seconds: now, nanoseconds: 0 });
                    self.expected.retain(|_, limit| *limit > now);
                }
            }
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_stored_and_nothing_leaks(events in prop::collection::vec(event(), 0..60)) {
            let mut model = Model { holdings: Holdings::new(ROOM), expected: BTreeMap::new(), token: Rc::new(()) };
            let mut session = Session::new(rights(ALL));
            for event in &events {
                model.happen(&mut session, event)?;
                let held = model.holdings.iter().map(|s| (s.0.id.to_bytes()[0], s.0.limit.seconds)).collect();
                prop_assert_eq!(&model.expected, &held);
                prop_assert!(model.holdings.len() <= ROOM);
                prop_assert_eq!(Rc::strong_count(&model.token), 1 + model.holdings.len(), "a descriptor leaked");
                let next = model.holdings.next_limit().map(|limit| limit.seconds);
                prop_assert_eq!(next, model.expected.values().min().copied());
            }
        }

        #[test]
        fn without_rights_nothing_changes(events in prop::collection::vec(event(), 0..40)) {
            let mut model = Model { holdings: Holdings::new(ROOM), expected: BTreeMap::new(), token: Rc::new(()) };
            let mut nobody = Session::new(rights(b""));
            for event in events {
                let (body, fds) = match event {
                    Event::Store(limit, id) => ([&b"S"[..], &entry(limit, id)].concat(), 1),
                    Event::Retrieve(id, delete) => (vec![b'R', delete.into(), 1, id, 0], 0),
                    Event::Delete(id) => (vec![b'D', 1, id, 0], 0),
                    Event::Dump(entries) => (vec![b'!', 0, 0, 0, entries.len() as u8], 0),
                    Event::Expire(_) => (b"?".to_vec(), 0),
                    Event::Ask(..) => (b"L".to_vec(), 0),
                };
                prop_assert_eq!(model.code(&mut nobody, &body, fds), Some(1));
                prop_assert!(model.holdings.is_empty());
            }
        }
    }
}
