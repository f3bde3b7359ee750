//! Pieces as `sentencepiece` >= 0.2.2 learns them (`model_type=bpe`).
//!
//! Greedy like the byte-level style, over characters: highest count first, ties by fewer characters, then by the text.
//! A pair whose text is a piece already is dropped without being merged. Characters are ranked by count and kept until
//! `character_coverage` is reached; the others never join a pair. A piece has at most `max_piece_length` characters of
//! one script; digits and control marks stay alone, white space stands in front or alone.
//!
//! Where two different pairs have the same count and the same text, SentencePiece's choice depends on the addresses of
//! its objects; here the smaller pair of symbols wins.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::given::{Given, given_merges};
use super::learn::{Learner, Style};
use super::queue::Candidate;
use super::sentence::{ISOLATE, SPACE, SentenceOptions, class_of};
use super::{Piece, PieceKind, TrainedBpe, WordCounts, piece_merges, too_small};
use crate::{Error, Monitor, Result};

/// How to learn SentencePiece-style pieces. The defaults are the options of Dobler & de Melo (2024).
#[derive(Debug, Clone)]
pub struct SentencePieceOptions {
    /// Entries of the vocabulary in all.
    pub vocab_size: usize,
    /// Share of all characters that must be covered by single-character pieces.
    pub character_coverage: f32,
    /// Whether the 256 bytes are pieces, so that any text can be written.
    pub byte_fallback: bool,
    /// Characters of the longest piece.
    pub max_piece_length: usize,
    /// A pair that occurs less often is not merged. SentencePiece itself goes on down to pairs that no longer occur,
    /// which is 0 here.
    pub min_frequency: u64,
    /// They take the first ids; the first one is the unknown token.
    pub special_tokens: Vec<String>,
    /// Characters that are pieces of their own however rare they are; SentencePiece's option of this name.
    pub required_chars: String,
    /// Pieces that are there before anything is learnt, shorter ones first: each is made of two others wherever it
    /// occurs.
    pub given_tokens: Vec<String>,
    /// Whether a vocabulary that the corpus cannot fill is a result; otherwise it is an error.
    pub accept_fewer: bool,
}

impl Default for SentencePieceOptions {
    fn default() -> Self {
        Self {
            vocab_size: 32_768,
            character_coverage: 0.9995,
            byte_fallback: true,
            max_piece_length: 16,
            min_frequency: 1,
            special_tokens: ["<unk>", "<s>", "</s>", "<pad>"].map(str::to_owned).to_vec(),
            required_chars: String::new(),
            given_tokens: Vec::new(),
            accept_fewer: false,
        }
    }
}

impl SentencePieceOptions {
    /// The pieces that are not learnt, in the order of their ids.
    pub fn meta_pieces(&self) -> Vec<Piece> {
        let special = |text: &String| Piece { text: text.clone(), score: 0.0, kind: PieceKind::Special };
        let mut pieces: Vec<Piece> = self.special_tokens.iter().map(special).collect();
        if self.byte_fallback {
            let byte = |b: u8| Piece { text: format!("<0x{b:02X}>"), score: 0.0, kind: PieceKind::Byte };
            pieces.extend((0..=255).map(byte));
        }
        pieces
    }

    /// How sentences are cut for these options.
    pub fn sentences(&self) -> SentenceOptions {
        let reserved = self.meta_pieces().into_iter().map(|piece| piece.text).collect();
        SentenceOptions { reserved, ..SentenceOptions::default() }
    }
}

/// What decides whether two symbols may join.
#[derive(Debug, Clone, Copy)]
struct Shape {
    start: u32,
    bytes: u32,
    chars: u32,
    /// 0 as long as only inherited characters and white space were seen.
    script: u8,
    space: Space,
    /// Digits, control marks, characters outside the alphabet.
    alone: bool,
}

impl Shape {
    /// The shape of a single character.
    fn of(c: char, start: u32) -> Self {
        let class = class_of(c);
        Self {
            start,
            bytes: c.len_utf8() as u32,
            chars: 1,
            script: if class == SPACE { 0 } else { class },
            space: if class == SPACE { Space::Only } else { Space::None },
            alone: class == ISOLATE,
        }
    }

    /// The shape of this text followed by another, which may join it.
    fn then(&self, next: &Self) -> Self {
        Self {
            start: self.start,
            bytes: self.bytes + next.bytes,
            chars: self.chars + next.chars,
            script: self.script.max(next.script),
            space: match (self.space, next.space) {
                (Space::Only, Space::Only) => Space::Only,
                (Space::None, _) => Space::None,
                _ => Space::First,
            },
            alone: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    None,
    Only,
    First,
}

/// The shapes and texts of symbols; the rules by which they join, and the order of pairs.
pub(super) struct Shapes {
    max_piece_length: u32,
    /// Whether script, digits and spaces matter.
    strict: bool,
    shapes: Vec<Shape>,
    text: Vec<u8>,
}

impl Shapes {
    pub fn new(max_piece_length: u32, strict: bool) -> Self {
        Self { max_piece_length, strict, shapes: Vec::new(), text: Vec::new() }
    }

    fn text(&self, symbol: u32) -> &[u8] {
        let shape = &self.shapes[symbol as usize];
        &self.text[shape.start as usize..(shape.start + shape.bytes) as usize]
    }

    /// The text of two symbols.
    pub fn joined(&self, left: u32, right: u32) -> String {
        String::from_utf8_lossy(&[self.text(left), self.text(right)].concat()).into_owned()
    }

    /// Keeps a symbol out of all pairs.
    pub fn set_apart(&mut self, symbol: u32) {
        self.shapes[symbol as usize].alone = true;
    }

    /// Adds a symbol that is a piece already. One that the rules would not have made never joins.
    pub fn push_text(&mut self, text: &str) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(text.as_bytes());
        let mut shape = Shape { start, bytes: 0, chars: 0, script: 0, space: Space::None, alone: false };
        for c in text.chars() {
            let next = Shape::of(c, start);
            shape.alone |= next.alone || (shape.chars > 0 && !self.may_join(&shape, &next));
            shape = if shape.chars == 0 { next } else { Shape { alone: shape.alone, ..shape.then(&next) } };
        }
        shape.alone &= self.strict;
        self.shapes.push(shape);
    }

    /// Adds the symbol that a pair makes.
    pub fn push_pair(&mut self, left: u32, right: u32) {
        let (a, b) = (self.shapes[left as usize], self.shapes[right as usize]);
        let start = self.text.len() as u32;
        for shape in [a, b] {
            self.text.extend_from_within(shape.start as usize..(shape.start + shape.bytes) as usize);
        }
        self.shapes.push(Shape { start, ..a.then(&b) });
    }

    fn may_join(&self, a: &Shape, b: &Shape) -> bool {
        let scripts = a.script == b.script || a.script == 0 || b.script == 0;
        let spaces = match (a.space, b.space) {
            (Space::Only, Space::Only) => true,
            (Space::Only, Space::None) => a.chars == 1,
            (_, Space::None) => true,
            _ => false,
        };
        !a.alone && !b.alone && (!self.strict || (scripts && spaces))
    }

    /// Characters, then the first seven bytes of the text: enough to decide nearly all ties.
    pub fn pair(&self, left: u32, right: u32) -> Option<u64> {
        let (a, b) = (&self.shapes[left as usize], &self.shapes[right as usize]);
        let chars = a.chars + b.chars;
        if chars > self.max_piece_length || !self.may_join(a, b) {
            return None;
        }
        let text = self.text(left).iter().chain(self.text(right)).take(7);
        let first = text.zip((0..7).rev()).fold(0, |key, (&byte, place)| key | u64::from(byte) << (8 * place));
        Some(u64::from(chars.min(255)) << 56 | first)
    }

    /// Highest count, fewest characters, first in the order of texts.
    pub fn before(&self, pairs: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool {
        if (a.count, b.tie) != (b.count, a.tie) {
            return (b.count, a.tie) < (a.count, b.tie);
        }
        let [p, q] = [a, b].map(|candidate| pairs[candidate.slot as usize]);
        let [x, y] = [p, q].map(|[left, right]| self.text(left).iter().chain(self.text(right)));
        x.cmp(y).then(p.cmp(&q)).is_lt()
    }
}

struct SentencePiece(Shapes);

impl Style for SentencePiece {
    const QUEUE_ALL: bool = true;

    fn pair(&self, left: u32, right: u32) -> Option<u64> {
        self.0.pair(left, right)
    }

    fn before(&self, pairs: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool {
        self.0.before(pairs, a, b)
    }
}

/// Learns pieces from counted words (see [`super::sentence`]).
///
/// # Errors
/// [`Error::Argument`] if there is no word, if the vocabulary cannot hold special pieces and alphabet, or if the corpus
/// supports fewer entries than asked for; [`Error::Interrupted`].
pub fn learn_sentencepiece(words: WordCounts, options: &SentencePieceOptions, monitor: &Monitor) -> Result<TrainedBpe> {
    if options.max_piece_length > 127 {
        return Err(Error::argument(format!("max_piece_length: {}; at most 127", options.max_piece_length)));
    }
    let counts = with_required(count_chars(&words), &options.required_chars);
    let alphabet = covered(&counts, options.character_coverage, &options.required_chars);
    let mut pieces = options.meta_pieces();
    let fixed = pieces.len() + options.given_tokens.len() + alphabet.len();
    if fixed > options.vocab_size {
        return Err(Error::argument(format!(
            "vocab_size: {}; {} special and byte pieces and {} characters take more; \
             ask for more or lower character_coverage",
            options.vocab_size,
            pieces.len(),
            alphabet.len()
        )));
    }
    let mut style = SentencePiece(Shapes::new(options.max_piece_length as u32, true));
    let symbols = base_symbols(&counts, &alphabet, &mut style);
    let first = style.0.shapes.len() as u32;
    options.given_tokens.iter().for_each(|token| style.0.push_text(token));
    let given = given_merges(&options.given_tokens, |text| given_id(text, &options.given_tokens, first, &symbols));
    let mut learner = Learner::new(style.0.shapes.len());
    fill(&mut learner, words, &symbols, Given::new(&given, style.0.shapes.len()), monitor)?;
    let learnt = merge(learner, &mut style, options, options.vocab_size - fixed, monitor)?;
    let given = options.given_tokens.iter().cloned();
    let texts = given.chain(learnt).chain(alphabet.iter().map(char::to_string));
    pieces.extend(texts.enumerate().map(|(index, text)| {
        // The reference counts in `int` and negates a `float`.
        Piece { text, score: -(index as f32), kind: PieceKind::Normal }
    }));
    if pieces.len() < options.vocab_size && !options.accept_fewer {
        return Err(too_small(options.vocab_size, pieces.len(), options.min_frequency));
    }
    let merges = piece_merges(&pieces, monitor)?;
    Ok(TrainedBpe { pieces, merges })
}

/// The symbol of a given token or of a single character; `first` is that of the first given token.
fn given_id(text: &str, given: &[String], first: u32, symbols: &HashMap<char, u32>) -> Option<u32> {
    if let Some(number) = given.iter().position(|token| token == text) {
        return Some(first + number as u32);
    }
    let mut characters = text.chars();
    characters.next().filter(|_| characters.as_str().is_empty()).and_then(|c| symbols.get(&c)).copied()
}

fn chars(word: &[u8]) -> impl Iterator<Item = char> {
    let text = std::str::from_utf8(word).unwrap_or_default();
    text.chars().map(|c| if c == ' ' { '\u{2581}' } else { c })
}

/// Characters by how often they occur, most frequent first.
pub(super) fn count_chars(words: &WordCounts) -> Vec<(char, u64)> {
    let mut low = vec![0u64; 0x3000];
    let mut high: HashMap<char, u64> = HashMap::new();
    words.for_each(|word, count| {
        for c in chars(word) {
            match low.get_mut(c as usize) {
                Some(total) => *total += count,
                None => *high.entry(c).or_default() += count,
            }
        }
    });
    let low = low.into_iter().enumerate().filter_map(|(code, count)| Some((char::from_u32(code as u32)?, count)));
    let mut counts: Vec<(char, u64)> = low.filter(|&(_, count)| count > 0).chain(high).collect();
    counts.sort_unstable_by_key(|&(c, count)| (std::cmp::Reverse(count), c));
    counts
}

/// The same with the characters of `required` that do not occur, last.
fn with_required(mut counts: Vec<(char, u64)>, required: &str) -> Vec<(char, u64)> {
    let missing: BTreeSet<char> = required.chars().filter(|c| counts.iter().all(|known| known.0 != *c)).collect();
    counts.extend(missing.into_iter().map(|c| (c, 0)));
    counts
}

/// The characters that are pieces of their own, most frequent first: those of `required`, then others until `coverage`.
pub(super) fn covered(counts: &[(char, u64)], coverage: f32, required: &str) -> Vec<char> {
    // U+0000 is not counted by the reference; U+001F, which stands for reserved text, is counted and not kept.
    let counted = || counts.iter().filter(|&&(c, _)| c != '\0');
    let all: u64 = counted().map(|&(_, count)| count).sum();
    let is_required = |c: char| required.contains(c);
    let order = counted().filter(|one| is_required(one.0)).chain(counted().filter(|one| !is_required(one.0)));
    let mut before = 0u64;
    let mut kept = HashSet::new();
    for &(c, count) in order {
        if !is_required(c) && (before as f64 / all as f64) as f32 >= coverage {
            break;
        }
        before += count;
        kept.insert(c);
    }
    counts.iter().map(|&(c, _)| c).filter(|c| *c != '\u{1f}' && kept.contains(c)).collect()
}

/// Numbers all characters, those outside the alphabet too, so that words can be written.
fn base_symbols(counts: &[(char, u64)], alphabet: &[char], style: &mut SentencePiece) -> HashMap<char, u32> {
    let known: HashSet<char> = alphabet.iter().copied().collect();
    let mut symbols = HashMap::with_capacity(counts.len());
    for (symbol, &(c, _)) in counts.iter().enumerate() {
        symbols.insert(c, symbol as u32);
        style.0.push_text(c.encode_utf8(&mut [0; 4]));
        if !known.contains(&c) {
            style.0.set_apart(symbol as u32);
        }
    }
    symbols
}

fn fill(
    learner: &mut Learner,
    words: WordCounts,
    symbols: &HashMap<char, u32>,
    mut given: Given,
    monitor: &Monitor,
) -> Result<()> {
    let mut low = vec![0; 0x3000];
    for (code, slot) in low.iter_mut().enumerate() {
        *slot = char::from_u32(code as u32).and_then(|c| symbols.get(&c).copied()).unwrap_or(0);
    }
    let symbol = |c: char| low.get(c as usize).copied().unwrap_or_else(|| symbols[&c]);
    learner.reserve(words.total_bytes() + words.len());
    words.drain(monitor, |word, count| learner.push_word(given.applied(chars(word).map(symbol)).iter().copied(), count))
}

/// The texts of the learnt pieces, best first.
fn merge(
    mut learner: Learner,
    style: &mut SentencePiece,
    options: &SentencePieceOptions,
    wanted: usize,
    monitor: &Monitor,
) -> Result<Vec<String>> {
    learner.count_pairs(style, monitor)?;
    monitor.begin("learn merges", "merges", Some(wanted as u64));
    let mut texts = Vec::new();
    let mut taken: HashSet<String> = options.given_tokens.iter().cloned().collect();
    while texts.len() < wanted {
        let Some((best, [left, right])) = learner.next(style) else { break };
        if (best.count as u64) < options.min_frequency {
            break;
        }
        let symbol = style.0.shapes.len() as u32;
        let text = style.0.joined(left, right);
        if !taken.insert(text.clone()) {
            continue;
        }
        style.0.push_pair(left, right);
        texts.push(text);
        learner.step(best, symbol, style, monitor)?;
        monitor.advance(1)?;
    }
    Ok(texts)
}
