//! Which actions a line is for (spec/logging-and-chainloaders.md 15.1).

use std::ops::Range;

use super::automaton::{self, Automaton, Matches};
use super::ere;
use super::script::{Rule, Script};
use crate::error::Die;
use crate::sys::regex::Regex;

/// Lines that are looked at together.
pub const BATCH: usize = 64;

/// Applies the rules to one line: calls `act` with the numbers of the actions, in order. `matches` says whether the
/// line matches the pattern of that number.
pub fn apply(rules: &[Rule], mut matches: impl FnMut(usize) -> bool, mut act: impl FnMut(usize)) {
    let (mut selected, mut claimed) = (true, false);
    for rule in rules {
        match *rule {
            Rule::Select(pattern) => selected = selected || matches(pattern),
            Rule::Deselect(pattern) => selected = selected && !matches(pattern),
            Rule::Unclaimed => selected = !claimed,
            Rule::Act(action) if selected => {
                claimed = true;
                act(action);
            }
            Rule::Act(_) => {}
        }
    }
}

/// The rules of a script with its patterns compiled.
#[derive(Debug)]
pub struct Selector {
    rules: Vec<Rule>,
    patterns: Vec<Compiled>,
    automata: Vec<Searched>,
    /// A line with a NUL behind it, as the C library wants it.
    copy: Vec<u8>,
}

/// An automaton and what it found in the lines of a batch.
#[derive(Debug)]
struct Searched {
    automaton: Automaton,
    found: Vec<Matches>,
}

#[derive(Debug)]
enum Compiled {
    /// A bit of an automaton.
    Searched { automaton: usize, bit: usize },
    /// What only the C library understands.
    Library(Regex),
}

impl Selector {
    /// Compiles the patterns, the first bad one being an error, and takes the rules out of the script.
    pub fn new(script: &mut Script<'_>) -> Result<Self, Die> {
        let mut nodes = Vec::new();
        let mut patterns = Vec::new();
        for word in &script.patterns {
            let text = word.argument().to_bytes();
            let node = ere::parse(text).filter(automaton::is_short_enough);
            patterns.push(match node {
                Some(node) => {
                    let number = nodes.len();
                    nodes.push(node);
                    Compiled::Searched { automaton: number / automaton::MOST, bit: number % automaton::MOST }
                }
                None => {
                    let regex = Regex::compile(text);
                    Compiled::Library(regex.map_err(|invalid| word.refuse(&invalid.reason))?)
                }
            });
        }
        let automata = nodes.chunks(automaton::MOST).filter_map(Automaton::new);
        let automata = automata.map(|automaton| Searched { automaton, found: vec![0; BATCH] }).collect();
        Ok(Selector { rules: std::mem::take(&mut script.rules), patterns, automata, copy: Vec::new() })
    }

    /// Calls `act` for each line, given by its range in the text, and each action that it is for: with the range and
    /// the number of the action, in order. At most [`BATCH`] lines.
    pub fn select(&mut self, text: &[u8], lines: &[Range<usize>], mut act: impl FnMut(&Range<usize>, usize)) {
        let Selector { rules, patterns, automata, copy } = self;
        for searched in automata.iter_mut() {
            searched.automaton.run(text, lines, &mut searched.found);
        }
        for (i, line) in lines.iter().enumerate() {
            let matches = |pattern: usize| match &patterns[pattern] {
                Compiled::Searched { automaton, bit } => automata[*automaton].found[i] >> bit & 1 != 0,
                Compiled::Library(regex) => {
                    copy.clear();
                    copy.extend_from_slice(&text[line.clone()]);
                    copy.push(0);
                    regex.is_match(copy)
                }
            };
            apply(rules, matches, |action| act(line, action));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    /// The actions that a script, in words, has for each line.
    fn actions(script: &str, lines: &[&str]) -> Vec<Vec<usize>> {
        let words: Vec<CString> = script.split_whitespace().map(|w| CString::new(w).unwrap()).collect();
        let mut script = super::super::script::parse(words.iter().map(CString::as_c_str)).unwrap();
        let mut selector = Selector::new(&mut script).unwrap();
        let mut end = 0;
        let ranges: Vec<Range<usize>> = lines
            .iter()
            .map(|line| {
                end += line.len();
                end - line.len()..end
            })
            .collect();
        let mut found = vec![Vec::new(); lines.len()];
        selector.select(lines.concat().as_bytes(), &ranges, |line, action| {
            found[ranges.iter().position(|r| r == line).unwrap()].push(action);
        });
        found
    }

    #[test]
    fn selections_carry_over_from_group_to_group() {
        let lines = ["alpha", "beta", "gamma"];
        assert_eq!(actions("1", &lines), [[0], [0], [0]]);
        assert_eq!(actions("- +m 1", &lines), [vec![], vec![], vec![0]]);
        assert_eq!(actions("-^a 1 +p 2", &lines), [vec![1], vec![0, 1], vec![0, 1]]);
        assert_eq!(actions("- 1 + 2", &lines), [[1], [1], [1]]);
        assert_eq!(actions("-a 1", &lines), [[], [], [] as [usize; 0]]);
    }

    #[test]
    fn f_takes_what_nobody_took() {
        let lines = ["alpha", "beta"];
        assert_eq!(actions("-b 1 f 2", &lines), [[0], [1]]);
        assert_eq!(actions("f 1 f 2 f 1", &lines), [[0], [0]]);
    }

    #[test]
    fn the_c_library_helps_out_with_what_only_it_understands() {
        let want = [vec![0, 1], vec![1], vec![0], vec![]];
        assert_eq!(actions("- +a 1 - +^(^a)?b$ 2", &["ab", "b", "xa", "x"]), want);
    }

    #[test]
    fn more_patterns_than_an_automaton_has_bits_are_no_limit() {
        let script: String = (0..150).map(|i| format!("+x{i}$ 1 - ")).collect();
        let found = actions(&format!("- {script}"), &["x7", "x149", "y"]);
        assert_eq!(found, [vec![7], vec![149], vec![]]);
    }
}
