//! A regex in Oniguruma's spelling, read into a tree: the subset that published tokenizers cut text with.
//!
//! What is outside is named, with the place of its first character: nothing is taken for something similar.

use regex_syntax::hir::ClassUnicode;

use super::sets;

/// Part of a regex.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// One character.
    Class(ClassUnicode),
    /// The next character is one of these, or there is none and `end` says that this will do, too.
    Look {
        next: ClassUnicode,
        end: bool,
    },
    Concat(Vec<Self>),
    /// The first that leads to a match wins.
    Alternate(Vec<Self>),
    Repeat {
        node: Box<Self>,
        min: u32,
        max: Option<u32>,
        lazy: bool,
    },
}

impl Node {
    /// Whether it may match without a character.
    pub fn is_nullable(&self) -> bool {
        match self {
            Self::Class(_) => false,
            Self::Look { .. } => true,
            Self::Concat(parts) => parts.iter().all(Self::is_nullable),
            Self::Alternate(parts) => parts.iter().any(Self::is_nullable),
            Self::Repeat { node, min, .. } => *min == 0 || node.is_nullable(),
        }
    }
}

/// Why a regex is not compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// What is outside the subset.
    pub construct: String,
    /// Where it begins: characters before it.
    pub at: usize,
}

impl std::fmt::Display for Outside {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} at character {}", self.construct, self.at + 1)
    }
}

pub(super) type Result<T> = std::result::Result<T, Outside>;

/// Reads a whole regex.
pub(super) fn parse(regex: &str) -> Result<Node> {
    let mut parser = Parser { text: regex.chars().collect(), at: 0, fold: false, depth: 0 };
    if parser.eat("(?i)") {
        parser.fold = true;
    }
    let node = parser.alternatives()?;
    if parser.at < parser.text.len() {
        return parser.outside("unmatched `)`", parser.at);
    }
    Ok(node)
}

/// Groups and classes within each other.
const DEEPEST: u32 = 50;
/// Repetitions are written out; more than so often is nobody's pattern.
const MOST_REPEATS: u32 = 1000;
/// What folds to one character together, and begins with ASCII.
const FOLDED_TOGETHER: [&str; 5] = ["ff", "fi", "fl", "ss", "st"];

pub(super) struct Parser {
    pub text: Vec<char>,
    pub at: usize,
    /// `(?i:`
    pub fold: bool,
    depth: u32,
}

impl Parser {
    pub fn outside<T>(&self, construct: impl Into<String>, at: usize) -> Result<T> {
        Err(Outside { construct: construct.into(), at })
    }

    pub fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    pub fn sees(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(n, c)| self.text.get(self.at + n) == Some(&c))
    }

    pub fn eat(&mut self, text: &str) -> bool {
        let there = self.sees(text);
        if there {
            self.at += text.chars().count();
        }
        there
    }

    pub fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == DEEPEST {
            return self.outside(format!("more than {DEEPEST} groups within each other"), self.at);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn alternatives(&mut self) -> Result<Node> {
        let mut parts = vec![self.concatenation()?];
        while self.eat("|") {
            parts.push(self.concatenation()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Node::Alternate(parts) })
    }

    fn concatenation(&mut self) -> Result<Node> {
        let mut parts = Vec::new();
        // The literal characters just before, which may fold together.
        let mut literals = String::new();
        while let Some(character) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            let start = self.at;
            let atom = self.atom()?;
            if self.at == start + 1 && self.fold {
                literals.push(character.to_ascii_lowercase());
                if FOLDED_TOGETHER.iter().any(|pair| literals.ends_with(pair)) {
                    return self.outside("a pair of letters that folds to one, without regard to case,", start - 1);
                }
            } else {
                literals.clear();
            }
            parts.push(self.repeated(atom)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Node::Concat(parts) })
    }

    fn atom(&mut self) -> Result<Node> {
        let start = self.at;
        let character = self.text[start];
        self.at += 1;
        match character {
            '(' => self.deeper(|parser| parser.group(start)),
            '[' => Ok(Node::Class(self.deeper(|parser| parser.class(start))?)),
            '\\' => self.escape(start),
            '.' => Ok(Node::Class(sets::not(&sets::of('\n')))),
            '$' => Ok(Node::Look { next: sets::of('\n'), end: true }),
            '^' => self.outside("the anchor `^`", start),
            '*' | '+' | '?' => self.outside(format!("`{character}` with nothing to repeat"), start),
            _ => Ok(Node::Class(self.literal(character, start)?)),
        }
    }

    /// What follows a `(`.
    fn group(&mut self, start: usize) -> Result<Node> {
        let fold = self.fold;
        let look = if self.eat("?=") {
            Some(true)
        } else if self.eat("?!") {
            Some(false)
        } else {
            if self.eat("?i:") {
                self.fold = true;
            } else if self.eat("?-i:") {
                self.fold = false;
            } else if !self.eat("?:") && self.peek() == Some('?') {
                let what = match self.text.get(self.at + 1) {
                    Some('<') if matches!(self.text.get(self.at + 2), Some('=' | '!')) => "looking behind",
                    Some('<' | '\'') => "a named group",
                    Some('>') => "an atomic group",
                    Some('#') => "a comment",
                    _ => "a group with options",
                };
                return self.outside(what, start);
            }
            None
        };
        let node = self.alternatives()?;
        self.fold = fold;
        if !self.eat(")") {
            return self.outside("unmatched `(`", start);
        }
        let Some(wanted) = look else { return Ok(node) };
        match first_of(&node) {
            Some((next, end)) if wanted => Ok(Node::Look { next, end }),
            Some((next, end)) => Ok(Node::Look { next: sets::not(&next), end: !end }),
            None => self.outside("looking ahead at more than one character", start),
        }
    }

    /// What follows a `\` outside of a class.
    fn escape(&mut self, start: usize) -> Result<Node> {
        let Some(character) = self.peek() else { return self.outside("a `\\` at the end", start) };
        match character {
            'z' => {
                self.at += 1;
                Ok(Node::Look { next: ClassUnicode::empty(), end: true })
            }
            '0'..='9' | 'k' | 'g' => self.outside("a reference to a group", start),
            'A' | 'Z' | 'b' | 'B' | 'G' | 'y' | 'Y' => self.outside(format!("the anchor `\\{character}`"), start),
            _ => {
                let (class, single) = self.class_escape(start)?;
                match single {
                    Some(character) => Ok(Node::Class(self.literal(character, start)?)),
                    None if self.fold => self.outside("a class without regard to case", start),
                    None => Ok(Node::Class(class)),
                }
            }
        }
    }

    /// `node` with what repeats it.
    fn repeated(&mut self, node: Node) -> Result<Node> {
        let start = self.at;
        let Some((min, max, interval)) = self.quantifier()? else { return Ok(node) };
        if matches!(node, Node::Look { .. }) {
            return self.outside("a repetition of what takes no character", start);
        }
        if max.is_none() && node.is_nullable() {
            return self.outside("an endless repetition of what may be empty", start);
        }
        let possessive = self.eat("+");
        let lazy = !possessive && self.eat("?");
        if lazy && interval && max == Some(min) {
            return self.outside("a `?` behind a number of repetitions", start);
        }
        let behind = self.at;
        if self.quantifier()?.is_some() {
            return self.outside("a repetition of a repetition", behind);
        }
        let repeat = |node, min, max| Node::Repeat { node: Box::new(node), min, max, lazy };
        if !possessive {
            return Ok(repeat(node, min, max));
        }
        match node {
            // Oniguruma reads this as a repetition of the repetition.
            node if interval && min > 0 => Ok(repeat(repeat(node, min, max), 1, None)),
            // What gives nothing back has something else behind it.
            Node::Class(class) if !interval => {
                let end = Node::Look { next: sets::not(&class), end: true };
                let repeated = repeat(Node::Class(class), min, max);
                Ok(Node::Concat(if max.is_some() { vec![taken_or_absent(repeated, end)] } else { vec![repeated, end] }))
            }
            _ => self.outside("a possessive repetition of more than one character", start),
        }
    }

    /// Least, most, and whether it is written with numbers.
    fn quantifier(&mut self) -> Result<Option<(u32, Option<u32>, bool)>> {
        let start = self.at;
        for (sign, least, most) in [("*", 0, None), ("+", 1, None), ("?", 0, Some(1))] {
            if self.eat(sign) {
                return Ok(Some((least, most, false)));
            }
        }
        if !self.eat("{") {
            return Ok(None);
        }
        let least = self.number();
        let comma = self.eat(",");
        let most = if comma { self.number() } else { least };
        if !self.eat("}") || (least.is_none() && most.is_none()) {
            return self.outside("a `{` that is not written `\\{`", start);
        }
        let least = least.unwrap_or(0);
        if most.is_some_and(|most| most < least || most == 0) || least.max(most.unwrap_or(0)) > MOST_REPEATS {
            return self.outside(format!("a repetition of {least} to {}", most.unwrap_or(0)), start);
        }
        Ok(Some((least, most, true)))
    }

    fn number(&mut self) -> Option<u32> {
        let from = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.text[from..self.at].iter().collect::<String>().parse().ok()
    }
}

/// `x?+`: the character, or, only where it is not there, nothing.
fn taken_or_absent(repeated: Node, absent: Node) -> Node {
    match repeated {
        Node::Repeat { node, .. } => Node::Alternate(vec![*node, absent]),
        other => other,
    }
}

/// The characters that a look-ahead comes down to, and whether the end of the text will do.
fn first_of(node: &Node) -> Option<(ClassUnicode, bool)> {
    match node {
        Node::Class(class) => Some((class.clone(), false)),
        Node::Look { next, end } => Some((next.clone(), *end)),
        Node::Repeat { node, min: 1, .. } => first_of(node),
        Node::Alternate(parts) => {
            let mut all = (ClassUnicode::empty(), false);
            for part in parts {
                let (class, end) = first_of(part)?;
                all.0.union(&class);
                all.1 |= end;
            }
            Some(all)
        }
        Node::Concat(_) | Node::Repeat { .. } => None,
    }
}
