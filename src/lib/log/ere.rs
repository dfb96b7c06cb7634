//! POSIX extended regular expressions, parsed: the part that POSIX defines, and so all implementations agree on.
//!
//! Whatever POSIX leaves open (`a**`, `\w`, `{,3}`, `[[:<:]]`, ...), what not all C libraries get right (`(^a)*`), and
//! back-references are not understood here but left to the C library, which also has the words for what is wrong with
//! an expression.

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ByteSet([u64; 4]);

impl ByteSet {
    /// Adds the bytes from `low` to `high`.
    fn add(&mut self, low: u8, high: u8) {
        (low..=high).for_each(|byte| self.0[usize::from(byte >> 6)] |= 1 << (byte & 63));
    }

    /// All other bytes.
    fn complement(self) -> Self {
        ByteSet(self.0.map(|bits| !bits))
    }

    /// Whether the byte is in it.
    pub fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }
}

/// An expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// One byte of a set.
    Byte(ByteSet),
    /// The beginning of the text.
    Start,
    /// The end of the text.
    End,
    /// One after the other; none is the empty text.
    Sequence(Vec<Node>),
    /// One of several.
    Choice(Vec<Node>),
    /// At least and at most that often; `None` is any number of times.
    Repeat(Box<Node>, u8, Option<u8>),
}

impl Node {
    fn has_anchor(&self) -> bool {
        match self {
            Node::Start | Node::End => true,
            Node::Byte(_) => false,
            Node::Sequence(nodes) | Node::Choice(nodes) => nodes.iter().any(Node::has_anchor),
            // No repetition is made of anything that has one.
            Node::Repeat(..) => false,
        }
    }
}

/// How deep parentheses may be nested: far more than anybody writes, and an end to recursion.
const DEEPEST: usize = 64;

/// Parses a pattern; `None` for what is invalid or left open by POSIX.
pub fn parse(pattern: &[u8]) -> Option<Node> {
    let mut parser = Parser { rest: pattern, depth: 0 };
    let node = parser.choice()?;
    parser.rest.is_empty().then_some(node)
}

struct Parser<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn take_if(&mut self, wanted: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn choice(&mut self) -> Option<Node> {
        let mut branches = vec![self.sequence()?];
        while self.take_if(b"|") {
            branches.push(self.sequence()?);
        }
        if branches.len() == 1 { branches.pop() } else { Some(Node::Choice(branches)) }
    }

    /// Up to a `|`, a `)` or the end. That it may be empty is not in POSIX, but everywhere.
    fn sequence(&mut self) -> Option<Node> {
        let mut nodes = Vec::new();
        while !matches!(self.rest.first(), None | Some(b'|' | b')')) {
            let atom = self.atom()?;
            let (least, most) = match self.rest.first() {
                Some(b'*') => (0, None),
                Some(b'+') => (1, None),
                Some(b'?') => (0, Some(1)),
                Some(b'{') => {
                    self.take();
                    nodes.push(self.interval(atom)?);
                    continue;
                }
                _ => {
                    nodes.push(atom);
                    continue;
                }
            };
            self.take();
            nodes.push(self.repeat(atom, least, most)?);
        }
        Some(Node::Sequence(nodes))
    }

    /// A repetition, unless it is itself repeated, or there is an anchor in it: the C libraries disagree on those.
    fn repeat(&self, atom: Node, least: u8, most: Option<u8>) -> Option<Node> {
        let again = matches!(self.rest.first(), Some(b'*' | b'+' | b'?' | b'{'));
        if again || atom.has_anchor() { None } else { Some(Node::Repeat(Box::new(atom), least, most)) }
    }

    /// What follows `{`: `n}`, `n,}` or `n,m}`.
    fn interval(&mut self, atom: Node) -> Option<Node> {
        let least = self.number()?;
        let most = match self.take()? {
            b'}' => return self.repeat(atom, least, Some(least)),
            b',' if self.take_if(b"}") => return self.repeat(atom, least, None),
            b',' => self.number()?,
            _ => return None,
        };
        if self.take_if(b"}") && least <= most { self.repeat(atom, least, Some(most)) } else { None }
    }

    /// At most 255, the least that every implementation takes.
    fn number(&mut self) -> Option<u8> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        crate::text::parse_u32(number)?.try_into().ok()
    }

    fn atom(&mut self) -> Option<Node> {
        Some(match self.take()? {
            b'^' => Node::Start,
            b'$' => Node::End,
            b'.' => Node::Byte(ByteSet::default().complement()),
            b'[' => Node::Byte(self.bracket()?),
            b'(' => {
                self.depth += 1;
                let group = if self.depth > DEEPEST { None } else { self.choice() }?;
                self.depth -= 1;
                if !self.take_if(b")") {
                    return None;
                }
                group
            }
            // A backslash makes a literal of what is special, and, everywhere, of other punctuation.
            b'\\' => match self.take()? {
                byte if byte.is_ascii_punctuation() && !b"<>`'".contains(&byte) => literal(byte),
                _ => return None,
            },
            b'*' | b'+' | b'?' | b'{' => return None,
            byte => literal(byte),
        })
    }

    /// What follows `[`.
    fn bracket(&mut self) -> Option<ByteSet> {
        let mut set = ByteSet::default();
        let negated = self.take_if(b"^");
        let mut first = true;
        loop {
            if self.take_if(b"[:") {
                self.class(&mut set)?;
            } else {
                match self.take()? {
                    b']' if !first => break,
                    b'[' if matches!(self.rest.first(), Some(b'.' | b'=')) => return None,
                    // First or last it is itself; elsewhere it is a range of what POSIX does not say.
                    b'-' if !first && self.rest.first() != Some(&b']') => return None,
                    low => {
                        let high = self.range_end(low)?;
                        set.add(low, high);
                    }
                }
            }
            first = false;
        }
        Some(if negated { set.complement() } else { set })
    }

    /// The end of a range that begins with `low`; `low` itself if there is no range.
    fn range_end(&mut self, low: u8) -> Option<u8> {
        match *self.rest {
            [b'-', b']', ..] | [] => Some(low),
            [b'-', b'[' | b'-', ..] => None,
            [b'-', high, ..] => {
                self.rest = &self.rest[2..];
                if low <= high && low != b'-' { Some(high) } else { None }
            }
            _ => Some(low),
        }
    }

    /// What follows `[:`.
    fn class(&mut self, set: &mut ByteSet) -> Option<()> {
        type Class = (&'static [u8], fn(&u8) -> bool);
        const CLASSES: [Class; 12] = [
            (b"alnum:]", u8::is_ascii_alphanumeric),
            (b"alpha:]", u8::is_ascii_alphabetic),
            (b"blank:]", |b| b" \t".contains(b)),
            (b"cntrl:]", u8::is_ascii_control),
            (b"digit:]", u8::is_ascii_digit),
            (b"graph:]", u8::is_ascii_graphic),
            (b"lower:]", u8::is_ascii_lowercase),
            (b"print:]", |b| b.is_ascii_graphic() || *b == b' '),
            (b"punct:]", u8::is_ascii_punctuation),
            (b"space:]", |b| b.is_ascii_whitespace() || *b == 0x0b),
            (b"upper:]", u8::is_ascii_uppercase),
            (b"xdigit:]", u8::is_ascii_hexdigit),
        ];
        let (_, is_member) = CLASSES.into_iter().find(|(name, _)| self.take_if(name))?;
        (0..=255).filter(is_member).for_each(|byte| set.add(byte, byte));
        Some(())
    }
}

fn literal(byte: u8) -> Node {
    let mut set = ByteSet::default();
    set.add(byte, byte);
    Node::Byte(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_posix_leaves_open_is_not_understood() {
        for pattern in [
            "*a",
            "a**",
            "a+?",
            "a{2}{3}",
            "^*",
            "(^*a)",
            "a|*b",
            "a{,3}",
            "a{1",
            "a{2,1}",
            "a{256}",
            "{",
            "a{x}",
            "(",
            ")",
            "a)",
            "(a",
            "[",
            "[]",
            "[a",
            "[b-a]",
            "[a-c-e]",
            "[--a]",
            "[[.a.]]",
            "[[=a=]]",
            "[a-[.b.]]",
            "[[:word:]]",
            "[[:<:]]",
            "\\",
            "\\w",
            "\\1",
            "(a)\\1",
            "\\<a",
            "\\b",
            "\\n",
            "a\\",
        ] {
            assert_eq!(parse(pattern.as_bytes()), None, "{pattern}");
        }
        assert_eq!(parse("(".repeat(1000).as_bytes()), None);
    }

    #[test]
    fn bracket_expressions_are_sets_of_bytes() {
        let cases: &[(&[u8], &[u8], &[u8])] = &[
            (b"[abc]", b"abc", b"d-"),
            (b"[]a]", b"]a", b"["),
            (b"[^]a]", b"[\xff\0", b"]a"),
            (b"[a-cx-]", b"abcx-", b"dy"),
            (b"[-a]", b"-a", b"b"),
            (b"[[:digit:]a-f]", b"09af", b"gA"),
            (b"[a\\]", b"a\\", b"]"),
            (b"[[:space:]]", b" \t\n\r\x0b\x0c", b"a\0"),
            (b"[\x80-\xff]", b"\x80\xff", b"\x7f"),
            (b".", b"a\0\xff", b""),
        ];
        for (pattern, members, others) in cases {
            let Some(Node::Sequence(nodes)) = parse(pattern) else { panic!("{}", pattern.escape_ascii()) };
            let [Node::Byte(set)] = nodes[..] else { panic!("{}", pattern.escape_ascii()) };
            assert!(members.iter().all(|&b| set.contains(b)), "{}", pattern.escape_ascii());
            assert!(!others.iter().any(|&b| set.contains(b)), "{}", pattern.escape_ascii());
        }
    }
}
