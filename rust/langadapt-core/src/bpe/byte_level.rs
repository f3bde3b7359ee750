//! Text to pieces for byte-level tokenizers (GPT-2, Llama-3, Qwen): every byte is a symbol.
//!
//! The files write bytes as printable characters (`Ġ` is a space); here pieces are kept as bytes, and text is never
//! rewritten.

use std::ops::Range;

pub use super::alphabet::{byte_of, bytes_of, characters_of};
use super::cutting::Cutting;
use super::merges::{Merges, Scratch};
use super::piece_cache::Cache;
use super::spec::{Model, Split};
use super::vocab::Vocab;
use crate::pretokenize::Cuts;

/// In place of an id.
const NONE: u32 = u32::MAX;

/// How this tokenizer turns text into pieces and pieces into ids.
#[derive(Debug)]
pub struct ByteLevel {
    cutting: Cutting,
    symbols: Box<[u32; 256]>,
    /// With `ignore_merges`: ids of whole pieces, by their bytes.
    whole_pieces: Option<Vocab>,
}

impl ByteLevel {
    /// # Errors
    /// The reason why this tokenizer cannot be encoded here.
    pub fn new(model: &Model, vocab: &Vocab, splits: &[Split]) -> Result<Self, String> {
        let mut symbols = Box::new([0; 256]);
        for (byte, symbol) in symbols.iter_mut().enumerate() {
            let character = characters_of(&[byte as u8]);
            *symbol = match vocab.id(character.as_bytes()) {
                Some(id) => id,
                // Without an unknown token, such bytes vanish; with one, they would fuse in ways not done here.
                None if model.unk_token.is_none() && model.byte_fallback != Some(true) => NONE,
                None => return Err(format!("the vocabulary has no piece for byte {byte} ({character})")),
            };
        }
        let whole_pieces = (model.ignore_merges == Some(true)).then(|| {
            Vocab::new(vocab.iter().filter_map(|(piece, id)| Some((bytes_of(std::str::from_utf8(piece).ok()?)?, id))))
        });
        Ok(Self { cutting: Cutting::new(splits)?, symbols, whole_pieces })
    }

    /// Appends the ids of one section of text.
    pub fn encode(&self, text: &str, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        self.cutting.each_section(text, |section| {
            let bytes = section.as_bytes();
            let mut cuts = Cuts::new(self.cutting.words(), bytes);
            let encode = |word: Range<usize>, ids: &mut Vec<u32>, scratch: &mut Scratch| {
                self.encode_word(&bytes[word], merges, ids, scratch);
            };
            cache.encode_pieces(bytes, out, |at| cuts.next(at), encode);
        });
    }

    /// The ids of what steps behind `ByteLevel` go on cutting; remembered as a whole.
    fn encode_word(&self, word: &[u8], merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if self.cutting.within().0.is_empty() {
            return self.encode_piece(word, merges, ids, scratch);
        }
        let mut part = Vec::new();
        self.cutting.within().for_each(word, |from, to| {
            part.clear();
            self.encode_piece(&word[from..to], merges, &mut part, scratch);
            ids.extend_from_slice(&part);
        });
    }

    /// The ids of a piece as the vocabulary writes it; none where its characters do not stand for bytes.
    pub(super) fn encode_alone(&self, piece: &str, merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if let Some(bytes) = bytes_of(piece) {
            self.encode_piece(&bytes, merges, ids, scratch);
        }
    }

    fn encode_piece(&self, piece: &[u8], merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if let Some(id) = self.whole_pieces.as_ref().and_then(|pieces| pieces.id(piece)) {
            ids.push(id);
            return;
        }
        self.push_symbols(piece, ids);
        merges.apply(ids, scratch);
    }

    /// The bytes of a piece as ids.
    pub(super) fn push_symbols(&self, piece: &[u8], ids: &mut Vec<u32>) {
        ids.extend(piece.iter().map(|byte| self.symbols[usize::from(*byte)]).filter(|id| *id != NONE));
    }
}
