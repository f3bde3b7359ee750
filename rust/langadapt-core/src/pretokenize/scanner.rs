//! A compiled regex at work: where the matches of a text are.
//!
//! **Cost.** A table look-up for each character, a few instructions for each eight letters of ASCII. Where a regex
//! reads far ahead in vain, again and again (`a|a*b` on a text of `a`), what led nowhere is remembered, so that all of
//! it stays linear in the text (Reps 1998).

use std::collections::HashSet;

use super::automaton::{Classes, END, MATCH, ROW, START, compile};
use super::blocks::{Ends, Kinds, View};
use super::characters::{ascii_letters_end, ascii_lower_end, decode};
use super::patterns::Pattern;
use super::syntax::{Node, Outside, parse};

/// A regex whose matches are those of Oniguruma, found in linear time.
pub struct Scanner {
    table: Box<[u16; 1 << 16]>,
    classes: Classes,
    /// By byte: a match may begin with it.
    begins: [bool; 256],
    /// How the bytes of a text stand for characters; none = UTF-8.
    alphabet: Option<Box<[char; 256]>>,
    /// Of GPT-2's regex, which is found a block at a time.
    kinds: Option<Box<Kinds>>,
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Scanner")
    }
}

/// Flags of an entry: no ASCII letter, or no lower-case one, leads out of its row, and a match may end before each.
const LETTERS: u16 = 2;
const LOWER: u16 = 4;
const RUNS: u16 = LETTERS | LOWER;

/// Bytes read in vain, beyond those that were cut, before what leads nowhere is remembered.
const PATIENCE: usize = 1 << 12;

impl Scanner {
    /// # Errors
    /// What in the regex is outside the subset.
    pub fn new(regex: &str) -> Result<Self, Outside> {
        Self::with_tree(regex).map(|(this, _)| this)
    }

    /// The same with the regex as a tree.
    pub(super) fn with_tree(regex: &str) -> Result<(Self, Node), Outside> {
        let node = parse(regex)?;
        if node.is_nullable() {
            return Err(Outside { construct: "a regex that may match nothing".into(), at: 0 });
        }
        let mut this =
            Self::of(&node).ok_or_else(|| Outside { construct: "a regex with too many states".into(), at: 0 })?;
        if regex == Pattern::Gpt2.regex() {
            this.kinds = Some(Box::new(Kinds::new(&this.classes)));
        }
        Ok((this, node))
    }

    /// The scanner of a tree that is not nullable; `None` if it would be too large.
    pub(super) fn of(node: &Node) -> Option<Self> {
        let (rows, classes) = compile(node)?;
        let mut table = Box::new([0; 1 << 16]);
        table.iter_mut().zip(rows.iter().flatten()).for_each(|(to, from)| *to = *from);
        let stays = |row: usize, mut letters: std::ops::RangeInclusive<u8>| {
            letters.all(|letter| rows[row][usize::from(letter)] == (row * ROW) as u16 | MATCH)
        };
        for entry in table.iter_mut().filter(|entry| **entry >= ROW as u16) {
            let row = usize::from(*entry >> 8);
            *entry |= match (stays(row, b'a'..=b'z'), stays(row, b'A'..=b'Z')) {
                (true, true) => LETTERS,
                (true, false) => LOWER,
                _ => 0,
            };
        }
        let begins = begins(&rows[1], &classes);
        Some(Self { table, classes, begins, alphabet: None, kinds: None })
    }

    /// A scanner of one text.
    pub fn literal(text: &str) -> Option<Self> {
        let characters: Vec<Node> = text.chars().map(|c| Node::Class(super::sets::of(c))).collect();
        (!characters.is_empty()).then(|| Self::of(&Node::Concat(characters)))?
    }

    /// Whether there is a match in `text`.
    pub fn is_in(&self, text: &[u8]) -> bool {
        Reader::new(self).find(text, 0).is_some()
    }

    /// Calls `found` with the bounds of every match in `text`, in order.
    pub fn for_each(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let (mut reader, mut from) = (Reader::new(self), 0);
        while let Some((start, end)) = reader.find(text, from) {
            found(start, end);
            from = end;
        }
    }

    /// The same for texts whose every byte stands for a character.
    pub(crate) fn over(self, alphabet: [char; 256]) -> Self {
        let mut this = Self { alphabet: Some(Box::new(alphabet)), kinds: None, ..self };
        let bytes: [u8; 256] = std::array::from_fn(|byte| byte as u8);
        this.begins = std::array::from_fn(|byte| {
            let (column, _) = this.column::<true>(&bytes, byte);
            this.table[usize::from(START) | column] >= START
        });
        this
    }

    /// The entry of the character at `at`, and its width.
    #[inline(always)]
    fn column<const MAPPED: bool>(&self, text: &[u8], at: usize) -> (usize, usize) {
        let byte = text[at];
        if MAPPED {
            let code = self.alphabet.as_ref().map_or(0, |alphabet| alphabet[usize::from(byte)] as u32);
            return (if code < 128 { code as usize } else { self.classes.entry(code) }, 1);
        }
        if byte < 128 {
            return (usize::from(byte), 1);
        }
        let (code, width) = decode(text, at);
        (self.classes.entry(code), width)
    }

    /// Where the match that begins at `start` ends, and whether the text was read no further; else the end is `start`
    /// if there is no match, and comes with how far it was read.
    ///
    /// Which entries a text leads to is left to the processor's guess: where the next piece begins does not wait for
    /// the table, unless more was read than matched.
    #[inline(always)]
    fn walk<const MAPPED: bool>(&self, text: &[u8], start: usize) -> Result<usize, (usize, usize)> {
        let (mut at, mut last, mut row) = (start, start, START);
        while at < text.len() {
            let (column, width) = self.column::<MAPPED>(text, at);
            let entry = self.table[usize::from(row) | column & 0xFF];
            row = entry & 0xFF00;
            if row == 0 {
                return if entry & MATCH != 0 { Ok(at) } else { Err(read_further(last, at)) };
            }
            last = if entry & MATCH != 0 { at } else { last };
            at += width;
            if !MAPPED && entry & RUNS != 0 {
                let end = if entry & LETTERS != 0 { ascii_letters_end(text, at) } else { ascii_lower_end(text, at) };
                last = if end > at { end - 1 } else { last };
                at = end;
            }
        }
        let entry = self.table[usize::from(row) | END];
        if entry & MATCH != 0 { Ok(at) } else { Err(read_further(last, at)) }
    }

    /// [`Scanner::walk`] that stops where it was in vain before, and remembers where it is so now.
    #[cold]
    fn walk_remembering(&self, text: &[u8], start: usize, vain: &mut HashSet<(usize, u16)>) -> usize {
        let (mut at, mut last, mut row) = (start, start, START);
        let mut path = Vec::new();
        while row != 0 && !vain.contains(&(at, row)) {
            path.push((at, row));
            let (column, width) = match self.alphabet {
                _ if at >= text.len() => (END, 0),
                Some(_) => self.column::<true>(text, at),
                None => self.column::<false>(text, at),
            };
            let entry = self.table[usize::from(row) | column];
            if entry & MATCH != 0 {
                last = at;
                path.clear();
            }
            row = entry & 0xFF00;
            at += width;
        }
        vain.extend(path);
        last
    }
}

/// More was read than matched. A function of its own so that both ends are no matter of computing, but of guessing.
#[cold]
#[inline(never)]
fn read_further(last: usize, at: usize) -> (usize, usize) {
    (last, at)
}

/// By byte: whether a match may begin with it; `first` is the row of a match's beginning.
fn begins(first: &[u16; ROW], classes: &Classes) -> [bool; 256] {
    let leads = |entry: usize| first[entry] >= ROW as u16;
    let blocks = classes.blocks_with(leads);
    // The code points from `from` to `to` that a leading byte stands for.
    let any = |from: u32, to: u32| blocks[(from >> 8) as usize..(to >> 8) as usize].contains(&true);
    std::array::from_fn(|byte| match byte as u32 {
        ascii @ 0..0x80 => leads(ascii as usize),
        lead @ 0xC2..0xE0 => ((lead & 0x1F) << 6..((lead & 0x1F) + 1) << 6).any(|code| leads(classes.entry(code))),
        lead @ 0xE0..0xF0 => any((lead & 0xF) << 12, ((lead & 0xF) + 1) << 12),
        lead @ 0xF0..0xF5 => any((lead & 7) << 18, (((lead & 7) + 1) << 18).min(0x11_0000)),
        _ => false,
    })
}

/// A scanner on its way through one text.
#[derive(Debug)]
pub(crate) struct Reader<'s> {
    scanner: &'s Scanner,
    /// Bytes read in vain.
    lost: usize,
    vain: Option<HashSet<(usize, u16)>>,
    /// With [`Scanner::kinds`].
    ends: Ends,
}

impl<'s> Reader<'s> {
    pub fn new(scanner: &'s Scanner) -> Self {
        Self { scanner, lost: 0, vain: None, ends: Ends::default() }
    }

    /// Where the match that begins at `start` ends; `start` if there is none. Where nothing lies between matches, it is
    /// asked for one after the other, from the beginning of the text on.
    #[inline(always)]
    pub fn end(&mut self, text: &[u8], start: usize) -> usize {
        if let Some(kinds) = self.scanner.kinds.as_deref() {
            let scanner = self.scanner;
            let view = View { text, kinds, classes: &scanner.classes };
            let by_table = || scanner.walk::<false>(text, start).unwrap_or_else(|(last, _)| last);
            return self.ends.next(view, start, by_table);
        }
        if self.lost > PATIENCE + 4 * start {
            return self.scanner.walk_remembering(text, start, self.vain.get_or_insert_default());
        }
        let end = match self.scanner.alphabet {
            None => self.scanner.walk::<false>(text, start),
            Some(_) => self.scanner.walk::<true>(text, start),
        };
        end.unwrap_or_else(|(last, at)| {
            self.lost += at - last;
            last
        })
    }

    /// The first match that begins at `from` or later.
    #[inline]
    pub fn find(&mut self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let mut start = from;
        let begins = |byte: &u8| self.scanner.begins[usize::from(*byte)];
        // Where a match may begin somewhere in eight bytes is not asked one by one: nearly always nowhere.
        while let Some(chunk) = text.get(start..start + 8)
            && !chunk.iter().fold(false, |any, byte| any | begins(byte))
        {
            start += 8;
        }
        while start < text.len() {
            if self.scanner.begins[usize::from(text[start])] {
                let end = self.end(text, start);
                if end > start {
                    return Some((start, end));
                }
            }
            start += 1;
        }
        None
    }
}
