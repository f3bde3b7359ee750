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

use super::repetition::Direct;
use crate::words::Word;
use crate::{Monitor, Result};

const SHINGLE: usize = 5;
const BANDS: usize = 14;
const ROWS: usize = 8;
const HASHES: usize = BANDS * ROWS;
/// Shingles between two looks at the monitor: a few milliseconds.
const CHECK_EVERY: usize = 1 << 16;

/// One key per band.
pub(super) type Bands = [u64; BANDS];

/// The hash functions, all of the form (a x + b) / 2^16 mod 2^32.
pub(super) struct MinHash {
    factors: [u32; HASHES],
    offsets: [u64; HASHES],
}

impl MinHash {
    pub fn new() -> Self {
        let draw = |n: usize, seed| xxh3_64_with_seed(&(n as u64).to_le_bytes(), seed);
        Self {
            // 32-bit odd factors: the product of two 32-bit numbers is one SIMD instruction everywhere.
            factors: std::array::from_fn(|n| (draw(n, 1) >> 32) as u32 | 1),
            offsets: std::array::from_fn(|n| draw(n, 2) >> 1),
        }
    }

    /// Band keys of a text with these words; `None` for a text without words, which resembles nothing.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub fn bands(&self, words: &[Word], monitor: &Monitor) -> Result<Option<Bands>> {
        if words.is_empty() {
            return Ok(None);
        }
        let shingles: Vec<u32> = words.windows(SHINGLE.min(words.len())).map(hash_of).collect();
        let mut least = [u32::MAX; HASHES];
        for part in shingles.chunks(CHECK_EVERY) {
            monitor.check()?;
            let of_part = self.least(part);
            least.iter_mut().zip(of_part).for_each(|(least, other)| *least = (*least).min(other));
        }
        Ok(Some(std::array::from_fn(|band| {
            let mut bytes = [0; 4 * ROWS];
            for (slot, value) in bytes.chunks_exact_mut(4).zip(&least[band * ROWS..]) {
                slot.copy_from_slice(&value.to_le_bytes());
            }
            xxh3_64_with_seed(&bytes, band as u64)
        })))
    }

    /// The least value of each hash function over all shingles.
    fn least(&self, shingles: &[u32]) -> [u32; HASHES] {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { self.least_avx2(shingles) };
        }
        self.least_plain(shingles)
    }

    /// The same code, compiled for a wider unit with a minimum of unsigned numbers.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn least_avx2(&self, shingles: &[u32]) -> [u32; HASHES] {
        self.least_plain(shingles)
    }

    #[inline(always)]
    fn least_plain(&self, shingles: &[u32]) -> [u32; HASHES] {
        /// Hash functions whose values stay in registers during a pass over the shingles.
        const GROUP: usize = 8;
        let mut all = [u32::MAX; HASHES];
        let functions = self.factors.chunks_exact(GROUP).zip(self.offsets.chunks_exact(GROUP));
        for (result, (factors, offsets)) in all.chunks_exact_mut(GROUP).zip(functions) {
            let mut least = [u32::MAX; GROUP];
            for &shingle in shingles {
                for ((least, &factor), &offset) in least.iter_mut().zip(factors).zip(offsets) {
                    let product = u64::from(factor) * u64::from(shingle);
                    *least = (*least).min((product.wrapping_add(offset) >> 16) as u32);
                }
            }
            result.copy_from_slice(&least);
        }
        all
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
    use super::*;
    use crate::words;

    fn bands(hashes: &MinHash, text: &str) -> Option<Bands> {
        let monitor = Monitor::default();
        hashes.bands(&words::hashes(text, true, &monitor).unwrap(), &monitor).unwrap()
    }

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
                    seen.resembles(&bands(&hashes, &text).unwrap())
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
        let of = |text: &str| bands(&hashes, text);
        assert_eq!(of("Der Hund, bellt – laut!"), of("der hund bellt laut"));
        assert_eq!(of(" ... "), None);
        assert!(of("ein").is_some());
    }

    #[test]
    fn all_ways_to_the_least_value_agree() {
        let hashes = MinHash::new();
        for count in [0u32, 1, 7, 100] {
            let shingles: Vec<u32> = (0..count).map(|n| n.wrapping_mul(0x9E37_79B9)).collect();
            let value = |n: usize, shingle: &u32| {
                (u64::from(hashes.factors[n]).wrapping_mul(u64::from(*shingle)).wrapping_add(hashes.offsets[n]) >> 16)
                    as u32
            };
            let naive: [u32; HASHES] =
                std::array::from_fn(|n| shingles.iter().map(|shingle| value(n, shingle)).min().unwrap_or(u32::MAX));
            assert_eq!(hashes.least(&shingles), naive);
            assert_eq!(hashes.least_plain(&shingles), naive);
        }
    }

    #[test]
    fn exact_repeats() {
        let mut seen = Seen::default();
        assert!(!seen.is_repeat(1) && !seen.is_repeat(1 << 64 | 1) && seen.is_repeat(1));
    }
}
