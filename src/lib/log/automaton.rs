//! Many regular expressions in one pass over many lines.
//!
//! The expressions become one deterministic automaton. Its states are made when a line first leads to them, and all
//! thrown away when they are too many, so that no expression costs more than its own simulation. Each byte of a line
//! is one look into a table; lines are taken several at a time, because each look must wait for the one before it,
//! but only in its own line.
//!
//! A state is the set of places in the expressions that may be reached after the bytes so far, and the set of
//! expressions that have matched already. Those stay matched, so all that counts is the state at the end of the line.

use std::array;
use std::collections::BTreeMap;
use std::ops::Range;

use super::ere::{ByteSet, Node};

/// The most expressions of one automaton.
pub const MOST: usize = 64;

/// Which of the expressions match, as bits.
pub type Matches = u64;

/// Lines that are taken at the same time.
const LANES: usize = 4;
/// Places of one expression; one that needs more is not worth an automaton.
const LONGEST: usize = 4000;
/// Entries of the table, 4 bytes each, before all states are made anew.
const TABLE: usize = 1 << 18;
/// The row of a state that was not made yet. No row has this bit.
const UNKNOWN: u32 = 1 << 31;
/// The row of the beginning of a line.
const START: u32 = 0;
/// Bytes between looks whether the rest of a line can change anything.
const STRETCH: usize = 64;

/// A place in an expression.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Takes a byte of the set, then goes on there.
    Byte(ByteSet, u32),
    /// Goes on there and there.
    Fork(u32, u32),
    /// At the beginning of the line, goes on there.
    Start(u32),
    /// At the end of the line, goes on there.
    End(u32),
    /// The expression matches.
    Match,
}

#[derive(Debug)]
struct Expression {
    places: Range<u32>,
    entry: u32,
}

/// What tells one state from another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct State {
    /// Places that wait for a byte or for the end, in order.
    places: Vec<u32>,
    /// Expressions that have matched. None of the places is theirs.
    matched: Matches,
    /// Whether no byte was seen yet.
    at_start: bool,
}

/// The automaton of some expressions.
#[derive(Debug)]
pub struct Automaton {
    expressions: Vec<Expression>,
    places: Vec<Place>,
    /// Expressions that can begin to match behind the beginning of a line.
    unanchored: Matches,
    /// Bytes of one class are the same to all expressions.
    classes: [u8; 256],
    /// A row for each state: for each class the row of the next state, then whether nothing can change any more.
    table: Vec<u32>,
    /// Entries of a row.
    width: usize,
    /// For each state what it is, and what matches if the line ends here.
    states: Vec<(State, Matches)>,
    rows: BTreeMap<State, u32>,
}

impl Automaton {
    /// For at most [`MOST`] expressions. `None` if one of them is too long for an automaton.
    pub fn new(expressions: &[Node]) -> Option<Self> {
        debug_assert!(expressions.len() <= MOST);
        let mut places = Vec::new();
        let expressions: Option<_> = expressions.iter().map(|node| Expression::new(&mut places, node)).collect();
        let (classes, width) = classify(&places);
        let mut automaton = Automaton {
            expressions: expressions?,
            places,
            unanchored: 0,
            classes,
            table: Vec::new(),
            width: width + 1,
            states: Vec::new(),
            rows: BTreeMap::new(),
        };
        let anywhere = automaton.enter(&State::default(), false);
        automaton.unanchored = anywhere.matched;
        for (i, expression) in automaton.expressions.iter().enumerate() {
            if anywhere.places.iter().any(|place| expression.places.contains(place)) {
                automaton.unanchored |= 1 << i;
            }
        }
        automaton.add_start();
        Some(automaton)
    }

    /// Finds which expressions match each of the lines, which are ranges of the text.
    pub fn run(&mut self, text: &[u8], lines: &[Range<usize>], matches: &mut [Matches]) {
        struct Lane {
            line: usize,
            rest: Range<usize>,
        }
        let Some(first) = lines.first_chunk::<LANES>() else {
            for (line, result) in lines.iter().zip(matches) {
                *result = self.run_alone(&text[line.clone()], START);
            }
            return;
        };
        let mut lanes: [Lane; LANES] = array::from_fn(|i| Lane { line: i, rest: first[i].clone() });
        let mut rows = [START; LANES];
        let mut next = LANES;
        'together: loop {
            for (lane, row) in lanes.iter_mut().zip(&mut rows) {
                while lane.rest.is_empty() {
                    matches[lane.line] = self.matches_at_end(*row);
                    let Some(rest) = lines.get(next) else { break 'together };
                    *lane = Lane { line: next, rest: rest.clone() };
                    *row = START;
                    next += 1;
                }
            }
            let steps = lanes.iter().map(|lane| lane.rest.len()).min().unwrap_or(0).min(STRETCH);
            self.walk(array::from_fn(|i| &text[lanes[i].rest.start..][..steps]), &mut rows);
            for (lane, row) in lanes.iter_mut().zip(rows) {
                lane.rest.start = if self.is_settled(row) { lane.rest.end } else { lane.rest.start + steps };
            }
        }
        for (lane, row) in lanes.into_iter().zip(rows) {
            matches[lane.line] = self.run_alone(&text[lane.rest], row);
        }
    }

    fn run_alone(&mut self, text: &[u8], row: u32) -> Matches {
        let mut row = row;
        for stretch in text.chunks(STRETCH) {
            if self.is_settled(row) {
                break;
            }
            stretch.iter().for_each(|&byte| self.step(std::slice::from_mut(&mut row), 0, byte));
        }
        self.matches_at_end(row)
    }

    /// Goes as many steps in each lane as there are bytes, the same number for all.
    fn walk(&mut self, text: [&[u8]; LANES], rows: &mut [u32; LANES]) {
        let mut at = 0;
        while at < text[0].len() {
            at += self.walk_known(text.map(|lane| &lane[at..]), rows);
            if at < text[0].len() {
                (0..LANES).for_each(|i| self.step(rows, i, text[i][at]));
                at += 1;
            }
        }
    }

    /// Goes on while every lane comes to a state that is there already, and says how many steps that was. Written out
    /// for its four lanes, so that their rows are in registers in a build for size, too.
    fn walk_known(&self, [a, b, c, d]: [&[u8]; LANES], rows: &mut [u32; LANES]) -> usize {
        let table = &self.table[..];
        let next = |row: u32, byte: u8| table[row as usize + usize::from(self.classes[usize::from(byte)])];
        let (mut now, mut steps) = ((rows[0], rows[1], rows[2], rows[3]), 0);
        for (((&a, &b), &c), &d) in a.iter().zip(b).zip(c).zip(d) {
            let ahead = (next(now.0, a), next(now.1, b), next(now.2, c), next(now.3, d));
            if (ahead.0 | ahead.1 | ahead.2 | ahead.3) & UNKNOWN != 0 {
                break;
            }
            now = ahead;
            steps += 1;
        }
        *rows = [now.0, now.1, now.2, now.3];
        steps
    }

    /// One step in one lane.
    fn step(&mut self, rows: &mut [u32], lane: usize, byte: u8) {
        let class = usize::from(self.classes[usize::from(byte)]);
        match self.table[rows[lane] as usize + class] {
            UNKNOWN => self.first_step(rows, lane, byte, class),
            next => rows[lane] = next,
        }
    }

    /// One step in one lane, along a way that was not gone before.
    #[cold]
    fn first_step(&mut self, rows: &mut [u32], lane: usize, byte: u8, class: usize) {
        let state = self.after(&self.states[self.index(rows[lane])].0, byte);
        if self.table.len() > TABLE && !self.rows.contains_key(&state) {
            self.start_afresh(rows);
        }
        let next = self.row(state);
        self.table[rows[lane] as usize + class] = next;
        rows[lane] = next;
    }

    /// Forgets all states but those that the lanes are in.
    fn start_afresh(&mut self, rows: &mut [u32]) {
        let kept: Vec<State> = rows.iter().map(|&row| self.states[self.index(row)].0.clone()).collect();
        self.table.clear();
        self.states.clear();
        self.rows.clear();
        self.add_start();
        for (row, state) in rows.iter_mut().zip(kept) {
            *row = self.row(state);
        }
    }

    fn add_start(&mut self) {
        let start = self.enter(&State { at_start: true, ..State::default() }, true);
        let row = self.row(start);
        debug_assert_eq!(row, START);
    }

    /// The row of a state, which is made if it is new.
    fn row(&mut self, state: State) -> u32 {
        if let Some(&row) = self.rows.get(&state) {
            return row;
        }
        let row = self.table.len() as u32;
        let matches = state.matched | self.found_at_end(&state);
        let settled = state.places.is_empty() && self.unanchored & !state.matched == 0;
        self.table.extend(std::iter::repeat_n(if settled { row } else { UNKNOWN }, self.width - 1));
        self.table.push(settled.into());
        self.states.push((state.clone(), matches));
        self.rows.insert(state, row);
        row
    }

    fn index(&self, row: u32) -> usize {
        row as usize / self.width
    }

    /// Whether the rest of the line makes no difference.
    fn is_settled(&self, row: u32) -> bool {
        self.table[row as usize + self.width - 1] != 0
    }

    fn matches_at_end(&self, row: u32) -> Matches {
        self.states[self.index(row)].1
    }

    /// The state that a byte leads to.
    fn after(&self, state: &State, byte: u8) -> State {
        let mut walk = Walk::new(self, false, false);
        for &place in &state.places {
            if let Place::Byte(set, next) = &self.places[place as usize]
                && set.contains(byte)
            {
                walk.go(*next);
            }
        }
        let reached = State { places: walk.waiting, matched: state.matched | walk.matched, at_start: false };
        self.enter(&reached, false)
    }

    /// The state together with the beginnings of all expressions that have not matched yet.
    fn enter(&self, state: &State, at_start: bool) -> State {
        let mut walk = Walk::new(self, at_start, false);
        state.places.iter().for_each(|&place| walk.go(place));
        for (i, expression) in self.expressions.iter().enumerate() {
            if state.matched & (1 << i) == 0 {
                walk.go(expression.entry);
            }
        }
        let matched = state.matched | walk.matched;
        let mut places = walk.waiting;
        places.retain(|&place| matched & (1 << self.owner(place)) == 0);
        places.sort_unstable();
        State { places, matched, at_start: state.at_start }
    }

    /// What matches only because the line ends here.
    fn found_at_end(&self, state: &State) -> Matches {
        let mut walk = Walk::new(self, state.at_start, true);
        state.places.iter().for_each(|&place| walk.go(place));
        walk.matched
    }

    /// The number of the expression that a place belongs to.
    fn owner(&self, place: u32) -> usize {
        self.expressions.partition_point(|expression| expression.places.end <= place)
    }
}

/// The places that can be reached without a byte.
struct Walk<'a> {
    automaton: &'a Automaton,
    at_start: bool,
    at_end: bool,
    seen: Vec<bool>,
    /// Those that wait for a byte, or for the end.
    waiting: Vec<u32>,
    /// Expressions whose end was reached.
    matched: Matches,
}

impl<'a> Walk<'a> {
    fn new(automaton: &'a Automaton, at_start: bool, at_end: bool) -> Self {
        let seen = vec![false; automaton.places.len()];
        Walk { automaton, at_start, at_end, seen, waiting: Vec::new(), matched: 0 }
    }

    fn go(&mut self, from: u32) {
        let mut ahead = vec![from];
        while let Some(place) = ahead.pop() {
            if std::mem::replace(&mut self.seen[place as usize], true) {
                continue;
            }
            match self.automaton.places[place as usize] {
                Place::Fork(one, other) => ahead.extend([one, other]),
                Place::Start(next) if self.at_start => ahead.push(next),
                Place::End(next) if self.at_end => ahead.push(next),
                Place::Start(_) => {}
                Place::Byte(..) | Place::End(_) => self.waiting.push(place),
                Place::Match => self.matched |= 1 << self.automaton.owner(place),
            }
        }
    }
}

/// Whether an expression is of a length that an automaton takes. Counted repetitions make long ones.
pub fn is_short_enough(expression: &Node) -> bool {
    Expression::new(&mut Vec::new(), expression).is_some()
}

impl Expression {
    fn new(places: &mut Vec<Place>, node: &Node) -> Option<Self> {
        let first = places.len();
        places.push(Place::Match);
        let entry = compile(places, node, first as u32, first + LONGEST)?;
        Some(Expression { places: first as u32..places.len() as u32, entry })
    }
}

/// Adds the places of `node`, after which it goes on at `next`, and says where it begins. `None` beyond `limit`.
fn compile(places: &mut Vec<Place>, node: &Node, next: u32, limit: usize) -> Option<u32> {
    let mut add = |place| {
        places.push(place);
        (places.len() <= limit).then(|| places.len() as u32 - 1)
    };
    match node {
        Node::Byte(set) => add(Place::Byte(*set, next)),
        Node::Start => add(Place::Start(next)),
        Node::End => add(Place::End(next)),
        Node::Sequence(nodes) => nodes.iter().rev().try_fold(next, |next, node| compile(places, node, next, limit)),
        Node::Choice(nodes) => {
            let (first, others) = nodes.split_first()?;
            let mut entry = compile(places, first, next, limit)?;
            for node in others {
                let other = compile(places, node, next, limit)?;
                places.push(Place::Fork(entry, other));
                entry = places.len() as u32 - 1;
            }
            Some(entry)
        }
        Node::Repeat(node, least, None) => {
            let again = add(Place::Fork(next, next))?;
            let body = compile(places, node, again, limit)?;
            places[again as usize] = Place::Fork(body, next);
            match least.checked_sub(1) {
                None => Some(again),
                Some(more) => repeat(places, node, more, body, limit),
            }
        }
        Node::Repeat(node, least, Some(most)) => {
            let mut entry = next;
            for _ in *least..*most {
                let body = compile(places, node, entry, limit)?;
                if body == entry {
                    break;
                }
                places.push(Place::Fork(body, next));
                entry = places.len() as u32 - 1;
            }
            repeat(places, node, *least, entry, limit)
        }
    }
}

/// `count` times the node in front of `next`. The empty text repeated is the empty text, at once.
fn repeat(places: &mut Vec<Place>, node: &Node, count: u8, next: u32, limit: usize) -> Option<u32> {
    let mut entry = next;
    for _ in 0..count {
        let body = compile(places, node, entry, limit)?;
        if body == entry {
            break;
        }
        entry = body;
    }
    Some(entry)
}

/// Sorts bytes into classes that no expression looks into, and counts the classes.
fn classify(places: &[Place]) -> ([u8; 256], usize) {
    let mut classes = [0; 256];
    let mut count = 1;
    for place in places {
        let Place::Byte(set, _) = place else { continue };
        let mut parts: BTreeMap<(u8, bool), u8> = BTreeMap::new();
        for byte in 0..=255 {
            let class = &mut classes[usize::from(byte)];
            let fresh = parts.len() as u8;
            *class = *parts.entry((*class, set.contains(byte))).or_insert(fresh);
        }
        count = parts.len();
    }
    (classes, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ere;
    use crate::sys::regex::Regex;
    use proptest::prelude::*;

    /// What the automaton of all patterns says of all lines, which it gets at once.
    fn run(automaton: &mut Automaton, lines: &[Vec<u8>]) -> Vec<Matches> {
        let text = lines.concat();
        let mut end = 0;
        let ranges: Vec<Range<usize>> = lines
            .iter()
            .map(|line| {
                end += line.len();
                end - line.len()..end
            })
            .collect();
        let mut matches = vec![0; lines.len()];
        automaton.run(&text, &ranges, &mut matches);
        matches
    }

    fn matches(patterns: &[&str], lines: &[&str]) -> Vec<Matches> {
        let nodes: Vec<Node> = patterns.iter().map(|p| ere::parse(p.as_bytes()).unwrap()).collect();
        let lines: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        run(&mut Automaton::new(&nodes).unwrap(), &lines)
    }

    #[test]
    fn each_pattern_has_its_bit() {
        let lines = ["error: x", "ok", "", "xx error", "e", "error", "okok", "error ok"];
        let want = [0b011, 0b100, 0b1000, 0b001, 0, 0b011, 0b100, 0b111];
        assert_eq!(matches(&["error", "^error", "ok$", "^$"], &lines), want);
    }

    #[test]
    fn a_long_expression_is_refused_at_once() {
        for pattern in ["((a{255}){255}){255}", "(((a|){255}){255}){255}"] {
            assert!(Automaton::new(&[ere::parse(pattern.as_bytes()).unwrap()]).is_none(), "{pattern}");
        }
        let nothing = ere::parse(b"(((((){255}){255}){255}){255}){255}x").unwrap();
        assert_eq!(run(&mut Automaton::new(&[nothing]).unwrap(), &[b"x".to_vec(), b"y".to_vec()]), [1, 0]);
    }

    #[test]
    fn states_without_number_are_forgotten_in_time() {
        // The state remembers the last 18 bytes: 2^18 states, far more than the table has room for.
        let node = ere::parse(b"a.{17}$").unwrap();
        let mut automaton = Automaton::new(&[node]).unwrap();
        let mut seed = 1u64;
        let lines: Vec<Vec<u8>> = (0..300)
            .map(|i| {
                let mut next = || {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    b"ab"[(seed >> 40) as usize & 1]
                };
                (0..600 + i % 7).map(|_| next()).collect()
            })
            .collect();
        let want: Vec<Matches> = lines.iter().map(|line| (line[line.len() - 18] == b'a').into()).collect();
        assert_eq!(run(&mut automaton, &lines), want);
        assert!(automaton.table.len() < TABLE + 1000);
        assert!(automaton.states.len() > 1);
    }

    /// Patterns of what POSIX defines, over few letters, so that lines match often.
    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        const SETS: [&[u8]; 10] = [
            b"[ab]",
            b"[^a]",
            b"[a-c]",
            b"[]b]",
            b"[^]b-]",
            b"[[:alpha:]-]",
            b"[^[:punct:]c]",
            b"[a\\]",
            b".",
            b"[\x80-\xff]",
        ];
        const LITERALS: [&[u8]; 13] =
            [b"a", b"b", b"c", b"-", b"]", b"}", b"\\.", b"\\/", b"\\\\", b"\\]", b"\\-", b"ab", b","];
        const REPEATS: [&[u8]; 8] = [b"*", b"+", b"?", b"{2}", b"{0}", b"{1,}", b"{0,2}", b"{1,3}"];
        let one_of = |list: &[&'static [u8]]| prop::sample::select(list.to_vec());
        let atom = prop_oneof![2 => one_of(&LITERALS), 1 => one_of(&SETS)].prop_map(<[u8]>::to_vec);
        atom.prop_recursive(5, 40, 4, move |inner| {
            let group = |node: Vec<u8>| [&b"("[..], &node, b")"].concat();
            // musl's regexec misses matches where an anchor meets a branch that may be empty.
            let anchor = one_of(if cfg!(target_env = "musl") { &[b""] } else { &[b"^", b"$", b""] });
            prop_oneof![
                3 => (inner.clone(), one_of(&REPEATS)).prop_map(move |(node, repeat)| [&group(node), repeat].concat()),
                3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|nodes| nodes.concat()),
                2 => prop::collection::vec(inner.clone(), 2..4).prop_map(move |nodes| group(nodes.join(&b'|'))),
                1 => (anchor.clone(), inner, anchor).prop_map(|(start, node, end)| [start, &node, end].concat()),
            ]
        })
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"abc-].,\\/}\xe9 ".to_vec()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn patterns_match_as_the_c_library_says(
            patterns in prop::collection::vec(pattern(), 1..4),
            lines in prop::collection::vec(line(), 0..9),
        ) {
            let understood = patterns.into_iter().filter_map(|pattern| Some((ere::parse(&pattern)?, pattern)));
            let (nodes, patterns): (Vec<Node>, Vec<Vec<u8>>) = understood.unzip();
            let got = run(&mut Automaton::new(&nodes).unwrap(), &lines);
            for (i, pattern) in patterns.iter().enumerate() {
                let regex = Regex::compile(pattern).unwrap();
                for (line, got) in lines.iter().zip(&got) {
                    prop_assert_eq!(got >> i & 1 != 0, regex.is_match(line), "{} on {}", pattern.escape_ascii(), line.escape_ascii());
                }
            }
        }
    }
}
