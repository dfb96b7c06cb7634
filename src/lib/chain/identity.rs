//! User, group and supplementary groups of a process, by number: options `-u -g -G -U` of several programs
//! (spec/logging-and-chainloaders.md 9), and the lists of gids in UID, GID and GIDLIST (1.6).

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use crate::cli::Value;
use crate::die;
use crate::error::{Die, OrDie, USAGE};
use crate::sys::env;
use crate::text::{decimal, parse_u32};

/// The variables in which identities are handed from program to program.
pub const VARIABLES: [&str; 3] = ["UID", "GID", "GIDLIST"];

/// Who to become. Numbers that are 0 and a list that is missing stand for "as it is".
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user, 0 for no change.
    pub uid: u32,
    /// The group, 0 for no change.
    pub gid: u32,
    /// The supplementary groups; empty is a list too.
    pub groups: Option<Vec<u32>>,
}

impl Identity {
    /// Takes one of the options `-u -g -G -U`; false for any other letter.
    pub fn option(&mut self, letter: char, value: &Value) -> Result<bool, Die> {
        match letter {
            'u' => self.uid = value.u32()?,
            'g' => self.gid = value.u32()?,
            'G' => self.groups = Some(parse_list(value.bytes()).ok_or_else(Die::usage)?),
            'U' => *self = Identity::from_environment()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// From UID, GID and GIDLIST, all of which must be there.
    pub fn from_environment() -> Result<Self, Die> {
        let [uid, gid, list] = VARIABLES;
        Ok(Identity {
            uid: variable(uid, parse_u32)?,
            gid: variable(gid, parse_u32)?,
            groups: Some(variable(list, parse_list)?),
        })
    }

    /// Changes this process. The list always contains the gid, in front.
    pub fn apply(&self) -> Result<(), Die> {
        if let Some(groups) = &self.groups {
            let gid = if self.gid == 0 { Gid::effective().as_raw() } else { self.gid };
            let others = groups.iter().copied().filter(|&group| group != gid);
            let list: Vec<Gid> = std::iter::once(gid).chain(others).map(Gid::from_raw).collect();
            setgroups(&list).or_die("set supplementary groups", "")?;
        }
        if self.gid != 0 {
            setgid(Gid::from_raw(self.gid)).or_die("set gid to", &decimal(self.gid))?;
        }
        if self.uid != 0 {
            setuid(Uid::from_raw(self.uid)).or_die("set uid to", &decimal(self.uid))?;
        }
        Ok(())
    }
}

fn variable<T>(name: &str, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Die> {
    let value = env::get(name).ok_or_else(|| die!(USAGE, name, " not set"))?;
    parse(value.to_bytes()).ok_or_else(|| die!(USAGE, "invalid $", name))
}

/// A list of gids as users write it: separated by any of `,:; \t\r\n`, read up to the first thing that is no number.
/// `None` if that is the very first one. The empty text is the empty list.
pub fn parse_list(text: &[u8]) -> Option<Vec<u32>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mut list = Vec::new();
    let mut rest = text;
    while let Some(number) = leading_number(&mut rest) {
        list.push(number);
        let separators = rest.iter().take_while(|b| b",:; \t\r\n".contains(b)).count();
        rest = &rest[separators..];
        if separators == 0 {
            break;
        }
    }
    if list.is_empty() { None } else { Some(list) }
}

/// Takes the digits at the beginning of `text`; `None` if there are none, or too many for 32 bits.
pub fn leading_number(text: &mut &[u8]) -> Option<u32> {
    let (digits, rest) = text.split_at(text.iter().take_while(|b| b.is_ascii_digit()).count());
    let number = parse_u32(digits)?;
    *text = rest;
    Some(number)
}

/// A list as the suite writes it: separated by commas.
pub fn format_list(list: &[u32]) -> Vec<u8> {
    list.iter().map(|&gid| decimal(gid).as_bytes().to_vec()).collect::<Vec<_>>().join(&b","[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_up_to_the_first_oddity() {
        let cases: &[(&str, Option<&[u32]>)] = &[
            ("", Some(&[])),
            ("7", Some(&[7])),
            ("7,8", Some(&[7, 8])),
            ("7:8;9 10\t11\r\n12", Some(&[7, 8, 9, 10, 11, 12])),
            ("7,, ;8,", Some(&[7, 8])),
            ("14,x,15", Some(&[14])),
            ("14x,15", Some(&[14])),
            ("14,4294967296", Some(&[14])),
            ("4294967295", Some(&[u32::MAX])),
            ("x", None),
            (",14", None),
            (" 14", None),
            ("-1", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_list(text.as_bytes()).as_deref(), *want, "{text}");
        }
    }

    #[test]
    fn lists_are_written_with_commas() {
        assert_eq!(format_list(&[]), b"");
        assert_eq!(format_list(&[7, 8]), b"7,8");
    }
}
