//! One vector per token, learnt from a token store: fastText's CBOW without fastText.
//!
//! | file | concern |
//! |---|---|
//! | `cbow.rs` | the model, and how Hogwild threads share it |
//! | `cbow/worker.rs` | one thread: windows, negative sampling, updates |
//! | `subwords.rs` | which rows (the token's own, its character n-grams) make up a token |
//! | `sampling.rs` | random numbers, noise distribution, subsampling of frequent tokens |
//! | `rows.rs` | matrices that several threads write without locks, and the arithmetic on their rows |
//!
//! Memory: at most `(2 * tokens + distinct n-grams of the tokens' surfaces) * dim * 4` bytes, whatever the size of the
//! store. fastText hashes n-grams into 2 million buckets; the surfaces are known here, so no two n-grams collide.

mod cbow;
mod rows;
pub(crate) mod sampling;
mod subwords;

pub use cbow::train;

use crate::{Error, Result};

/// What CBOW training depends on. The defaults are fastText's, with the dimension, epochs, negatives and minimum count
/// that FOCUS (Dobler & de Melo, 2023) uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Width of a vector.
    pub dim: usize,
    /// Passes over the store.
    pub epochs: u32,
    /// Largest distance of a context token; each target draws its own from `1..=window`.
    pub window: usize,
    /// Noise tokens per target.
    pub negatives: usize,
    /// Tokens seen less often get no vector.
    pub min_count: u64,
    /// Learning rate at the start; it falls linearly to zero.
    pub learning_rate: f32,
    /// Tokens more frequent than this share of the corpus are left out at random; 0 keeps all.
    pub subsample: f64,
    /// Shortest and longest character n-gram, markers `<` and `>` counted; `(0, 0)` for none.
    pub ngrams: (usize, usize),
    /// Worker threads. One thread gives the same bits on every run and machine; more threads do not.
    pub threads: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dim: 300,
            epochs: 3,
            window: 5,
            negatives: 10,
            min_count: 10,
            learning_rate: 0.05,
            subsample: 1e-4,
            ngrams: (3, 6),
            threads: 1,
            seed: 0,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let (shortest, longest) = self.ngrams;
        let problem = if self.dim == 0 || self.dim > 1 << 16 {
            format!("dim must be between 1 and 65536: {}", self.dim)
        } else if self.epochs == 0 {
            "epochs must be at least 1: 0".to_owned()
        } else if self.window == 0 || self.window > 1000 {
            format!("window must be between 1 and 1000: {}", self.window)
        } else if self.negatives > 1 << 16 {
            format!("negatives must be at most 65536: {}", self.negatives)
        } else if self.threads == 0 {
            "threads must be at least 1: 0".to_owned()
        } else if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            format!("learning rate must be positive: {}", self.learning_rate)
        } else if !(self.subsample.is_finite() && self.subsample >= 0.0) {
            format!("subsample must not be negative: {}", self.subsample)
        } else if (shortest == 0) != (longest == 0) || shortest > longest {
            format!("n-gram lengths must be 0 and 0 or 1 <= shortest <= longest: {shortest} and {longest}")
        } else {
            return Ok(());
        };
        Err(Error::argument(problem))
    }
}

/// The outcome of [`train`].
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// `vocabulary * dim` values, one row after another; the rows of tokens without a vector are zero.
    pub data: Vec<f32>,
    /// How often each token occurs in the store.
    pub counts: Vec<u64>,
}
