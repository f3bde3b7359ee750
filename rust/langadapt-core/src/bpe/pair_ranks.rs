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
        let product = hash(pair);
        // The table uses both ends; only the upper one is good.
        self.0 = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Only the high bits are any good; they depend on all bits of both numbers of a pair.
#[inline]
pub(super) fn hash(pair: u64) -> u64 {
    (pair ^ pair >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15)
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

    fn get(&self, pair: &[u32]) -> (u32, u32) {
        self.0.get(&pair_of(pair[0], pair[1])).copied().unwrap_or(NO_MERGE)
    }
}

/// In place of rank and result.
const NO_MERGE: (u32, u32) = (u32::MAX, u32::MAX);

/// Merging one step at a time.
#[derive(Debug)]
pub struct Replay<'a> {
    ranks: &'a PairRanks,
    /// What is left of the symbols.
    pub symbols: Vec<u32>,
    /// Rank and result of the merge of each symbol with the next one.
    found: Vec<(u32, u32)>,
}

impl<'a> Replay<'a> {
    /// A replay without symbols.
    pub fn new(ranks: &'a PairRanks) -> Self {
        Self { ranks, symbols: Vec::new(), found: Vec::new() }
    }

    /// Begins with the symbols that `spell` appends.
    pub fn start(&mut self, spell: impl FnOnce(&mut Vec<u32>)) {
        self.symbols.clear();
        spell(&mut self.symbols);
        self.found.clear();
        self.found.extend(self.symbols.windows(2).map(|pair| self.ranks.get(pair)));
    }

    /// Applies the merge of lowest rank, the leftmost of equals, and tells where and of what it made a symbol.
    pub fn step(&mut self) -> Option<(usize, (u32, u32))> {
        let (at, &(_, result)) = self.found.iter().enumerate().min_by_key(|(_, (rank, _))| *rank)?;
        if result == NO_MERGE.1 {
            return None;
        }
        let pair = (self.symbols[at], self.symbols.remove(at + 1));
        self.symbols[at] = result;
        self.found.remove(at);
        for at in [at.wrapping_sub(1), at] {
            if let Some(found) = self.found.get_mut(at) {
                *found = self.ranks.get(&self.symbols[at..]);
            }
        }
        Some((at, pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_rank_first_and_leftmost_of_equals() {
        let ranks = PairRanks::new(&[(1, 2, 4), (0, 0, 3), (1, 2, 5), (0, 5, 6)]);
        let mut replay = Replay::new(&ranks);
        replay.start(|symbols| symbols.extend([0, 0, 0, 1, 2]));
        assert_eq!(replay.step(), Some((0, (0, 0))));
        assert_eq!(replay.step(), Some((2, (1, 2))));
        assert_eq!(replay.symbols, [3, 0, 5]);
        assert_eq!(replay.step(), Some((1, (0, 5))));
        assert_eq!(replay.symbols, [3, 6]);
        assert_eq!(replay.step(), None);
        replay.start(|_| {});
        assert_eq!(replay.step(), None);
    }
}
