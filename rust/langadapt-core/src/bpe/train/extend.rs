//! Going on where an existing tokenizer's merges end.
//!
//! Words are encoded with the existing merges first; new merges are learnt over the tokens that come out and rank
//! behind the old ones. An encoder applies all old merges before any new one, because a new token is no part of an old
//! merge: so it repeats the steps of learning, and every new token is reached. Text of the old vocabulary is therefore
//! never learnt again.

use std::collections::HashMap;

use super::learn::{Learner, Style};
use super::queue::Candidate;
use super::sentencepiece::{Shapes, count_chars, covered};
use super::{WordCounts, too_small};
use crate::bpe::byte_level::characters_of;
use crate::bpe::merges::{ID_LIMIT, Merges, Scratch};
use crate::{Error, Monitor, Result};

/// An existing vocabulary with its merges.
#[derive(Debug)]
pub struct Existing<'a> {
    /// Token of each id; empty where an id is free.
    pub tokens: &'a [String],
    /// (left, right, result), best first.
    pub merges: &'a [(u32, u32, u32)],
    /// Whether tokens are bytes in disguise; else they are text with U+2581 for a space.
    pub byte_level: bool,
    /// Whether a word that is a token is taken whole.
    pub ignore_merges: bool,
    /// Tokens that never join, such as special ones.
    pub apart: &'a [u32],
}

/// How many tokens to add, and which may be.
#[derive(Debug, Clone, Copy)]
pub struct ExtendOptions {
    /// New tokens.
    pub new_tokens: usize,
    /// A pair that occurs less often is not merged.
    pub min_frequency: u64,
    /// Longest new token: bytes in the byte-level style, characters in the other.
    pub max_token_length: usize,
    /// Whether fewer new tokens are a result; otherwise they are an error.
    pub accept_fewer: bool,
}

/// A new token and the pair of ids that makes it, none for a letter; its id is the number of old ids plus its place.
pub type NewToken = (String, Option<(u32, u32)>);

/// Share of the characters of a text that are to be tokens, the rare ones left to bytes: that of training.
const COVERAGE: f32 = 0.9995;

/// Learns new tokens from counted words.
///
/// In the style of characters, letters that the vocabulary lacks come first, most frequent first: without them no token
/// of another script could be learnt.
///
/// # Errors
/// [`crate::Error::Argument`] if the corpus supports fewer new tokens than asked for; [`crate::Error::Interrupted`].
pub fn extend(
    words: WordCounts,
    existing: &Existing<'_>,
    options: &ExtendOptions,
    monitor: &Monitor,
) -> Result<Vec<NewToken>> {
    if existing.tokens.len() >= ID_LIMIT {
        let tokens = existing.tokens.len();
        return Err(Error::argument(format!(
            "cannot extend a vocabulary of {tokens} entries: {ID_LIMIT} is the limit"
        )));
    }
    let ids = existing.tokens.iter().zip(0u32..).filter(|(token, _)| !token.is_empty());
    let mut ids: HashMap<String, u32> = ids.map(|(token, id)| (token.clone(), id)).collect();
    let letters = if existing.byte_level { Vec::new() } else { missing_letters(&words, &ids, options) };
    ids.extend(letters.iter().cloned().zip(existing.tokens.len() as u32..));
    let tokens: Vec<String> = existing.tokens.iter().chain(&letters).cloned().collect();
    let mut found: Vec<NewToken> = letters.into_iter().map(|letter| (letter, None)).collect();
    let wanted = options.new_tokens - found.len();
    let existing = &Existing { tokens: &tokens, ..*existing };
    let mut shapes = Shapes::new(options.max_token_length as u32, !existing.byte_level);
    for token in existing.tokens {
        shapes.push_text(token);
    }
    existing.apart.iter().for_each(|&id| shapes.set_apart(id));
    // One symbol for what is not in the vocabulary, which never joins.
    shapes.push_text("");
    let outside = existing.tokens.len() as u32;
    shapes.set_apart(outside);
    let mut learner = Learner::new(existing.tokens.len() + 1);
    encode_words(&mut learner, words, existing, &ids, outside, monitor)?;
    let mut style = Extension { shapes, ids, byte_level: existing.byte_level };
    found.extend(merge(learner, &mut style, tokens.len() as u32, wanted, options.min_frequency, monitor)?);
    if found.len() < options.new_tokens && !options.accept_fewer {
        let total = tokens.len() - found.iter().filter(|(_, pair)| pair.is_none()).count();
        return Err(too_small(total + options.new_tokens, total + found.len(), options.min_frequency));
    }
    Ok(found)
}

/// Characters of the text that are no tokens, most frequent first.
fn missing_letters(words: &WordCounts, ids: &HashMap<String, u32>, options: &ExtendOptions) -> Vec<String> {
    let counts = count_chars(words);
    let rare = counts.iter().position(|(_, count)| *count < options.min_frequency).unwrap_or(counts.len());
    let covered = covered(&counts, COVERAGE, "").into_iter().take(rare).map(String::from);
    covered.filter(|letter| !ids.contains_key(letter)).take(options.new_tokens).collect()
}

fn encode_words(
    learner: &mut Learner,
    words: WordCounts,
    existing: &Existing<'_>,
    ids: &HashMap<String, u32>,
    outside: u32,
    monitor: &Monitor,
) -> Result<()> {
    let base = |c: char| ids.get(c.encode_utf8(&mut [0; 4]) as &str).copied().unwrap_or(outside);
    let merges = Merges::new(existing.merges, existing.tokens.len() + 1, |id, symbols| {
        symbols.extend(existing.tokens[id as usize].chars().map(base));
    });
    let (mut symbols, mut scratch) = (Vec::new(), Scratch::default());
    words.drain(monitor, |word, count| {
        let text = if existing.byte_level {
            characters_of(word)
        } else {
            String::from_utf8_lossy(word).replace(' ', "\u{2581}")
        };
        symbols.clear();
        match ids.get(&text).filter(|_| existing.ignore_merges) {
            Some(&id) => symbols.push(id),
            None => {
                symbols.extend(text.chars().map(base));
                // Unknown symbols have no merges, so they stay where they are and keep their neighbours apart.
                merges.apply(&mut symbols, &mut scratch);
            }
        }
        learner.push_word(symbols.iter().copied(), count)
    })
}

struct Extension {
    shapes: Shapes,
    ids: HashMap<String, u32>,
    byte_level: bool,
}

impl Style for Extension {
    const QUEUE_ALL: bool = false;

    fn pair(&self, left: u32, right: u32) -> Option<u64> {
        let tie = self.shapes.pair(left, right)?;
        let known = self.ids.contains_key(&self.shapes.joined(left, right));
        let by_ids = u64::from(left) << 32 | u64::from(right);
        (!known).then_some(if self.byte_level { by_ids } else { tie })
    }

    fn before(&self, pairs: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool {
        if self.byte_level { (b.count, a.tie) < (a.count, b.tie) } else { self.shapes.before(pairs, a, b) }
    }
}

fn merge(
    mut learner: Learner,
    style: &mut Extension,
    first: u32,
    wanted: usize,
    min_frequency: u64,
    monitor: &Monitor,
) -> Result<Vec<NewToken>> {
    learner.count_pairs(style, monitor)?;
    monitor.begin("learn merges", "merges", Some(wanted as u64));
    let mut found: Vec<NewToken> = Vec::new();
    while found.len() < wanted {
        let Some((best, [left, right])) = learner.next(style) else { break };
        if best.count < 1 || (best.count as u64) < min_frequency {
            break;
        }
        let text = style.shapes.joined(left, right);
        // Symbols are one ahead of ids, because of the one for what is outside the vocabulary.
        let symbol = first + 1 + found.len() as u32;
        if style.ids.contains_key(&text) {
            continue;
        }
        style.ids.insert(text.clone(), symbol);
        style.shapes.push_pair(left, right);
        let id = |symbol: u32| if symbol > first { symbol - 1 } else { symbol };
        found.push((text, Some((id(left), id(right)))));
        learner.step(best, symbol, style, monitor)?;
        monitor.advance(1)?;
    }
    Ok(found)
}
