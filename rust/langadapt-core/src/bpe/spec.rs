//! What a tokenizer file says, as plain values: read by `tokenizer_json.rs`, built from by `encode.rs`.

use serde::Deserialize;

use super::added::AddedToken;
use super::normalize::Step;
use super::piece_lists::{MergeList, PieceList};
use crate::pretokenize::Behavior;

/// The metaspace: what a space becomes in SentencePiece-style tokenizers.
pub const METASPACE: &str = "▁";

/// The contents of a `tokenizer.json`.
#[derive(Debug, Default)]
pub struct Spec {
    /// The model: pieces and merges.
    pub model: Model,
    /// Added tokens with the ids of the file.
    pub added: Vec<AddedToken>,
    /// Unicode forms and replacements, applied first.
    pub normal: Vec<Step>,
    /// A `▁` is put before every section.
    pub prepend: bool,
    /// Spaces become `▁`.
    pub replace: bool,
    /// How text is split.
    pub splits: Vec<Split>,
    /// How pieces become text.
    pub decoder: Option<Vec<DecodeStep>>,
    /// Ids put before a text.
    pub prefix: Vec<u32>,
    /// Ids put behind a text.
    pub suffix: Vec<u32>,
}

/// The `model` of type `BPE`.
#[derive(Debug, Default, Deserialize)]
pub struct Model {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) dropout: Option<f64>,
    /// Stands for characters that have no piece.
    pub unk_token: Option<String>,
    pub(super) continuing_subword_prefix: Option<String>,
    pub(super) end_of_word_suffix: Option<String>,
    /// Neighbouring unknown characters make one token.
    pub fuse_unk: Option<bool>,
    /// Characters that have no piece become tokens of their bytes.
    pub byte_fallback: Option<bool>,
    /// A piece that is in the vocabulary is taken whole, whatever the merges say.
    pub ignore_merges: Option<bool>,
    /// Pieces and ids, in the order of the file.
    pub vocab: PieceList,
    /// Left and right piece of every merge, in order of rank.
    pub merges: MergeList,
}

/// One step of the pre-tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// `Metaspace` with `▁`.
    Metaspace {
        /// Where a `▁` is put in front.
        prepend: Prepend,
        /// Whether every `▁` begins a piece.
        split: bool,
    },
    /// `ByteLevel`.
    ByteLevel {
        /// Every section begins with a space.
        add_prefix_space: bool,
        /// The text is split by the regex of GPT-2.
        use_regex: bool,
    },
    /// `Split`.
    At {
        /// What it splits at.
        at: Target,
        /// What becomes of it.
        behavior: Behavior,
        /// What is not `at` counts as it.
        invert: bool,
    },
    /// `Digits`: numeric characters apart from others, all together or one by one.
    Digits {
        /// One by one.
        individual: bool,
    },
    /// `Punctuation`.
    Punctuation(Behavior),
}

/// A `pattern`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Target {
    Text(String),
    Regex(String),
}

/// `prepend_scheme` of `Metaspace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Prepend {
    Always,
    First,
    Never,
}

/// One step of the decoder; each takes and gives a list of strings, which are joined at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeStep {
    /// Byte characters back to bytes, all in one; what is no UTF-8 becomes `U+FFFD`.
    ByteLevel,
    /// Runs of `<0xNN>` to characters, or to one `U+FFFD` for each byte where the run is no UTF-8.
    ByteFallback,
    /// All strings in one.
    Fuse,
    /// `replacement` to spaces, except in the first string, where it goes.
    Metaspace {
        /// The stand-in for a space.
        replacement: char,
        /// Whether it is dropped from the first string.
        drop_first: bool,
    },
    /// At most `start` and `stop` times `content` off the ends of every string.
    Strip {
        /// What is taken off.
        content: char,
        /// How often at the start.
        start: usize,
        /// How often at the end.
        stop: usize,
    },
    /// One string for another.
    Replace {
        /// The string that goes.
        from: String,
        /// The string that comes.
        to: String,
    },
}
