//! A connection to a server, and what can be asked of it (spec/events-and-fdholding.md 4).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::die;
use crate::error::{Die, OrDie};
use crate::fdholder::held::Held;
use crate::fdholder::protocol::{self, Entries, messages, take_u32};
use crate::sys::{Errno, fd, poll, socket};
use crate::tai::Tai64n;
use crate::unixmessage::{Inbox, Limits, MAX_FDS, Message, Outbox};

/// Descriptors of a client that are not part of a dump.
const OWN: usize = 16;

/// What a client makes of a failed request: exit code 1, and the likely reason of a server that only hangs up.
pub fn answered<T>(answer: Result<T, Errno>, verb: &str, object: &CStr) -> Result<T, Die> {
    answer.map_err(|errno| {
        let likely = if errno == Errno::EPIPE { " (perhaps the server does not admit this user)" } else { "" };
        die!(1, errno => "unable to ", verb, " ", object, likely)
    })
}

/// A connection to a server. Its errors: ETIMEDOUT at the deadline; EPIPE when the server hangs up, because it does
/// not let us in or does not like what we say; EPROTO when it does not speak our language; and what it answers.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    inbox: Inbox,
    deadline: Option<Instant>,
}

impl Connection {
    /// Connects to the server at `path`. `limit` is for everything that is done with the connection.
    pub fn open(path: &CStr, limit: Option<Duration>) -> Result<Connection, Die> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let socket = socket::connect_stream(path, deadline).or_die("connect to", path)?;
        Ok(Connection { socket, inbox: Inbox::default(), deadline })
    }

    fn send(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut outbox = Outbox::default();
        outbox.put(&[body], fds)?;
        while !outbox.flush(&self.socket)? {
            poll::until_ready(&self.socket, poll::OUT, self.deadline)?;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        loop {
            if let Some(Message { body, fds }) = self.inbox.take(Limits::FORMAT)? {
                return Ok((body.to_vec(), fds.collect()));
            }
            match self.inbox.fill(&self.socket) {
                Ok(0) | Err(Errno::ECONNRESET) => return Err(Errno::EPIPE),
                Ok(_) => {}
                Err(Errno::EAGAIN) => poll::until_ready(&self.socket, poll::IN, self.deadline)?,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Says something; the first byte of the answer is success, the rest is returned.
    fn ask(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
        self.send(body, fds)?;
        let (mut answer, fds) = self.receive()?;
        match *answer {
            [0, ..] => {
                answer.remove(0);
                Ok((answer, fds))
            }
            [code] => Err(Errno::from_raw(code.into())),
            _ => Err(Errno::EPROTO),
        }
    }

    /// As [`Connection::ask`], where success is all there is to say.
    fn tell(&mut self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let (rest, fds) = self.ask(body, fds)?;
        if rest.is_empty() && fds.is_empty() { Ok(()) } else { Err(Errno::EPROTO) }
    }

    /// Stores a descriptor. ENAMETOOLONG, EPERM, ENFILE, EBUSY.
    pub fn store(&mut self, id: &CStr, limit: Tai64n, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut body = b"S".to_vec();
        body.extend(limit.pack());
        protocol::put_id(&mut body, id).ok_or(Errno::ENAMETOOLONG)?;
        self.tell(&body, &[fd])
    }

    /// Makes the server drop a descriptor. ENAMETOOLONG, EPERM, ENOENT.
    pub fn delete(&mut self, id: &CStr) -> Result<(), Errno> {
        let mut body = b"D".to_vec();
        protocol::put_id(&mut body, id).ok_or(Errno::ENAMETOOLONG)?;
        self.tell(&body, &[])
    }

    /// Gets a descriptor, and makes the server drop its own if `delete`. ENAMETOOLONG, EPERM, ENOENT.
    pub fn retrieve(&mut self, id: &CStr, delete: bool) -> Result<OwnedFd, Errno> {
        let mut body = vec![b'R', delete.into()];
        protocol::put_id(&mut body, id).ok_or(Errno::ENAMETOOLONG)?;
        let (rest, mut fds) = self.ask(&body, &[])?;
        match (fds.pop(), rest.is_empty() && fds.is_empty()) {
            (Some(fd), true) => Ok(fd),
            _ => Err(Errno::EPROTO),
        }
    }

    /// The names of what is held. EPERM.
    pub fn list(&mut self) -> Result<Vec<CString>, Errno> {
        let (answer, fds) = self.ask(b"L", &[])?;
        let mut rest = &answer[..];
        let count = take_u32(&mut rest).filter(|_| fds.is_empty()).ok_or(Errno::EPROTO)?;
        let mut names = Vec::new();
        while let Ok(name) = CStr::from_bytes_until_nul(rest) {
            rest = &rest[name.count_bytes() + 1..];
            names.push(name.to_owned());
        }
        if rest.is_empty() && names.len() == count as usize { Ok(names) } else { Err(Errno::EPROTO) }
    }

    /// Gets everything. EPERM; ENOBUFS if this process may not have so many descriptors.
    pub fn get_dump(&mut self) -> Result<Vec<Held<OwnedFd>>, Errno> {
        let (answer, fds) = self.ask(b"?", &[])?;
        let mut rest = &answer[..];
        let (Some(count), Some(total), [], []) = (take_u32(&mut rest), take_u32(&mut rest), rest, &fds[..]) else {
            return Err(Errno::EPROTO);
        };
        if count != messages(total) {
            return Err(Errno::EPROTO);
        }
        fd::raise_limit(total as usize + OWN);
        let mut dump = Vec::new();
        for _ in 0..count {
            let (body, fds) = self.receive()?;
            let entries = Entries::parse(&body, fds.len()).ok_or(Errno::EPROTO)?;
            dump.extend(entries.zip(fds).map(|((limit, id), fd)| Held { id: Rc::from(id), limit, fd }));
        }
        if dump.len() == total as usize { Ok(dump) } else { Err(Errno::EPROTO) }
    }

    /// Stores all of these, in place of what is held under the same names. ENAMETOOLONG, EPERM, ENFILE. With none,
    /// nothing is said.
    pub fn set_dump(&mut self, dump: &[Held<impl AsFd>]) -> Result<(), Errno> {
        if dump.is_empty() {
            return Ok(());
        }
        let total = u32::try_from(dump.len()).map_err(|_| Errno::ENFILE)?;
        let (answer, fds) = self.ask(&[&b"!"[..], &total.to_be_bytes()].concat(), &[])?;
        if answer != messages(total).to_be_bytes() || !fds.is_empty() {
            return Err(Errno::EPROTO);
        }
        let parts = dump.chunks(MAX_FDS);
        let last = parts.len() - 1;
        for (number, part) in parts.enumerate() {
            let mut body = b".".to_vec();
            part.iter().try_for_each(|held| protocol::put_entry(&mut body, held)).ok_or(Errno::ENAMETOOLONG)?;
            let fds: Vec<_> = part.iter().map(|held| held.fd.as_fd()).collect();
            match (self.tell(&body, &fds), number == last) {
                (Ok(()), true) | (Err(Errno::EAGAIN), false) => {}
                (Ok(()), false) | (Err(Errno::EAGAIN), true) => return Err(Errno::EPROTO),
                (Err(errno), _) => return Err(errno),
            }
        }
        Ok(())
    }
}
