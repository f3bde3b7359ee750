//! Pairs of ids to the rank of their merge and what it makes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// All merges of a tokenizer, as its file lists them: several of them may make the same token.
///
/// For looking at merges one by one. Text is encoded with [`Merges`](super::merges::Merges).
#[derive(Debug)]
pub struct PairRanks(HashMap<u64, (u32, u32), BuildHasherDefault<PairHasher>>);

/// A pair is one word, so one multiplication is hash enough; the general ones made loading a tokenizer 10 ms longer.
#[derive(Debug, Default)]
struct PairHasher(u64);

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, pair: u64) {
        let product = (pair ^ pair >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The table uses both ends; only the upper one is good.
        self.0 = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl PairRanks {
    /// Merges in order of rank, as (left, right, result); of a pair that comes twice the later rank counts.
    pub fn new(merges: &[(u32, u32, u32)]) -> Self {
        let merges = merges.iter().zip(0..);
        Self(merges.map(|(&(left, right, result), rank)| (pair_of(left, right), (rank, result))).collect())
    }

    /// Applies the merge of lowest rank, the leftmost of equals, and tells where and of what it made a symbol.
    pub fn apply_next(&self, symbols: &mut Vec<u32>) -> Option<(usize, (u32, u32))> {
        let merges = symbols.windows(2).enumerate();
        let found = merges.filter_map(|(at, pair)| self.0.get(&pair_of(pair[0], pair[1])).map(|merge| (merge, at)));
        let (&(_, result), at) = found.min_by_key(|&((rank, _), at)| (rank, at))?;
        let pair = (symbols[at], symbols.remove(at + 1));
        symbols[at] = result;
        Some((at, pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_rank_first_and_leftmost_of_equals() {
        let merges = PairRanks::new(&[(1, 2, 4), (0, 0, 3), (1, 2, 5)]);
        let mut symbols = vec![0, 0, 0, 1, 2];
        assert_eq!(merges.apply_next(&mut symbols), Some((0, (0, 0))));
        assert_eq!(merges.apply_next(&mut symbols), Some((2, (1, 2))));
        assert_eq!(symbols, [3, 0, 5]);
        assert_eq!(merges.apply_next(&mut symbols), None);
    }
}
