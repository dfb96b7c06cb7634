//! s6-ipcclient: a connection for the program that follows (spec/local-services-and-instances.md 1).

use std::os::fd::{AsFd, RawFd};

use crate::cli::{Args, Options};
use crate::error::{Die, Exec, Exit, OrDie, Program};
use crate::info;
use crate::sys::env::Env;
use crate::sys::{fd, socket};

/// Connects to a unix socket and runs a program with the connection on descriptors 6 and 7.
pub const PROGRAM: Program = Program {
    name: "s6-ipcclient",
    usage: "s6-ipcclient [ -q | -Q | -v ] [ -p bindpath ] [ -l localname ] path prog...",
    run,
};

/// Where a UCSPI client program reads from its server.
pub const READ: RawFd = 6;
/// Where it writes to its server.
pub const WRITE: RawFd = 7;

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "pl");
    let (mut verbosity, mut bind_path, mut local_name) = (1u32, None, None);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'q' => verbosity = verbosity.saturating_sub(1),
            'Q' => verbosity = 1,
            'v' => verbosity = verbosity.saturating_add(1),
            'p' => bind_path = Some(value.into_cstring()),
            'l' => local_name = Some(value.into_bytes()),
            _ => return Err(options.unknown(letter)),
        }
    }
    let operands = options.operands();
    let (Some(path), Some(_)) = (operands.get(0), operands.get(1)) else { return Err(Die::usage()) };

    let connection = socket::stream().or_die("create", "a socket")?;
    if let Some(local) = bind_path {
        socket::bind(&connection, &local).or_die("bind a socket to", &local)?;
    }
    socket::address(path).and_then(|to| socket::connect(&connection, &to)).or_die("connect to", path)?;
    let local_path = match local_name {
        Some(mut name) => {
            name.truncate(socket::PATH_MOST);
            name
        }
        None => socket::local_path(&connection).or_die("get the name of", "the socket")?,
    };
    if verbosity >= 2 {
        info!("s6-ipcclient: connected to ", path);
    }

    fd::hand_over(connection, READ)
        .and_then(|()| fd::install(fd::borrow(READ)?.as_fd(), WRITE))
        .or_die("move", "the connection to descriptors 6 and 7")?;
    let mut env = Env::inherited();
    env.set(b"PROTO", b"IPC").set(b"IPCLOCALPATH", &local_path);
    Ok(Exec::operands(operands.from(1)).with_env(env).into())
}
