//! What a client may do, from the environment of the access rule that lets it in (spec/events-and-fdholding.md 4).

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use crate::local::access::{Allow, Rules, Verdict, keys};
use crate::stamp::{self, Stamp};
use crate::sys::peer::Peer;
use crate::sys::regex::{Invalid, Regex};
use crate::warn;

/// How many rules are remembered.
const MOST: usize = 8;

/// Rights for the life of a connection.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Which names may be stored and deleted.
    pub store: Option<Rc<Regex>>,
    /// Which names may be retrieved.
    pub retrieve: Option<Rc<Regex>>,
    /// Whether names may be listed.
    pub list: bool,
    /// Whether everything may be had.
    pub get_dump: bool,
    /// Whether anything may be stored, by a dump.
    pub set_dump: bool,
}

impl Rights {
    /// The rights in a rule. An expression that does not compile is an error: it grants nothing.
    pub fn from_rule(rule: &Allow) -> Result<Rights, Invalid> {
        let compile = |pattern| Regex::compile(pattern).map(Rc::new);
        let expression = |name| rule.variable(name).map(compile).transpose();
        let is_set = |name| rule.variable(name).is_some();
        Ok(Rights {
            store: expression(b"S6_FDHOLDER_STORE_REGEX")?,
            retrieve: expression(b"S6_FDHOLDER_RETRIEVE_REGEX")?,
            list: is_set(b"S6_FDHOLDER_LIST"),
            get_dump: is_set(b"S6_FDHOLDER_GETDUMP"),
            set_dump: is_set(b"S6_FDHOLDER_SETDUMP"),
        })
    }

    /// Whether `id` may be stored and deleted.
    pub fn may_store(&self, id: &CStr) -> bool {
        matches(&self.store, id)
    }

    /// Whether `id` may be retrieved.
    pub fn may_retrieve(&self, id: &CStr) -> bool {
        matches(&self.retrieve, id)
    }
}

fn matches(regex: &Option<Rc<Regex>>, id: &CStr) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(id.to_bytes_with_nul()))
}

/// A rule in a directory that let somebody in, and all that was read for it.
#[derive(Debug)]
struct Known {
    key: Vec<u8>,
    files: Vec<(CString, Option<Stamp>)>,
    rights: Rights,
}

impl Known {
    /// To be called after the rule was read: had it changed meanwhile, it would not be settled. `None` if it is not.
    fn new(dir: &CStr, key: &[u8], rule: &Allow, rights: &Rights) -> Option<Known> {
        let variables = rule.variables().map(|(name, _)| [b"/env/", name].concat());
        let names = [b"".to_vec(), b"/allow".to_vec(), b"/env".to_vec()].into_iter().chain(variables);
        let now = stamp::Now::read();
        let file = |name: Vec<u8>| {
            let path = CString::new([dir.to_bytes(), b"/", key, &name].concat()).ok()?;
            let stamp = Stamp::of(&path);
            Some((path, stamp))
        };
        let files: Vec<_> = names.map(file).collect::<Option<_>>()?;
        let is_settled = |stamp: Option<Stamp>| stamp.is_none_or(|stamp| stamp.is_settled(now));
        files.iter().all(|(_, stamp)| is_settled(*stamp)).then(|| Known {
            key: key.to_vec(),
            files,
            rights: rights.clone(),
        })
    }

    fn is_unchanged(&self) -> bool {
        self.files.iter().all(|(path, known)| Stamp::of(path) == *known)
    }
}

/// The rules, and those in a directory that were read lately: a rule that has not changed is not read again.
#[derive(Debug)]
pub struct Rulebook {
    rules: Rules,
    /// Whether to say what is wrong with a rule.
    verbose: bool,
    known: VecDeque<Known>,
}

impl Rulebook {
    /// Nothing was read yet.
    pub fn new(rules: Rules, verbose: bool) -> Self {
        Rulebook { rules, verbose, known: VecDeque::new() }
    }

    /// The rights of `peer`; `None` if it is not let in, and if its rule is wrong.
    pub fn judge(&mut self, peer: Peer) -> Option<Rights> {
        for key in keys(peer) {
            if let Some(known) = self.known.iter().find(|known| known.key == key)
                && known.is_unchanged()
            {
                return Some(known.rights.clone());
            }
            match self.rules.look_up(&key) {
                Ok(Verdict::Unknown) => {}
                Ok(Verdict::Deny) => return None,
                Ok(Verdict::Allow(rule)) => return self.learn(&key, &rule),
                Err(errno) => {
                    if self.verbose {
                        warn!(errno => "unable to read the rule ", key, ", denying access");
                    }
                    return None;
                }
            }
        }
        None
    }

    /// The rights in a rule that was just read.
    fn learn(&mut self, key: &[u8], rule: &Allow) -> Option<Rights> {
        if self.verbose && !rule.exec.is_empty() {
            warn!("the rule ", key, " has an exec file, which is ignored");
        }
        match Rights::from_rule(rule) {
            Ok(rights) => {
                self.remember(key, rule, &rights);
                Some(rights)
            }
            Err(invalid) => {
                if self.verbose {
                    warn!("invalid expression in the rule ", key, ", denying access: ", invalid.reason);
                }
                None
            }
        }
    }

    fn remember(&mut self, key: &[u8], rule: &Allow, rights: &Rights) {
        if let Rules::Directory(dir) = &self.rules {
            self.known.retain(|known| known.key != key);
            self.known.extend(Known::new(dir, key, rule, rights));
            self.known.drain(..self.known.len().saturating_sub(MOST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servicedir::files;
    use std::os::unix::ffi::OsStrExt;

    fn rights(env: &[u8]) -> Result<Rights, Invalid> {
        Rights::from_rule(&Allow { env: env.to_vec(), exec: Vec::new() })
    }

    #[test]
    fn a_rule_without_environment_grants_nothing() {
        let none = rights(b"").unwrap();
        assert!(!none.may_store(c"x") && !none.may_retrieve(c"x"));
        assert!(!none.list && !none.get_dump && !none.set_dump);
    }

    #[test]
    fn expressions_are_unanchored_and_the_empty_one_matches_all() {
        let some = rights(b"S6_FDHOLDER_STORE_REGEX=b\0S6_FDHOLDER_RETRIEVE_REGEX=\0S6_FDHOLDER_LIST=\0").unwrap();
        assert!(some.may_store(c"abc") && !some.may_store(c"ac"));
        assert!(some.may_retrieve(c"anything") && some.list && !some.get_dump);
    }

    #[test]
    fn a_variable_that_is_unset_grants_nothing() {
        assert!(!rights(b"S6_FDHOLDER_LIST\0").unwrap().list);
    }

    #[test]
    fn an_invalid_expression_is_an_error() {
        assert!(rights(b"S6_FDHOLDER_LIST=\0S6_FDHOLDER_STORE_REGEX=(\0").is_err());
    }

    /// A set of rules in which everybody may list, its files as old as if it had been there for long.
    fn rulebook() -> (tempfile::TempDir, Rulebook) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("uid/default/env")).unwrap();
        std::fs::write(dir.path().join("uid/default/allow"), "").unwrap();
        std::fs::write(dir.path().join("uid/default/env/S6_FDHOLDER_LIST"), "\n").unwrap();
        let path = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
        for name in ["uid/default", "uid/default/allow", "uid/default/env", "uid/default/env/S6_FDHOLDER_LIST"] {
            stamp::settle(&files::path(&path, name));
        }
        (dir, Rulebook::new(Rules::Directory(path), false))
    }

    const PEER: Peer = Peer { uid: 4000123, gid: 4000124, pid: None };

    #[test]
    fn a_rule_that_has_not_changed_is_not_read_again() {
        let (_dir, mut rulebook) = rulebook();
        assert!(rulebook.judge(PEER).unwrap().list);
        assert_eq!(rulebook.known.len(), 1);
        rulebook.known[0].rights.get_dump = true; // to see where the answer comes from
        assert!(rulebook.judge(PEER).unwrap().get_dump);
    }

    #[test]
    fn any_change_counts_at_once() {
        type Change = (&'static str, fn(&std::path::Path));
        let changes: [Change; 6] = [
            ("a variable set to the same", |rule| std::fs::write(rule.join("env/S6_FDHOLDER_LIST"), "\n").unwrap()),
            ("a variable more", |rule| std::fs::write(rule.join("env/OTHER"), "").unwrap()),
            ("a variable less", |rule| std::fs::remove_file(rule.join("env/S6_FDHOLDER_LIST")).unwrap()),
            ("a variable replaced", |rule| {
                std::fs::write(rule.join("new"), "\n").unwrap();
                std::fs::rename(rule.join("new"), rule.join("env/S6_FDHOLDER_LIST")).unwrap();
            }),
            ("another directory", |rule| {
                std::fs::rename(rule, rule.with_extension("old")).unwrap();
                std::fs::create_dir(rule).unwrap();
                std::fs::write(rule.join("allow"), "").unwrap();
            }),
            ("denial", |rule| std::fs::rename(rule.join("allow"), rule.join("deny")).unwrap()),
        ];
        for (what, change) in changes {
            let (dir, mut rulebook) = rulebook();
            rulebook.judge(PEER).unwrap();
            rulebook.known[0].rights.get_dump = true;
            change(&dir.path().join("uid/default"));
            let rights = rulebook.judge(PEER);
            assert!(rights.is_none_or(|rights| !rights.get_dump), "{what} went unnoticed");
        }
    }

    #[test]
    fn a_rule_before_the_known_one_counts() {
        let (dir, mut rulebook) = rulebook();
        rulebook.judge(PEER).unwrap();
        std::fs::create_dir_all(dir.path().join("gid/4000124")).unwrap();
        std::fs::write(dir.path().join("gid/4000124/deny"), "").unwrap();
        assert!(rulebook.judge(PEER).is_none());
    }

    #[test]
    fn what_has_just_changed_is_not_remembered() {
        let (dir, mut rulebook) = rulebook();
        loop {
            let begin = std::time::Instant::now();
            std::fs::write(dir.path().join("uid/default/env/S6_FDHOLDER_LIST"), "\n").unwrap();
            rulebook.judge(PEER).unwrap();
            if begin.elapsed() < stamp::SETTLED {
                break;
            }
        }
        assert!(rulebook.known.is_empty());
    }

    #[test]
    fn few_rules_are_remembered() {
        let (dir, mut rulebook) = rulebook();
        for uid in 0..20 {
            let (from, to) = (dir.path().join("uid/default"), dir.path().join(format!("uid/{}", 4000000 + uid)));
            std::os::unix::fs::symlink(from, to).unwrap();
        }
        for uid in 0..20 {
            rulebook.judge(Peer { uid: 4000000 + uid, ..PEER }).unwrap();
        }
        assert_eq!(rulebook.known.len(), MOST);
    }
}
