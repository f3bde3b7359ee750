//! One step of cutting: a scanner, and what becomes of its matches and of the text between them.

use regex_syntax::hir::ClassUnicode;

use super::characters::decode;
use super::scanner::{Reader, Scanner};
use super::sets;
use super::syntax::{Node, Outside};

/// What becomes of a match, in the words of the `tokenizers` package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

impl Behavior {
    /// The behaviour of that name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "Removed" => Self::Removed,
            "Isolated" => Self::Isolated,
            "MergedWithPrevious" => Self::MergedWithPrevious,
            "MergedWithNext" => Self::MergedWithNext,
            "Contiguous" => Self::Contiguous,
            _ => return None,
        })
    }
}

/// Cuts texts at what a regex matches.
#[derive(Debug)]
pub struct Split {
    pub(super) scanner: Scanner,
    pub(super) behavior: Behavior,
    /// What the regex matches counts as between matches, and the other way round.
    pub(super) invert: bool,
    /// Whether every match is a piece.
    keeps_matches: bool,
    /// The regex, where it may be fused with another.
    pub(super) tree: Option<Node>,
    /// What lies between matches is also cut where one of these sets begins or ends.
    pub(super) seams: Vec<ClassUnicode>,
}

impl Split {
    fn by(scanner: Scanner, behavior: Behavior, invert: bool) -> Self {
        let keeps_matches = behavior == Behavior::Isolated || (behavior == Behavior::Removed && invert);
        Self { scanner, behavior, invert, keeps_matches, tree: None, seams: Vec::new() }
    }

    /// Every match of `tree`, and what lies between two, cut at the seams.
    pub(super) fn with_seams(scanner: Scanner, tree: Node, seams: Vec<ClassUnicode>) -> Self {
        Self { tree: Some(tree), seams, ..Self::by(scanner, Behavior::Isolated, false) }
    }

    /// # Errors
    /// What in the regex is outside the subset.
    pub fn new(regex: &str, behavior: Behavior, invert: bool) -> Result<Self, Outside> {
        let (scanner, tree) = Scanner::with_tree(regex)?;
        Ok(Self { tree: Some(tree), ..Self::by(scanner, behavior, invert) })
    }

    /// Cuts at a text.
    pub fn at_text(text: &str, behavior: Behavior, invert: bool) -> Option<Self> {
        Some(Self::by(Scanner::literal(text)?, behavior, invert))
    }

    /// Cuts at single characters.
    pub fn at_characters(is: impl Fn(char) -> bool, behavior: Behavior) -> Option<Self> {
        let tree = Node::Class(sets::that(is));
        Some(Self { tree: Some(tree.clone()), ..Self::by(Scanner::of(&tree)?, behavior, false) })
    }

    /// The same for texts whose every byte stands for a character.
    pub fn over(self, alphabet: [char; 256]) -> Self {
        Self { scanner: self.scanner.over(alphabet), tree: None, ..self }
    }

    /// Where the first of the seams in a stretch is; its end if there is none.
    fn seam(&self, text: &[u8], from: usize, to: usize) -> usize {
        let (mut at, mut before) = (from, None);
        while at < to {
            let (code, width) = if text[at] < 128 { (u32::from(text[at]), 1) } else { decode(text, at) };
            let sides: Vec<bool> = self.seams.iter().map(|set| sets::holds(set, code)).collect();
            if before.is_some_and(|before| before != sides) {
                return at;
            }
            before = Some(sides);
            at += width;
        }
        to
    }
}

/// A stretch of text, and whether it counts as a match.
type Stretch = (usize, usize, bool);

/// The pieces of one text, one after the other.
#[derive(Debug)]
pub(super) struct Pieces<'s> {
    split: &'s Split,
    reader: Reader<'s>,
    /// A match that was found behind a stretch without one.
    found: Option<(usize, usize)>,
    /// A stretch that was looked at and belongs to the next piece.
    ahead: Option<Stretch>,
}

impl<'s> Pieces<'s> {
    pub fn new(split: &'s Split) -> Self {
        Self { split, reader: Reader::new(&split.scanner), found: None, ahead: None }
    }

    /// The piece that begins at `start`, the end of the one before, or behind what is removed there.
    #[inline(always)]
    pub fn next(&mut self, text: &[u8], start: usize) -> Option<(usize, usize)> {
        // Nearly every regex matches wherever a match before it ended.
        if self.split.keeps_matches && self.found.is_none() && start < text.len() {
            let end = self.reader.end(text, start);
            if end > start {
                return Some((start, end));
            }
        }
        self.joined(text, start)
    }

    /// The next stretch from `start` on.
    fn stretch(&mut self, text: &[u8], start: usize) -> Option<Stretch> {
        if let Some(ahead) = self.ahead.take() {
            return Some(ahead);
        }
        if start >= text.len() {
            return None;
        }
        if let Some((from, to)) = self.found.take() {
            return Some((from, to, !self.split.invert));
        }
        self.found = self.reader.find(text, start);
        match self.found {
            Some((from, to)) if from == start => {
                self.found = None;
                Some((from, to, !self.split.invert))
            }
            Some((from, _)) => Some((start, from, self.split.invert)),
            None => Some((start, text.len(), self.split.invert)),
        }
    }

    #[inline(never)]
    fn joined(&mut self, text: &[u8], start: usize) -> Option<(usize, usize)> {
        let (mut from, mut to, mut is_match) = self.stretch(text, start)?;
        match self.split.behavior {
            Behavior::Removed => {
                while is_match {
                    (from, to, is_match) = self.stretch(text, to)?;
                }
            }
            Behavior::Contiguous => {
                while let Some(next) = self.stretch(text, to) {
                    if next.2 != is_match {
                        self.ahead = Some(next);
                        break;
                    }
                    to = next.1;
                }
            }
            // A match joins the stretch before it, unless that is a match, too.
            Behavior::MergedWithPrevious if !is_match => match self.stretch(text, to) {
                Some((_, end, true)) => to = end,
                next => self.ahead = next,
            },
            Behavior::MergedWithNext if is_match => match self.stretch(text, to) {
                Some((_, end, false)) => to = end,
                next => self.ahead = next,
            },
            Behavior::Isolated if !is_match && !self.split.seams.is_empty() => {
                let seam = self.split.seam(text, from, to);
                if seam < to {
                    self.ahead = Some((seam, to, false));
                    to = seam;
                }
            }
            Behavior::Isolated | Behavior::MergedWithPrevious | Behavior::MergedWithNext => {}
        }
        Some((from, to))
    }
}
