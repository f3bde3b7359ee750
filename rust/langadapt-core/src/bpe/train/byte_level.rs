//! Merges as Hugging Face `BpeTrainer` (tokenizers 0.23) learns them over the byte-level alphabet.
//!
//! Greedy: highest count first, ties by the smaller pair of ids. Ids: special tokens in the order given, then the
//! alphabet in the order of the *mapped* characters (not of the bytes), then one id per merge. A merge whose text is in
//! the vocabulary already is kept as a merge and takes the old id. Learning ends when the vocabulary is full or the
//! best pair occurs fewer than `min_frequency` times. Counts are 64 bits wide where the reference has 32.

use std::collections::HashMap;

use super::given::{Given, given_merges};
use super::learn::{Learner, Style};
use super::queue::Candidate;
use super::{Piece, PieceKind, TrainedBpe, WordCounts, too_small};
use crate::bpe::byte_level::characters_of;
use crate::{Error, Monitor, Result};

/// How to learn byte-level merges.
#[derive(Debug, Clone)]
pub struct ByteLevelOptions {
    /// Entries of the vocabulary, special tokens and the 256 bytes included.
    pub vocab_size: usize,
    /// A pair that occurs less often is not merged.
    pub min_frequency: u64,
    /// They take the first ids.
    pub special_tokens: Vec<String>,
    /// Tokens that are there before anything is learnt, shorter ones first, as written in the vocabulary: each is made
    /// of two others wherever it occurs. The reference has no such thing.
    pub given_tokens: Vec<String>,
    /// Tokens are shorter than or as long as this many bytes.
    pub max_token_length: Option<usize>,
    /// Whether all 256 bytes are tokens; otherwise only those that occur.
    pub full_alphabet: bool,
    /// Whether a vocabulary that the corpus cannot fill is a result; otherwise it is an error.
    pub accept_fewer: bool,
}

impl Default for ByteLevelOptions {
    fn default() -> Self {
        Self {
            vocab_size: 32_768,
            min_frequency: 2,
            special_tokens: Vec::new(),
            given_tokens: Vec::new(),
            max_token_length: None,
            full_alphabet: true,
            accept_fewer: false,
        }
    }
}

struct HuggingFace {
    max_token_length: usize,
    /// Bytes per symbol.
    lengths: Vec<usize>,
}

impl Style for HuggingFace {
    const QUEUE_ALL: bool = false;

    fn pair(&self, left: u32, right: u32) -> Option<u64> {
        let (l, r) = (self.lengths[left as usize], self.lengths[right as usize]);
        // The reference counts pairs of bytes whatever the limit, and all others if the result stays below it.
        let counted = (l == 1 && r == 1) || l + r < self.max_token_length;
        counted.then_some(u64::from(left) << 32 | u64::from(right))
    }

    fn before(&self, _: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool {
        (b.count, a.tie) < (a.count, b.tie)
    }
}

/// The vocabulary while it grows.
struct Vocabulary {
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    fn id(&mut self, token: String) -> u32 {
        let next = self.tokens.len() as u32;
        *self.ids.entry(token).or_insert_with_key(|token| {
            self.tokens.push(token.clone());
            next
        })
    }
}

/// Learns merges from counted words, which are freed on the way: they take as much memory as learning itself.
///
/// # Errors
/// [`Error::Argument`] if the vocabulary cannot hold the special tokens and the bytes, or if the corpus supports fewer
/// entries than asked for; [`Error::Interrupted`].
pub fn learn_byte_level(words: WordCounts, options: &ByteLevelOptions, monitor: &Monitor) -> Result<TrainedBpe> {
    let mut vocabulary = Vocabulary { tokens: Vec::new(), ids: HashMap::new() };
    for token in &options.special_tokens {
        vocabulary.id(token.clone());
    }
    let specials = vocabulary.tokens.len();
    let symbol_of_byte = alphabet(&words, options, &mut vocabulary);
    let base = vocabulary.tokens.len();
    options.given_tokens.iter().for_each(|token| _ = vocabulary.id(token.clone()));
    let given = given_merges(&options.given_tokens, |text| vocabulary.ids.get(text).copied());
    if vocabulary.tokens.len() > options.vocab_size {
        return Err(Error::argument(format!(
            "vocab_size: {}; special tokens and bytes alone take {} entries",
            options.vocab_size,
            vocabulary.tokens.len()
        )));
    }
    let mut learner = Learner::new(vocabulary.tokens.len());
    let applied = Given::new(&given, vocabulary.tokens.len());
    fill(&mut learner, words, &symbol_of_byte, applied, monitor)?;
    // Special tokens of several characters get their length when a merge makes them.
    let length = |id: usize| if id < base { 1 } else { vocabulary.tokens[id].chars().count() };
    let lengths = (0..vocabulary.tokens.len()).map(length).collect();
    let style = HuggingFace { max_token_length: options.max_token_length.unwrap_or(usize::MAX), lengths };
    let mut merges: Vec<_> = given.iter().map(|&(left, right, _)| (left, right)).collect();
    merges.extend(merge(learner, style, &mut vocabulary, options, monitor)?);
    if vocabulary.tokens.len() < options.vocab_size && !options.accept_fewer {
        return Err(too_small(options.vocab_size, vocabulary.tokens.len(), options.min_frequency));
    }
    let pieces = vocabulary.tokens.into_iter().enumerate().map(|(id, text)| {
        let kind = if id < specials { PieceKind::Special } else { PieceKind::Normal };
        Piece { text, score: 0.0, kind }
    });
    Ok(TrainedBpe { pieces: pieces.collect(), merges })
}

/// Gives the bytes their ids; the symbol of each byte.
fn alphabet(words: &WordCounts, options: &ByteLevelOptions, vocabulary: &mut Vocabulary) -> [u32; 256] {
    let mut seen = [options.full_alphabet; 256];
    if !options.full_alphabet {
        words.for_each(|word, _| word.iter().for_each(|&byte| seen[byte as usize] = true));
    }
    let mut bytes: Vec<(String, u8)> = (0..=255).map(|byte| (characters_of(&[byte]), byte)).collect();
    bytes.sort_unstable();
    let mut symbol_of_byte = [0; 256];
    for (mapped, byte) in bytes.into_iter().filter(|(_, byte)| seen[*byte as usize]) {
        symbol_of_byte[byte as usize] = vocabulary.id(mapped);
    }
    symbol_of_byte
}

/// Special tokens, then all bytes as vocabularies list them; and the symbol of each byte.
pub(super) fn alphabet_of(special_tokens: &[String]) -> (Vec<String>, [u32; 256]) {
    let mut vocabulary = Vocabulary { tokens: Vec::new(), ids: HashMap::new() };
    special_tokens.iter().for_each(|token| _ = vocabulary.id(token.clone()));
    let symbols = alphabet(&WordCounts::default(), &ByteLevelOptions::default(), &mut vocabulary);
    (vocabulary.tokens, symbols)
}

fn fill(
    learner: &mut Learner,
    words: WordCounts,
    symbol_of_byte: &[u32; 256],
    mut given: Given,
    monitor: &Monitor,
) -> Result<()> {
    learner.reserve(words.total_bytes() + words.len());
    words.drain(monitor, |word, count| {
        let symbols = given.applied(word.iter().map(|&byte| symbol_of_byte[byte as usize]));
        learner.push_word(symbols.iter().copied(), count)
    })
}

fn merge(
    mut learner: Learner,
    mut style: HuggingFace,
    vocabulary: &mut Vocabulary,
    options: &ByteLevelOptions,
    monitor: &Monitor,
) -> Result<Vec<(u32, u32)>> {
    learner.count_pairs(&style, monitor)?;
    let wanted = options.vocab_size - vocabulary.tokens.len();
    monitor.begin("learn merges", "merges", Some(wanted as u64));
    let mut merges = Vec::new();
    while vocabulary.tokens.len() < options.vocab_size {
        let Some((best, [left, right])) = learner.next(&style) else { break };
        if best.count < 1 || (best.count as u64) < options.min_frequency {
            break;
        }
        let token = format!("{}{}", vocabulary.tokens[left as usize], vocabulary.tokens[right as usize]);
        let symbol = vocabulary.id(token);
        if symbol as usize >= style.lengths.len() {
            style.lengths.resize(symbol as usize + 1, 1);
        }
        style.lengths[symbol as usize] = style.lengths[left as usize] + style.lengths[right as usize];
        merges.push((left, right));
        learner.step(best, symbol, &style, monitor)?;
        monitor.advance(1)?;
    }
    Ok(last_of_each(merges))
}

/// The reference keeps merges in a map from pair to rank: of a pair that came up twice, the later rank remains.
fn last_of_each(merges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    let last: HashMap<(u32, u32), usize> = merges.iter().enumerate().map(|(rank, &pair)| (pair, rank)).collect();
    (merges.into_iter().enumerate()).filter(|(rank, pair)| last[pair] == *rank).map(|(_, pair)| pair).collect()
}
