//! Where text for SentencePiece-style tokenizers may be cut.
//!
//! **Cut theorem.** What a merge makes is a piece of the vocabulary. If no piece that a merge makes contains the
//! neighbours *xy*, then no merge ever joins across a boundary between *x* and *y*, and the text can be cut there
//! without changing a single id. One pass over the vocabulary finds all pairs of neighbouring bytes that occur inside
//! such pieces; everywhere else is a cut.
//!
//! Unknown characters need one more thought: neighbours may be fused into one unknown token, so a cut between two of
//! them would show. Where unknown tokens are possible at all (bytes missing from the vocabulary), only the cut before a
//! space is used, which ends a run of unknowns anyway.
//!
//! A cut may be left out, but for those before spaces that `Metaspace` with `split` asks for. So none are made inside
//! words, even where a pair of letters is in no piece: words are better remembered whole, and most places need no
//! look-up then.

use super::spec::METASPACE;
use crate::byte_masks::{BLOCK, between, equal, letters};

/// First bytes of the two-byte characters that are letters in the main: Latin, Greek, Cyrillic, Hebrew, Arabic. 0xC2
/// before them has the punctuation of Latin-1.
const WIDE_LETTERS: (u8, u8) = (0xC3, 0xDF);
/// Bytes inside a character.
const INSIDE: (u8, u8) = (0x80, 0xBF);

/// Where cuts are allowed, whatever the pieces say.
#[derive(Debug, Clone, Copy)]
pub struct CutRules {
    /// Between any characters.
    pub everywhere: bool,
    /// Before spaces.
    pub before_spaces: bool,
    /// Before spaces, also inside of pieces.
    pub before_all_spaces: bool,
}

/// The pairs of bytes between which text may be cut.
#[derive(Debug)]
pub struct Cuts {
    /// A bit for each pair, by `first << 8 | second`.
    table: Box<[u64; 1 << 10]>,
    /// Every space that follows something else has a cut before it.
    before_words: bool,
    /// No letter that follows a space has one.
    none_behind_spaces: bool,
}

impl Cuts {
    /// `pieces`: what merges make, as the vocabulary writes it.
    pub fn new<'a>(rules: CutRules, pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut cut = vec![rules.everywhere; 1 << 16];
        let pair = |first: u8, second: u8| usize::from(first) << 8 | usize::from(second);
        let set_before_spaces = |cut: &mut Vec<bool>| (0..=255).for_each(|first| cut[pair(first, b' ')] = true);
        if rules.before_spaces {
            set_before_spaces(&mut cut);
        }
        let mut spaced = Vec::new();
        for piece in pieces {
            put_spaces(piece, &mut spaced);
            spaced.windows(2).for_each(|bytes| cut[pair(bytes[0], bytes[1])] = false);
        }
        let ascii = || (b'A'..=b'Z').chain(b'a'..=b'z');
        for first in ascii() {
            let second = ascii().chain(WIDE_LETTERS.0..=WIDE_LETTERS.1);
            second.for_each(|second| cut[pair(first, second)] = false);
        }
        for second in INSIDE.0..=INSIDE.1 {
            (0..=255).for_each(|first| cut[pair(first, second)] = false);
        }
        if rules.before_all_spaces {
            set_before_spaces(&mut cut);
        }
        let mut table = Box::new([0; 1 << 10]);
        cut.iter().enumerate().for_each(|(at, cut)| table[at / 64] |= u64::from(*cut) << (at % 64));
        Self {
            table,
            before_words: (0..=255).all(|first| first == b' ' || cut[pair(first, b' ')]),
            none_behind_spaces: ascii().all(|second| !cut[pair(b' ', second)]),
        }
    }

    #[inline(always)]
    fn is_between(&self, first: u8, second: u8) -> u64 {
        let pair = usize::from(first) << 8 | usize::from(second);
        self.table[pair / 64] >> (pair % 64) & 1
    }

    /// The first cut in `text` that comes behind `before`; it may be before its first byte.
    pub fn first(&self, text: &[u8], mut before: u8) -> usize {
        let is_cut = |byte: &u8| self.is_between(std::mem::replace(&mut before, *byte), *byte) == 1;
        text.iter().position(is_cut).unwrap_or(text.len())
    }

    /// All cuts inside of `text`, and its end.
    pub fn ends<'t>(&'t self, text: &'t [u8]) -> Ends<'t> {
        Ends { cuts: self, text, at: 0, block: 0, found: 0 }
    }
}

/// `piece` with spaces for `▁`.
fn put_spaces(mut piece: &[u8], spaced: &mut Vec<u8>) {
    spaced.clear();
    while let Some((first, rest)) = piece.split_first() {
        let after = piece.strip_prefix(METASPACE.as_bytes());
        spaced.push(if after.is_some() { b' ' } else { *first });
        piece = after.unwrap_or(rest);
    }
}

/// Ends of the parts of a text, one after the other, found 64 bytes at a time.
#[derive(Debug)]
pub struct Ends<'t> {
    cuts: &'t Cuts,
    text: &'t [u8],
    /// Where the next block begins.
    at: usize,
    /// Where the block of `found` begins.
    block: usize,
    /// Cuts of that block that were not told yet.
    found: u64,
}

impl Ends<'_> {
    /// The next end.
    #[inline(always)]
    pub fn next(&mut self) -> usize {
        while self.found == 0 {
            if self.at >= self.text.len() {
                return self.text.len();
            }
            self.look();
        }
        let end = self.block + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        end
    }

    /// Finds the cuts of the next block.
    #[inline]
    fn look(&mut self) {
        let (text, at, cuts) = (self.text, self.at, self.cuts);
        let len = (text.len() - at).min(BLOCK);
        let mut rest = [0; BLOCK];
        let block = match text[at..].first_chunk::<BLOCK>() {
            Some(block) => block,
            None => {
                rest[..len].copy_from_slice(&text[at..]);
                &rest
            }
        };
        let before = if at == 0 { 0 } else { text[at - 1] };
        let (letters, blanks) = (letters(block), equal(block, b' '));
        let behind_letters = letters << 1 | u64::from(before.is_ascii_alphabetic());
        let behind_blanks = blanks << 1 | u64::from(before == b' ');
        let never = letters & behind_letters
            | between(block, WIDE_LETTERS.0, WIDE_LETTERS.1) & behind_letters
            | between(block, INSIDE.0, INSIDE.1);
        // The first byte of all has nothing before it.
        let mut open = !never & u64::MAX >> (BLOCK - len) & !u64::from(at == 0);
        let mut found = 0;
        if cuts.before_words {
            found = blanks & !behind_blanks & open;
            open &= !found;
        }
        if cuts.none_behind_spaces {
            open &= !(letters & behind_blanks);
        }
        while open != 0 {
            let place = at + open.trailing_zeros() as usize;
            found |= cuts.is_between(text[place - 1], text[place]) << (place - at);
            open &= open - 1;
        }
        (self.found, self.block, self.at) = (found, at, at + len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cuts(everywhere: bool, before_spaces: bool, before_all_spaces: bool, pieces: &[&str]) -> Cuts {
        let rules = CutRules { everywhere, before_spaces, before_all_spaces };
        Cuts::new(rules, pieces.iter().map(|piece| piece.as_bytes()))
    }

    fn ends(cuts: &Cuts, text: &str) -> Vec<usize> {
        let mut ends = cuts.ends(text.as_bytes());
        let mut all = vec![ends.next()];
        while all.last() != Some(&text.len()) {
            all.push(ends.next());
        }
        all
    }

    #[test]
    fn pieces_forbid_cuts() {
        let cuts = cuts(true, true, false, &["▁ab", "▁▁", ".c", "ß,"]);
        assert_eq!(ends(&cuts, " ab  ab. xy.cß,,"), [3, 7, 8, 9, 11, 16, 17]);
        assert_eq!(cuts.first(b"ab. c", b' '), 2);
        assert_eq!(cuts.first(b"", b' '), 0);
    }

    #[test]
    fn without_all_bytes_only_before_spaces() {
        assert_eq!(ends(&cuts(false, true, false, &["  "]), "a,b  c 1d"), [3, 6, 9]);
        assert_eq!(ends(&cuts(false, false, true, &["  "]), "a,b  c 1d"), [3, 4, 6, 9]);
    }

    proptest! {
        #[test]
        fn same_as_one_by_one(
            text in "[a-cA ,.1 ßäλж中😀\u{a0}]{0,300}", rules in any::<[bool; 3]>(),
            pieces in proptest::collection::vec("[a-c ,.1ßä中]{2,4}", 0..6),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let cuts = cuts(rules[0], rules[1], rules[2], &pieces);
            let mut expected: Vec<usize> = (1..text.len())
                .filter(|at| cuts.is_between(text.as_bytes()[at - 1], text.as_bytes()[*at]) == 1)
                .collect();
            prop_assert!(expected.iter().all(|at| text.is_char_boundary(*at)));
            expected.push(text.len());
            prop_assert_eq!(ends(&cuts, &text), expected);
        }
    }
}
