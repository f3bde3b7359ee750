//! Byte-pair encoding: learnt merges in, token ids out.
//!
//! | module | concern |
//! |---|---|
//! | [`spec`] | what a tokenizer file says, as plain values |
//! | [`tokenizer_json`] | a Hugging Face `tokenizer.json`, read into them |
//! | [`piece_lists`] | its vocabulary and merges |
//! | [`vocab`] | pieces and ids, both ways |
//! | [`pair_ranks`] | merges as listed, applied one at a time |
//! | `numbering` | which merges ever happen, and numbers for symbols that are ranks |
//! | [`merges`] | the ranked merges and their application to one piece |
//! | [`normalize`] | Unicode normalization forms, as the `tokenizers` package applies them |
//! | [`added`] | added tokens: found before anything else, never cut |
//! | [`piece_cache`] | ids of pieces seen before, per thread |
//! | `piece_key` | a piece as two words |
//! | [`alphabet`] | the characters that stand for bytes |
//! | [`cutting`] | the steps that cut byte-level text |
//! | `cuts` | where SentencePiece-style text may be cut |
//! | [`sentencepiece`] | text to pieces for SentencePiece-style tokenizers (Llama-2, Mistral) |
//! | [`byte_level`] | text to pieces for byte-level tokenizers (GPT-2, Llama-3, Qwen) |
//! | [`encode`] | [`NativeTokenizer`]: all of it in order |
//! | [`batch`] | many texts on several threads |
//! | [`decode`] | ids to text |
//! | [`reach`] | pieces that no text becomes |
//! | [`train`] | learning the merges |

pub mod added;
pub mod alphabet;
pub mod batch;
pub mod byte_level;
mod cuts;
pub mod cutting;
pub mod decode;
pub mod encode;
mod huge;
pub mod merges;
pub mod normalize;
mod numbering;
pub mod pair_ranks;
pub mod piece_cache;
mod piece_key;
pub mod piece_lists;
pub mod reach;
pub mod sentencepiece;
pub mod spec;
pub mod tokenizer_json;
pub mod train;
pub mod vocab;

pub use batch::{CachePool, Encoded, Late, Shares, Text};
pub use encode::{Load, NativeTokenizer};
pub use piece_cache::Cache;
