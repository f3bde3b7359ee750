//! Duplicates: exact by a 128-bit hash, near by MinHash and locality-sensitive hashing.
//!
//! MinHash as FineWeb sets it: shingles of 5 words, 14 bands of 8 hashes. Two texts whose shingle sets have the
//! Jaccard similarity s share a band with probability 1 - (1 - s^8)^14: 0.6 % at s = 0.4, 56 % at 0.7, 92 % at 0.8,
//! 99.96 % at 0.9.
//!
//! A text is dropped when it shares a band with an earlier text **that was kept**. Memory: 16 bytes per text for exact
//! duplicates and 112 for near ones, times at most 2.3 for the tables' free room.

use std::collections::HashSet;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::repetition::{Direct, Word};

const SHINGLE: usize = 5;
const BANDS: usize = 14;
const ROWS: usize = 8;
const HASHES: usize = BANDS * ROWS;

/// One key per band.
pub(super) type Bands = [u64; BANDS];

/// The hash functions, all of the form (a x + b) / 2^16 mod 2^32.
pub(super) struct MinHash {
    factors: [u64; HASHES],
    offsets: [u64; HASHES],
}

impl MinHash {
    pub fn new() -> Self {
        let draw = |n: usize, seed| xxh3_64_with_seed(&(n as u64).to_le_bytes(), seed);
        Self {
            // 32-bit odd factors: the product of two 32-bit numbers is one SIMD instruction everywhere.
            factors: std::array::from_fn(|n| draw(n, 1) >> 32 | 1),
            offsets: std::array::from_fn(|n| draw(n, 2) >> 1),
        }
    }

    /// Band keys of a text with these words; `None` for a text without words, which resembles nothing.
    pub fn bands(&self, words: &[Word]) -> Option<Bands> {
        if words.is_empty() {
            return None;
        }
        let mut least = [u32::MAX; HASHES];
        for shingle in words.windows(SHINGLE.min(words.len())) {
            self.add(hash_of(shingle), &mut least);
        }
        Some(std::array::from_fn(|band| {
            let mut bytes = [0; 4 * ROWS];
            for (slot, value) in bytes.chunks_exact_mut(4).zip(&least[band * ROWS..]) {
                slot.copy_from_slice(&value.to_le_bytes());
            }
            xxh3_64_with_seed(&bytes, band as u64)
        }))
    }

    fn add(&self, shingle: u32, least: &mut [u32; HASHES]) {
        let shingle = u64::from(shingle);
        for ((least, factor), offset) in least.iter_mut().zip(&self.factors).zip(&self.offsets) {
            let value = (factor.wrapping_mul(shingle).wrapping_add(*offset) >> 16) as u32;
            *least = (*least).min(value);
        }
    }
}

fn hash_of(words: &[Word]) -> u32 {
    let mut bytes = [0; 8 * SHINGLE];
    for (slot, (word, _)) in bytes.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    (xxh3_64_with_seed(&bytes, 3) >> 32) as u32
}

/// What was kept so far.
#[derive(Default)]
pub(super) struct Seen {
    texts: HashSet<u128, Direct>,
    bands: HashSet<u64, Direct>,
}

impl Seen {
    /// Whether a text with this hash was seen before; notes it.
    pub fn is_repeat(&mut self, hash: u128) -> bool {
        !self.texts.insert(hash)
    }

    /// Whether a text resembles one that was kept; if not, it is kept and noted.
    pub fn resembles(&mut self, bands: &Bands) -> bool {
        if bands.iter().any(|band| self.bands.contains(band)) {
            return true;
        }
        self.bands.extend(bands);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::repetition::words;
    use super::*;

    /// `shared` of 200 words in common with all others, the rest own.
    fn text(id: u32, shared: u32) -> String {
        (0..200).map(|n| if n < shared { format!("gemeinsam{n} ") } else { format!("eigen{id}x{n} ") }).collect()
    }

    /// How many of 200 pairs of texts share a band.
    fn caught(shared: u32) -> usize {
        let hashes = MinHash::new();
        (0..200)
            .filter(|pair| {
                let rename =
                    |text: String| text.replace("gem", &format!("gem{pair}x")).replace("eig", &format!("eig{pair}x"));
                let mut seen = Seen::default();
                let mut resembles = |id| {
                    let text = rename(text(id, shared));
                    seen.resembles(&hashes.bands(&words(&text, true)).unwrap())
                };
                assert!(!resembles(1));
                resembles(2)
            })
            .count()
    }

    #[test]
    fn the_share_caught_follows_the_formula() {
        // Shingles in common of all shingles: s = shared' / (2 * 196 - shared') with shared' = shared - 4.
        for (shared, low, high) in [(200, 200, 200), (191, 196, 200), (166, 75, 145), (116, 0, 8), (0, 0, 0)] {
            let found = caught(shared);
            assert!((low..=high).contains(&found), "{shared} words in common: {found} of 200 caught");
        }
    }

    #[test]
    fn case_and_punctuation_do_not_matter_and_empty_texts_resemble_nothing() {
        let hashes = MinHash::new();
        let of = |text: &str| hashes.bands(&words(text, true));
        assert_eq!(of("Der Hund, bellt – laut!"), of("der hund bellt laut"));
        assert_eq!(of(" ... "), None);
        assert!(of("ein").is_some());
    }

    #[test]
    fn exact_repeats() {
        let mut seen = Seen::default();
        assert!(!seen.is_repeat(1) && !seen.is_repeat(1 << 64 | 1) && seen.is_repeat(1));
    }
}
