//! s6-svperms: who may see, control and listen to a service (spec/local-services-and-instances.md 6).

use std::ffi::CStr;

use nix::sys::stat::{FileStat, stat};
use nix::unistd::{Gid, chown};

use crate::cli::{Args, Options, Value};
use crate::error::{self, Die, Exit, OrDie, Program, USAGE};
use crate::events::fifodir::chmod;
use crate::servicedir::files;
use crate::sys::fd;
use crate::users::{self, Key};
use crate::{die, text, warn};

/// Sets or prints the permissions of service directories.
pub const PROGRAM: Program = Program {
    name: "s6-svperms",
    usage: "s6-svperms [ -v ] [ -u | -g group | -G group | -o | -O group ] [ -e | -E group ] servicedir...",
    run,
};

/// A mode, and a group, or that of the owner.
type Permission = (u32, Option<Gid>);

/// Permissions of what lies in `supervise`.
#[derive(Clone, Copy, Debug)]
struct Control {
    /// Of the directory: who may see the status.
    status: Permission,
    /// Of the fifo in it: who may send commands.
    control: Permission,
}

fn run(args: Args) -> Result<Exit, Die> {
    let mut options = Options::classic(args, "gGOE");
    let (mut print, mut control, mut event) = (false, None, None);
    let set = |status, control| Some(Control { status, control });
    while let Some((letter, value)) = options.next()? {
        match letter {
            'v' => print = true,
            'u' => control = set((0o700, None), (0o600, None)),
            'o' => control = set((0o711, None), (0o600, None)),
            'g' => control = set((0o710, Some(group(&value)?)), (0o600, None)),
            'G' => {
                let group = Some(group(&value)?);
                control = set((0o710, group), (0o620, group));
            }
            'O' => control = set((0o711, None), (0o620, Some(group(&value)?))),
            'e' => event = Some((0o1733, None)),
            'E' => event = Some((0o3730, Some(group(&value)?))),
            _ => return Err(options.unknown(letter)),
        }
    }
    let directories = options.operands();
    if directories.is_empty() {
        return Err(Die::usage());
    }
    let print = print || (control.is_none() && event.is_none());
    let mut good = true;
    for dir in directories.iter() {
        if let Some(Control { status, control }) = control {
            let supervise = files::path(dir, "supervise");
            change(&supervise, status)?;
            change(&files::path(&supervise, "control"), control)?;
        }
        if let Some(permission) = event {
            change(&files::path(dir, "event"), permission)?;
        }
        if print {
            good &= show(dir)?;
        }
    }
    Ok(if good { error::OK } else { Exit::Code(1) })
}

/// A group by name, or `:GID`.
fn group(value: &Value) -> Result<Gid, Die> {
    let name = value.bytes();
    if let Some(number) = name.strip_prefix(b":") {
        return text::parse_u32(number).map(Gid::from_raw).ok_or_else(Die::usage);
    }
    let found = users::group(Key::Name(name)).or_die("look up group", name)?;
    found.map(|group| Gid::from_raw(group.gid)).ok_or_else(|| die!(USAGE, "unknown group: ", name))
}

/// The group comes first: changing it clears bits of the mode.
fn change(path: &CStr, (mode, group): Permission) -> Result<(), Die> {
    let group = match group {
        Some(group) => group,
        None => primary_group(stat(path).or_die("look at", path)?.st_uid)?,
    };
    chown(path, None, Some(group)).or_die("change group of", path)?;
    chmod(path, mode).or_die("change mode of", path)
}

/// The primary group of a user.
fn primary_group(uid: u32) -> Result<Gid, Die> {
    let number = text::decimal(uid);
    if let Some(user) = users::user(Key::Id(uid)).or_die("look up user", number.as_bytes())? {
        return Ok(Gid::from_raw(user.gid));
    }
    warn!("there is no user with uid ", number, ": using gid 0");
    Ok(Gid::from_raw(0))
}

/// Who may do a thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Owner,
    Group,
    Public,
}

/// Prints what is set for a directory, a line each for status, control and events; whether all of it is right.
fn show(dir: &CStr) -> Result<bool, Die> {
    let supervise = files::path(dir, "supervise");
    let mut good = show_line(dir, "status", &supervise, libc::S_IFDIR, who_sees_status)?;
    if good {
        let control = files::path(&supervise, "control");
        good &= show_line(dir, "control", &control, libc::S_IFIFO, who_controls)?;
    }
    good &= show_line(dir, "events", &files::path(dir, "event"), libc::S_IFDIR, who_listens)?;
    Ok(good)
}

fn show_line(
    dir: &CStr,
    what: &str,
    path: &CStr,
    kind: libc::mode_t,
    who: fn(libc::mode_t) -> Option<Who>,
) -> Result<bool, Die> {
    let found = match stat(path) {
        Ok(found) => found,
        Err(errno) => {
            warn!(errno => "unable to look at ", path);
            return Ok(false);
        }
    };
    if found.st_mode & libc::S_IFMT != kind {
        warn!(path, if kind == libc::S_IFDIR { " is not a directory" } else { " is not a fifo" });
        return Ok(false);
    }
    let mode = found.st_mode & 0o7777;
    let Some(who) = who(mode) else {
        warn!("unexpected mode of ", path, ": ", format!("{mode:04o}"));
        return Ok(false);
    };
    let who = match who {
        Who::Owner => b"owner".to_vec(),
        Who::Group => [b"group ", &group_name(&found)?[..]].concat(),
        Who::Public => b"public".to_vec(),
    };
    let line = error::message(&[&dir, &" ", &what, &": ", &who, &"\n"]);
    fd::write_all(fd::STDOUT, &line).or_die("write to", "standard output")?;
    Ok(true)
}

fn group_name(found: &FileStat) -> Result<Vec<u8>, Die> {
    let number = text::decimal(found.st_gid);
    let group = users::group(Key::Id(found.st_gid)).or_die("look up group", number.as_bytes())?;
    Ok(group.map_or_else(|| number.as_bytes().to_vec(), |group| group.name))
}

/// The owner may do everything in it, others only go through, and nobody who the group cannot.
fn who_sees_status(mode: libc::mode_t) -> Option<Who> {
    match mode {
        _ if mode & 0o700 != 0o700 || mode & 0o5066 != 0 => None,
        _ if mode & 0o11 == 0o11 => Some(Who::Public),
        _ if mode & 0o11 == 0o10 => Some(Who::Group),
        _ if mode & 0o11 == 0 => Some(Who::Owner),
        _ => None,
    }
}

/// Only its reader reads it, and only a group may write to it besides.
fn who_controls(mode: libc::mode_t) -> Option<Who> {
    match mode {
        _ if mode & 0o157 != 0 => None,
        _ if mode & 0o020 != 0 => Some(Who::Group),
        _ => Some(Who::Owner),
    }
}

fn who_listens(mode: libc::mode_t) -> Option<Who> {
    match mode {
        0o1733 => Some(Who::Public),
        0o3730 => Some(Who::Group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_say_who_may() {
        for (mode, who) in [
            (0o700, Some(Who::Owner)),
            (0o710, Some(Who::Group)),
            (0o2710, Some(Who::Group)),
            (0o711, Some(Who::Public)),
            (0o701, None),
            (0o755, None),
            (0o500, None),
            (0o1700, None),
        ] {
            assert_eq!(who_sees_status(mode), who, "{mode:o}");
        }
        for (mode, who) in [(0o600, Some(Who::Owner)), (0o620, Some(Who::Group)), (0o640, None), (0o602, None)] {
            assert_eq!(who_controls(mode), who, "{mode:o}");
        }
        for (mode, who) in [(0o1733, Some(Who::Public)), (0o3730, Some(Who::Group)), (0o3733, None), (0o755, None)] {
            assert_eq!(who_listens(mode), who, "{mode:o}");
        }
    }
}
