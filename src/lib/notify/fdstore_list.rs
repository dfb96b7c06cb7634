//! s6-fdstore-list: what a supervisor keeps for its service (spec/sd-notify-and-fdstore.md 4.3).
//!
//! The supervisor says only which of its descriptors have which name; the kernel tells the rest, and nothing is opened.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;

use libc::{major, minor};
use nix::fcntl::OFlag;

use crate::cli::Args;
use crate::die;
use crate::error::{Die, Exit, OK, OrDie, Program};
use crate::servicedir::{control, files};
use crate::sys::{Errno, Pid, fd};
use crate::text::{decimal, quote};

/// Prints one line for each stored descriptor, in the order in which the service gets them.
pub const PROGRAM: Program = Program { name: "s6-fdstore-list", usage: "s6-fdstore-list servicedir", run };

/// The exit code when no supervisor is running.
const NOT_SUPERVISED: u8 = 1;

fn run(args: Args) -> Result<Exit, Die> {
    let dir = args.operands().get(0).ok_or_else(Die::usage)?;
    let supervisor = match control::supervisor(dir, "supervise") {
        Ok(Some(pid)) => pid,
        Ok(None) | Err(Errno::ENOENT) => return Err(die!(NOT_SUPERVISED, "no s6-supervise is running for ", dir)),
        failure => return failure.or_die("look at the lock of", dir).map(|_| OK),
    };
    let inventory = files::path(dir, "supervise/fdstore");
    let text = match read(&inventory) {
        Err(Errno::ENOENT) => return Ok(OK),
        other => other.or_die("read", &inventory)?,
    };
    let mut out = Vec::new();
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&b| b == b':').unwrap_or(line.len());
        let (number, name) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        match describe(supervisor, number) {
            Ok(description) => {
                out.extend_from_slice(name);
                out.extend(description);
                out.push(b'\n');
            }
            Err(Errno::ENOENT) => {} // dropped meanwhile
            Err(errno) => return Err(die!(111, errno => "unable to look at descriptor ", number, " of s6-supervise")),
        }
    }
    fd::write_all(fd::STDOUT, &out).or_die("write to", "stdout")?;
    Ok(OK)
}

fn read(path: &CStr) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut file = File::from(fd::open_file(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)?);
    file.read_to_end(&mut bytes).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(bytes)
}

/// Type, device, inode, device that it is, path and mode of a descriptor of another process, each after a tab.
fn describe(process: Pid, number: &[u8]) -> Result<Vec<u8>, Errno> {
    let place = |directory: &[u8]| {
        let process = decimal(process.as_raw() as u64);
        CString::new([b"/proc/", process.as_bytes(), directory, number].concat()).map_err(|_| Errno::EINVAL)
    };
    let link = place(b"/fd/")?;
    let about = nix::sys::stat::stat(link.as_c_str())?;
    let device = |number: libc::dev_t| format!("{}:{}", major(number), minor(number)).into_bytes();
    let (kind, is_device) = match about.st_mode & libc::S_IFMT {
        libc::S_IFREG => ("reg", false),
        libc::S_IFDIR => ("dir", false),
        libc::S_IFCHR => ("chr", true),
        libc::S_IFBLK => ("blk", true),
        libc::S_IFIFO => ("fifo", false),
        libc::S_IFSOCK => ("sock", false),
        _ => ("anon", false),
    };
    let target = nix::fcntl::readlink(link.as_c_str())?.into_encoded_bytes();
    let fields = [
        kind.as_bytes().to_vec(),
        device(about.st_dev),
        decimal(about.st_ino).as_bytes().to_vec(),
        if is_device { device(about.st_rdev) } else { b"-".to_vec() },
        quote(&target),
        mode(&place(b"/fdinfo/")?)?.as_bytes().to_vec(),
    ];
    Ok(fields.into_iter().flat_map(|field| [b"\t".to_vec(), field]).flatten().collect())
}

/// `ro`, `wo` or `rw`, by the file that tells how a descriptor was opened.
fn mode(info: &CStr) -> Result<&'static str, Errno> {
    let mut buffer = [0; 512];
    let text = fd::read_file(info, &mut buffer)?;
    let flags = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"flags:")).unwrap_or_default();
    Ok(match flags.trim_ascii().last() {
        Some(digit) if digit & 3 == libc::O_WRONLY as u8 => "wo",
        Some(digit) if digit & 3 == libc::O_RDWR as u8 => "rw",
        _ => "ro",
    })
}
