//! s6-ioconnect: carry bytes both ways between the standard descriptors and two others
//! (spec/events-and-fdholding.md 6)

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{Shutdown, shutdown};

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::sys::poll::{self, PollFd};
use crate::sys::signal::{self, Signal};
use crate::sys::{Errno, fd, socket};
use crate::text::decimal;
use crate::warn;

/// Exits 0 when both directions have ended, 1 when nothing moved for too long.
pub const PROGRAM: Program =
    Program { name: "s6-ioconnect", usage: "s6-ioconnect [ -t timeout ] [ -r fdr ] [ -w fdw ]", run };

/// Bytes that are held in one direction.
const BUFFER: usize = 8192;

/// Where bytes come from, or go to.
struct End {
    fd: OwnedFd,
    is_socket: bool,
}

impl End {
    fn new(fd: OwnedFd) -> Result<End, Errno> {
        fd::set_nonblocking(&fd, true)?;
        let is_socket = socket::is_socket(&fd);
        Ok(End { fd, is_socket })
    }

    /// Closes it. A socket may live on elsewhere, so it is told which direction is over.
    fn close(self, direction: Shutdown) {
        if self.is_socket {
            let _ = shutdown(self.fd.as_raw_fd(), direction);
        }
    }
}

/// One direction.
struct Flow {
    input: Option<End>,
    output: Option<End>,
    buffer: [u8; BUFFER],
    /// What is in the buffer lies from `start` to `end`.
    start: usize,
    end: usize,
}

impl Flow {
    fn new(input: End, output: End) -> Self {
        Flow { input: Some(input), output: Some(output), buffer: [0; BUFFER], start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn polled(&self) -> [PollFd; 2] {
        let fd = |end: &Option<End>, events| PollFd::maybe(end.as_ref().map(|end| &end.fd), events);
        [
            if self.end < BUFFER { fd(&self.input, poll::IN) } else { PollFd::none() },
            fd(&self.output, if self.is_empty() { 0 } else { poll::OUT }),
        ]
    }

    /// Moves what can be moved; whether anything was.
    fn turn(&mut self, [input, output]: [PollFd; 2]) -> bool {
        let before = (self.start, self.end);
        if output.hung_up() {
            self.abandon();
        }
        if input.ready() {
            self.read();
        }
        if !self.is_empty() {
            self.write();
        }
        let moved = before != (self.start, self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if self.input.is_none() {
                self.output.take().into_iter().for_each(|end| end.close(Shutdown::Write));
            }
        }
        moved
    }

    fn read(&mut self) {
        let Some(input) = &self.input else { return };
        match fd::read(&input.fd, &mut self.buffer[self.end..]) {
            Ok(count @ 1..) => self.end += count,
            Err(Errno::EAGAIN) => {}
            ended => {
                if let Err(errno) = ended {
                    warn!(errno => "unable to read");
                }
                self.close_input();
            }
        }
    }

    fn write(&mut self) {
        let Some(output) = &self.output else { return };
        match fd::write(&output.fd, &self.buffer[self.start..self.end]) {
            Ok(count) => self.start += count,
            Err(Errno::EAGAIN) => {}
            Err(_) => self.abandon(),
        }
    }

    /// Reads no more.
    fn close_input(&mut self) {
        self.input.take().into_iter().for_each(|end| end.close(Shutdown::Read));
    }

    /// Nobody takes what comes out.
    fn abandon(&mut self) {
        if !self.is_empty() {
            warn!("lost ", decimal((self.end - self.start) as u64), " bytes: nobody reads them any more");
        }
        (self.start, self.end) = (0, 0);
        self.close_input();
        self.output.take().into_iter().for_each(|end| end.close(Shutdown::Write));
    }
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut limit = None;
    let (mut reader, mut writer) = (6, 7);
    let mut options = Options::classic(args, "trw");
    while let Some((letter, value)) = options.next()? {
        match letter {
            't' => limit = value.limit()?,
            'r' => reader = value.u32()?,
            'w' => writer = value.u32()?,
            '0' | '1' | '6' | '7' => {}
            _ => return Err(options.unknown(letter)),
        }
    }
    if reader < 3 || writer < 3 {
        return Err(Die::usage());
    }
    let take = |number: u32| {
        let taken = number.try_into().map_err(|_| Errno::EBADF).and_then(fd::take);
        taken.or_die("use descriptor", &decimal(number))
    };
    // The standard ones last: they are copied, and a copy must not come to lie where another is looked for.
    let from = take(reader)?;
    let to = if writer == reader { fd::duplicate(&from, 3).or_die("copy", "a descriptor")? } else { take(writer)? };
    let (stdin, stdout) = (take(0)?, take(1)?);
    let end = |fd| End::new(fd).or_die("prepare", "a descriptor");
    let mut flows = [Flow::new(end(stdin)?, end(to)?), Flow::new(end(from)?, end(stdout)?)];
    signal::neutralise(Signal::SIGPIPE).or_die("trap", "signals")?;
    signal::trap(&[Signal::SIGTERM]).or_die("trap", "signals")?;
    let mut moved = Instant::now();
    while flows.iter().any(|flow| flow.output.is_some()) {
        let deadline = limit.filter(|_| flows.iter().all(Flow::is_empty)).map(|limit| moved + limit);
        let [[a, b], [c, d]] = [flows[0].polled(), flows[1].polled()];
        let mut polled = [a, b, c, d];
        poll::wait(&mut polled, deadline).or_die("wait for", "input")?;
        if signal::take().is_some() {
            flows.iter_mut().for_each(Flow::close_input);
        }
        let [a, b, c, d] = polled;
        let results = [flows[0].turn([a, b]), flows[1].turn([c, d])];
        if results.contains(&true) {
            moved = Instant::now();
        } else if deadline.is_some_and(|deadline| deadline <= Instant::now()) && !polled.iter().any(PollFd::ready) {
            return Ok(Exit::Code(1));
        }
    }
    Ok(OK)
}
