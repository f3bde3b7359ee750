//! Added tokens: strings that are found in the text before anything else and are never cut.
//!
//! As in `tokenizers`: tokens that are not `normalized` are searched in the text as it is, the others in the
//! normalized text of what remains; of overlapping matches the leftmost, of those the longest counts. A match that
//! `single_word` refuses is gone: no shorter token is tried in its place. `lstrip` and `rstrip` swallow white space,
//! and the search goes on behind the bare token, not behind the white space that it swallowed.

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, MatchKind};

use crate::{Error, Result};

/// Bytes of patterns up to which a table of all transitions is made where the patterns are few. Making it takes the
/// square of a pattern such as `[[[[`, minutes for 100 kB; the automaton without it takes a little longer to search.
const LARGEST_TABLE: usize = 4096;

/// One entry of `added_tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedToken {
    /// The string as written in the file.
    pub content: String,
    /// Its id.
    pub id: u32,
    /// Only matches between non-word characters.
    pub single_word: bool,
    /// Swallows white space on its left.
    pub lstrip: bool,
    /// Swallows white space on its right.
    pub rstrip: bool,
    /// Is searched in normalized text.
    pub normalized: bool,
    /// Is left out by `decode(skip_special_tokens=True)`.
    pub special: bool,
}

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Bytes `start..end` are ordinary text.
    Text(usize, usize),
    /// An added token.
    Token(u32),
}

/// A set of added tokens that are searched together.
#[derive(Debug)]
pub struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<AddedToken>,
    /// Whether a space counts as white space for `lstrip` and `rstrip`. It does not where it stands for `▁`.
    space_is_white: bool,
}

impl Finder {
    /// A finder of `tokens` by `patterns` (the searched strings, in the same order); `None` where there are none.
    ///
    /// # Errors
    /// [`Error::Argument`] where the automaton would grow too large.
    pub fn new(tokens: Vec<AddedToken>, patterns: &[String], space_is_white: bool) -> Result<Option<Self>> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton =
            leftmost_longest(patterns).map_err(|error| Error::argument(format!("added tokens: {error}")))?;
        Ok(Some(Self { automaton, tokens, space_is_white }))
    }

    /// Whether any of the patterns occurs in `text`.
    pub fn occurs_in(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }

    /// The sections of `text` in order; they cover it, except for what `lstrip` and `rstrip` swallow.
    ///
    /// As in `tokenizers`: an added token of white space that a token with `rstrip` has swallowed counts twice; with
    /// `lstrip` of its own nothing is left of it, and it is none.
    pub fn split(&self, text: &str, mut each: impl FnMut(Section)) {
        let mut done = 0;
        // The white space that was swallowed last: no stretch of it is walked twice.
        let mut swallowed = 0..0;
        for found in self.automaton.find_iter(text) {
            let token = &self.tokens[found.pattern().as_usize()];
            let (mut start, mut end) = (found.start(), found.end());
            if token.single_word && (ends_with_word(&text[..start]) || starts_with_word(&text[end..])) {
                continue;
            }
            if token.lstrip {
                let before = &text[done.min(start)..start];
                start = (start - before.len() + before.trim_end_matches(|c| self.is_white(c)).len()).max(done);
            }
            if token.rstrip {
                if !(swallowed.start..=swallowed.end).contains(&end) {
                    swallowed = end..text.len() - text[end..].trim_start_matches(|c| self.is_white(c)).len();
                }
                end = swallowed.end;
            }
            // More than the whole token was swallowed; `tokenizers` 0.23 panics here.
            if start > end {
                continue;
            }
            if done < start {
                each(Section::Text(done, start));
            }
            if start < end {
                each(Section::Token(token.id));
            }
            done = end;
        }
        if done != text.len() {
            each(Section::Text(done, text.len()));
        }
    }

    fn is_white(&self, character: char) -> bool {
        character.is_whitespace() && (self.space_is_white || character != ' ')
    }
}

/// An automaton that finds the leftmost of several patterns, of those the longest.
///
/// # Errors
/// It would grow too large.
pub(super) fn leftmost_longest(patterns: &[impl AsRef<[u8]>]) -> std::result::Result<AhoCorasick, BuildError> {
    let is_large = patterns.iter().map(|pattern| pattern.as_ref().len()).sum::<usize>() > LARGEST_TABLE;
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .kind(is_large.then_some(AhoCorasickKind::ContiguousNFA))
        .build(patterns)
}

fn ends_with_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

/// `\w` of the `regex` crate.
fn is_word(character: char) -> bool {
    regex_syntax::try_is_word_character(character).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(content: &str, id: u32) -> AddedToken {
        AddedToken {
            content: content.into(),
            id,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }

    fn split(tokens: Vec<AddedToken>, text: &str) -> Vec<String> {
        let patterns: Vec<String> = tokens.iter().map(|token| token.content.clone()).collect();
        let finder = Finder::new(tokens, &patterns, true).unwrap().unwrap();
        let mut sections = Vec::new();
        finder.split(text, |section| {
            sections.push(match section {
                Section::Text(start, end) => text[start..end].to_owned(),
                Section::Token(id) => format!("#{id}"),
            });
        });
        sections
    }

    #[test]
    fn the_longest_of_the_leftmost_counts() {
        assert_eq!(
            split(vec![token("<s", 0), token("<s>", 1), token("s>x", 2)], "a<s>x<s<"),
            ["a", "#1", "x", "#0", "<"]
        );
    }

    #[test]
    fn white_space_is_swallowed() {
        let both = AddedToken { lstrip: true, rstrip: true, ..token("<m>", 0) };
        assert_eq!(split(vec![both], "a \n<m>\u{a0} <m>b "), ["a", "#0", "#0", "b "]);
    }

    #[test]
    fn single_words_stand_alone() {
        let word = AddedToken { single_word: true, ..token("cat", 0) };
        assert_eq!(split(vec![word], "cat cats, concat _cat-cat"), ["#0", " cats, concat _cat-", "#0"]);
    }

    #[test]
    fn white_space_that_was_swallowed_is_no_token_of_its_own() {
        let mask = AddedToken { rstrip: true, ..token("<m>", 0) };
        let spaces = AddedToken { lstrip: true, ..token("  ", 1) };
        assert_eq!(split(vec![mask.clone(), spaces], "<m>  <m>a"), ["#0", "#0", "a"]);
        assert_eq!(split(vec![mask, token("  ", 1)], "<m>  <m>a"), ["#0", "#1", "#0", "a"]);
    }

    #[test]
    fn long_white_space_takes_linear_time() {
        let space = AddedToken { lstrip: true, rstrip: true, ..token(" ", 0) };
        assert_eq!(split(vec![space], &" ".repeat(1 << 20)), ["#0"]);
    }

    #[test]
    fn long_tokens_take_linear_time() {
        let long = "[".repeat(1 << 20);
        let found = split(vec![token(&format!("{long}<x>"), 0), token("[<", 1)], &format!("a{long}<x>{long}<{long}"));
        assert_eq!(found, ["a", "#0", &long[1..], "#1", &long]);
    }
}
