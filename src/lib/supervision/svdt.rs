//! s6-svdt: prints the recorded deaths of a service (spec/supervision.md 10).

use nix::fcntl::OFlag;

use crate::cli::{Args, Options};
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::servicedir::{files, tally};
use crate::sys::fd;
use crate::text::{decimal, signal_name};

/// Prints one line per death, oldest first.
pub const PROGRAM: Program = Program { name: "s6-svdt", usage: "s6-svdt [ -S | -s ] [ -n max ] servicedir", run };

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "n");
    let (mut names, mut most) = (true, tally::MOST);
    while let Some((letter, value)) = options.next()? {
        match letter {
            'S' => names = true,
            's' => names = false,
            'n' => most = value.u32()? as usize,
            other => return Err(options.unknown(other)),
        }
    }
    let dir = options.operands().get(0).ok_or_else(Die::usage)?;
    if most == 0 {
        return Ok(OK);
    }
    let path = files::path(dir, "supervise/death_tally");
    // A tally that is not there, or not of whole entries, becomes an empty one, as for the supervisor.
    let file =
        fd::open_file(&path, OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK, 0o666).or_die("open", &path)?;
    let Some(deaths) = tally::read_newest(&file, most).or_die("read", &path)? else {
        nix::unistd::truncate(path.as_c_str(), 0).or_die("truncate", &path)?;
        return Ok(OK);
    };
    let mut out = Vec::new();
    for death in deaths {
        out.extend_from_slice(&death.stamp.text());
        match death.signal {
            0 => {
                out.extend_from_slice(b" exitcode ");
                out.extend_from_slice(decimal(death.code).as_bytes());
            }
            signal => {
                out.extend_from_slice(b" signal ");
                match names {
                    true => out.extend_from_slice(signal_name(signal.into()).as_bytes()),
                    false => out.extend_from_slice(decimal(signal).as_bytes()),
                }
            }
        }
        out.push(b'\n');
    }
    fd::write_all(fd::STDOUT, &out).or_die("write to", "stdout")?;
    Ok(OK)
}
