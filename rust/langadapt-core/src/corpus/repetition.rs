//! Does a text repeat itself? The heuristics of Gopher (Rae et al. 2021, table A1), as FineWeb and FineWeb2 use them.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

use super::ngrams::Grams;
use crate::words::Word;
use crate::{Monitor, Result};

/// Sizes of the n-grams whose most frequent one is measured.
const TOP: [usize; 3] = [2, 3, 4];
/// Sizes of the n-grams whose repeats are measured.
const REPEATED: [usize; 6] = [5, 6, 7, 8, 9, 10];
/// Shorter texts say nothing about repetition: one pair of words is half of a text of four.
const MIN_WORDS: usize = 20;

/// The largest shares that a text may reach. Shares of n-grams are shares of the characters of all words.
#[derive(Debug, Clone, PartialEq)]
pub struct RepetitionLimits {
    /// Lines, and paragraphs (parted by blank lines), that occurred before in the text.
    pub duplicate_lines: f64,
    /// The same, by characters of the text.
    pub duplicate_line_characters: f64,
    /// Paragraphs that occurred before.
    pub duplicate_paragraphs: f64,
    /// The same, by characters of the text.
    pub duplicate_paragraph_characters: f64,
    /// The most frequent n-gram of 2, 3 and 4 words, if it occurs more than once.
    pub top_ngram: [f64; 3],
    /// N-grams of 5 to 10 words that occurred before, not overlapping.
    pub duplicate_ngrams: [f64; 6],
    /// The least share of words with a letter.
    pub min_alphabetic_words: f64,
}

impl Default for RepetitionLimits {
    fn default() -> Self {
        Self {
            duplicate_lines: 0.30,
            duplicate_line_characters: 0.20,
            duplicate_paragraphs: 0.30,
            duplicate_paragraph_characters: 0.20,
            top_ngram: [0.20, 0.18, 0.16],
            duplicate_ngrams: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
            min_alphabetic_words: 0.80,
        }
    }
}

/// Whether `text` stays within `limits`. `words` are those of the text; texts of fewer than twenty are not judged by
/// their words.
pub(super) fn is_within(text: &str, words: &[Word], limits: &RepetitionLimits, monitor: &Monitor) -> Result<bool> {
    let characters = text.chars().count().max(1) as f64;
    let lines = text.split('\n').map(str::trim).filter(|line| !line.is_empty());
    let (share, by_characters) = repeated_parts(lines, characters);
    if share > limits.duplicate_lines || by_characters > limits.duplicate_line_characters {
        return Ok(false);
    }
    monitor.check()?;
    let (share, by_characters) = repeated_parts(paragraphs(text), characters);
    if share > limits.duplicate_paragraphs || by_characters > limits.duplicate_paragraph_characters {
        return Ok(false);
    }
    monitor.check()?;
    if words.len() < MIN_WORDS {
        return Ok(true);
    }
    if alphabetic_share(text) < limits.min_alphabetic_words {
        return Ok(false);
    }
    monitor.check()?;
    let total = words.iter().map(|&(_, length)| f64::from(length)).sum::<f64>();
    let mut grams = Grams::new(words);
    // Asked in order of n: every n-gram that occurs twice begins with an (n-1)-gram that does.
    for (&n, limit) in TOP.iter().zip(&limits.top_ngram) {
        if grams.top(n, monitor)? as f64 > limit * total {
            return Ok(false);
        }
    }
    for (&n, limit) in REPEATED.iter().zip(&limits.duplicate_ngrams) {
        if grams.repeated(n, monitor)? as f64 > limit * total {
            return Ok(false);
        }
    }
    Ok(true)
}

fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty())
}

/// The share of parts that occurred before, by number and by characters.
fn repeated_parts<'a>(parts: impl Iterator<Item = &'a str>, characters: f64) -> (f64, f64) {
    let mut seen = HashSet::<u64, Direct>::default();
    let (mut all, mut repeated, mut repeated_characters) = (0u64, 0u64, 0usize);
    for part in parts {
        all += 1;
        if !seen.insert(xxh3_64(part.as_bytes())) {
            repeated += 1;
            repeated_characters += part.chars().count();
        }
    }
    (repeated as f64 / all.max(1) as f64, repeated_characters as f64 / characters)
}

fn alphabetic_share(text: &str) -> f64 {
    let (mut all, mut alphabetic) = (0u64, 0u64);
    for word in text.split_whitespace() {
        all += 1;
        alphabetic += u64::from(word.chars().any(char::is_alphabetic));
    }
    alphabetic as f64 / all.max(1) as f64
}

/// Hashes keys that are hashes already: takes them as they are.
pub(super) type Direct = BuildHasherDefault<AsIs>;

#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::hashes;

    const PROSE: &str = "Der Nebel lag noch über dem Fluss, als die ersten Boote vom Ufer abstießen und die Männer ihre \
        Netze ordneten. Niemand sprach viel, denn der Morgen war kalt und jeder dachte an die Arbeit, die vor ihm lag.";

    fn is_fine(text: &str) -> bool {
        let monitor = Monitor::default();
        let found = hashes(text, false, &monitor).unwrap();
        is_within(text, &found, &RepetitionLimits::default(), &monitor).unwrap()
    }

    #[test]
    fn prose_passes_and_repeats_do_not() {
        assert!(is_fine(PROSE));
        assert!(is_fine("Kurz."));
        assert!(is_fine(""));
        assert!(!is_fine(&format!("{PROSE}\n{PROSE}\n{PROSE}")), "lines");
        assert!(!is_fine(&format!("{PROSE} {PROSE}")), "n-grams");
        assert!(!is_fine(&"kaufen Sie jetzt ".repeat(30)), "top n-gram");
        assert!(!is_fine(&(0..60).map(|n| format!("{n} ")).collect::<String>()), "no letters");
    }

    #[test]
    fn shares_are_those_of_the_definition() {
        assert_eq!(repeated_parts(["a", "bb", "a", "a"].into_iter(), 10.0), (0.5, 0.2));
    }
}
