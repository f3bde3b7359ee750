//! Learning BPE vocabularies, equal to the reference trainers' and many times as fast.
//!
//! Count words ([`count_corpus`], [`count_texts`]), then learn from the counts ([`learn_byte_level`],
//! [`learn_sentencepiece`]). Results depend on the counts alone: neither on the number of threads nor on the order of
//! files and documents. Counts are 64 bits wide.
//!
//! | file | concern |
//! |---|---|
//! | `words.rs`, `word_maps.rs` | the counting map |
//! | `count.rs` | documents to counts, on several threads |
//! | `counts.rs` | counts as files, and their sum |
//! | `sentence.rs`, `scripts.rs` | lines to words as SentencePiece sees them |
//! | `learn.rs` | the merge engine |
//! | `cells.rs`, `pairs.rs`, `places.rs` | what it keeps: words, pairs, where each pair stands |
//! | `around.rs`, `queue.rs` | the neighbours of a merge, the order of candidates |
//! | `fetch.rs` | prefetching |
//! | `given.rs` | tokens that are not learnt |
//! | `byte_level.rs` | the rules of Hugging Face `BpeTrainer` |
//! | `parity.rs` | merges for the language that is worst off |
//! | `sentencepiece.rs` | the rules of SentencePiece |
//! | `piece_merges.rs` | pieces to ranked merges |
//! | `json.rs` | what was learnt as JSON |
//! | `extend.rs` | more merges for an existing tokenizer |
//! | `derive.rs` | which tokens others are made of |

mod around;
mod byte_level;
mod cells;
mod count;
mod counts;
mod derive;
mod extend;
mod fetch;
mod given;
mod json;
mod learn;
mod pairs;
mod parity;
mod piece_merges;
mod places;
mod queue;
mod sentence;
mod sentencepiece;
mod word_maps;
mod words;

pub use byte_level::{ByteLevelOptions, learn_byte_level};
pub use count::{Counted, Cutter, count_corpus, count_texts};
pub use counts::{merge_counts, read_counts, write_counts};
pub use derive::derivations;
pub use extend::{Existing, ExtendOptions, NewToken, extend};
pub use parity::learn_parity;
pub use piece_merges::piece_merges;
pub use sentence::{Omitted, SentenceOptions, Sentences};
pub use sentencepiece::{SentencePieceOptions, learn_sentencepiece};
pub use words::WordCounts;

use crate::Error;

/// What a piece of the vocabulary is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// Learnt, or a member of the alphabet.
    Normal,
    /// Given by the caller; never part of a merge.
    Special,
    /// `<0xNN>`
    Byte,
}

/// An entry of the vocabulary; its id is its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// As written in the vocabulary: mapped bytes, or U+2581 for a space.
    pub text: String,
    /// SentencePiece's score; 0 in the byte-level style.
    pub score: f32,
    /// What it is for.
    pub kind: PieceKind,
}

/// What learning gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedBpe {
    /// The vocabulary.
    pub pieces: Vec<Piece>,
    /// Pairs of ids, most important first.
    pub merges: Vec<(u32, u32)>,
}

fn too_small(wanted: usize, supported: usize, min_frequency: u64) -> Error {
    Error::argument(format!(
        "vocab_size: {wanted}; this corpus supports at most {supported} entries with min_frequency {min_frequency}\n\n\
         Ask for at most {supported}, give more text, or accept fewer entries (`accept_fewer`, `--accept-fewer`)."
    ))
}
