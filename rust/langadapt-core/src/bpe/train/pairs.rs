//! Pairs by slot, and slots by pair.

use std::collections::HashSet;

use crate::bpe::pair_ranks::hash;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// All pairs ever made, by slot, and a table of the slots: open addressing, half full at most.
#[derive(Default)]
pub(super) struct Pairs {
    pub symbols: Vec<[u32; 2]>,
    pub counts: Vec<i64>,
    table: Vec<u32>,
    /// Slots that got places in more than one step.
    pub reopened: HashSet<u32>,
}

impl Pairs {
    /// The slot of a pair; [`NONE`] if it was never made.
    #[inline]
    pub fn find(&self, pair: [u32; 2]) -> u32 {
        if self.table.is_empty() { NONE } else { self.table[self.entry(pair)] }
    }

    /// The slot of a pair, a new one if it was never made.
    pub fn open(&mut self, pair: [u32; 2]) -> u32 {
        if self.symbols.len() * 2 >= self.table.len() {
            self.grow();
        }
        let entry = self.entry(pair);
        if self.table[entry] == NONE {
            self.table[entry] = self.symbols.len() as u32;
            self.symbols.push(pair);
            self.counts.push(0);
        }
        self.table[entry]
    }

    /// Where a pair's slot stands in the table, or would.
    #[inline]
    fn entry(&self, pair: [u32; 2]) -> usize {
        let [left, right] = pair.map(u64::from);
        let mask = self.table.len() - 1;
        // The upper bits are the good ones.
        let mut entry = (hash(left << 32 | right) >> 32) as usize & mask;
        while self.table[entry] != NONE && self.symbols[self.table[entry] as usize] != pair {
            entry = (entry + 1) & mask;
        }
        entry
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(1 << 10);
        self.table.clear();
        self.table.resize(len, NONE);
        for slot in 0..self.symbols.len() {
            let entry = self.entry(self.symbols[slot]);
            self.table[entry] = slot as u32;
        }
    }
}

/// Slots of the pairs of base symbols of a small alphabet, by both: what every pair of every word asks for.
pub(super) struct Square {
    side: usize,
    slots: Vec<u32>,
}

impl Square {
    /// Not looked up yet.
    const UNKNOWN: u32 = NONE - 1;
    /// Of more symbols it would not stay in a cache.
    const LARGEST: usize = 1 << 11;

    /// For symbols below `symbols`, if these are few.
    pub fn new(symbols: usize) -> Option<Self> {
        (symbols <= Self::LARGEST).then(|| Self { side: symbols, slots: vec![Self::UNKNOWN; symbols * symbols] })
    }

    #[inline(always)]
    pub fn get_or_insert(&mut self, pair: [u32; 2], find: impl FnOnce() -> u32) -> u32 {
        let slot = &mut self.slots[pair[0] as usize * self.side + pair[1] as usize];
        if *slot == Self::UNKNOWN {
            *slot = find();
        }
        *slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_keeps_its_slot_while_the_table_grows() {
        let mut pairs = Pairs::default();
        assert_eq!(pairs.find([1, 2]), NONE);
        let all: Vec<[u32; 2]> = (0..3000).map(|number| [number % 61, number / 61]).collect();
        for (slot, &pair) in (0..).zip(&all) {
            assert_eq!(pairs.open(pair), slot);
        }
        assert!((0..).zip(&all).all(|(slot, &pair)| pairs.find(pair) == slot && pairs.open(pair) == slot));
        assert_eq!(pairs.find([61, 0]), NONE);
    }
}
