//! The algorithms of langadapt, without Python.
//!
//! The way of the data: `corpus` turns files into documents, `pretokenize` cuts documents into pieces, `bpe` learns
//! and applies merges, `store` keeps token ids on disk, `fertility` counts, `vectors` learns one vector per token,
//! `sparsemax` weighs the old tokens that a new one is made of, `snippets` finds text that shows it. `adamw` steps an
//! optimizer on a CPU, `simplex` projects rows there. Counts are `u64`/`i64`, token ids are `u32`. Nothing here prints,
//! draws or reads the environment.

pub mod adamw;
pub mod bpe;
mod byte_masks;
mod code_points;
pub mod corpus;
pub mod error;
pub mod fertility;
pub mod hash;
pub mod memory;
pub mod pretokenize;
pub mod progress;
pub mod simplex;
pub mod snippets;
pub mod sparsemax;
pub mod store;
mod threads;
pub mod vectors;
mod words;

pub use error::{Error, Result};
pub use progress::{Monitor, Progress};
