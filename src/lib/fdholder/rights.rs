//! What a client may do, from the environment of the access rule that let it in (spec/events-and-fdholding.md 4).

use std::collections::VecDeque;
use std::ffi::CStr;
use std::rc::Rc;

use crate::local::access::Allow;
use crate::sys::regex::{Invalid, Regex};

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
    pub fn from_rule(rule: &Allow, expressions: &mut Expressions) -> Result<Rights, Invalid> {
        let mut expression = |name| rule.variable(name).map(|pattern| expressions.compile(pattern)).transpose();
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

/// The expressions of the latest clients, compiled: the rules are read afresh for each client, but mostly say the
/// same as before.
#[derive(Debug, Default)]
pub struct Expressions(VecDeque<(Vec<u8>, Rc<Regex>)>);

impl Expressions {
    /// How many are remembered.
    const MOST: usize = 8;

    fn compile(&mut self, pattern: &[u8]) -> Result<Rc<Regex>, Invalid> {
        if let Some((_, regex)) = self.0.iter().find(|(known, _)| known == pattern) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(Regex::compile(pattern)?);
        self.0.truncate(Self::MOST - 1);
        self.0.push_front((pattern.to_vec(), regex.clone()));
        Ok(regex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(env: &[u8]) -> Result<Rights, Invalid> {
        Rights::from_rule(&Allow { env: env.to_vec(), exec: Vec::new() }, &mut Expressions::default())
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

    #[test]
    fn few_expressions_are_remembered() {
        let mut expressions = Expressions::default();
        for i in 0..100 {
            expressions.compile(i.to_string().as_bytes()).unwrap();
        }
        assert_eq!(expressions.0.len(), Expressions::MOST);
        assert!(expressions.compile(b"99").unwrap().is_match(b"99"));
    }
}
