//! Pairs by slot, and slots by pair.

use std::collections::{HashMap, HashSet};

/// No slot: the pair is never made.
pub(super) const NONE: u32 = u32::MAX;

/// All pairs ever made, by slot.
#[derive(Default)]
pub(super) struct Pairs {
    pub symbols: Vec<[u32; 2]>,
    pub counts: Vec<i64>,
    /// Slots made in the step(s) that made a symbol; kept only where a symbol can be made again.
    pub made: HashMap<u32, Vec<(u32, u32)>>,
    /// Slots that got places in more than one step.
    pub reopened: HashSet<u32>,
}

impl Pairs {
    pub fn push(&mut self, pair: [u32; 2]) -> u32 {
        self.symbols.push(pair);
        self.counts.push(0);
        self.symbols.len() as u32 - 1
    }

    /// The slot of a pair of which one symbol is made in this step. `again`: it was made before; `opened`: the slots of
    /// this step so far.
    pub fn open(&mut self, pair: [u32; 2], again: bool, opened: impl Iterator<Item = u32>) -> u32 {
        let known = if again { self.find(pair, opened) } else { None };
        if let Some(slot) = known {
            self.reopened.insert(slot);
        }
        known.unwrap_or_else(|| self.push(pair))
    }

    /// The slot of a pair of which at least one symbol was made by a merge.
    fn find(&self, pair: [u32; 2], opened: impl Iterator<Item = u32>) -> Option<u32> {
        let is = |&slot: &u32| slot != NONE && self.symbols[slot as usize] == pair;
        let earlier = pair.iter().filter_map(|symbol| self.made.get(symbol)).flatten();
        opened.chain(earlier.flat_map(|&(first, end)| first..end)).find(is)
    }
}

/// Slots of the pairs of base symbols: a square for small alphabets, a map for large ones.
pub(super) enum PairSlots {
    Square { side: usize, slots: Vec<u32> },
    Map(HashMap<(u32, u32), u32>),
}

impl PairSlots {
    /// Not looked up yet.
    const UNKNOWN: u32 = NONE - 1;

    pub fn new(symbols: usize) -> Self {
        if symbols <= 1 << 11 {
            Self::Square { side: symbols, slots: vec![Self::UNKNOWN; symbols * symbols] }
        } else {
            Self::Map(HashMap::new())
        }
    }

    #[inline(always)]
    pub fn get_or_insert(&mut self, left: u32, right: u32, make: impl FnOnce() -> Option<u32>) -> u32 {
        match self {
            Self::Square { side, slots } => {
                let slot = &mut slots[left as usize * *side + right as usize];
                if *slot == Self::UNKNOWN {
                    *slot = make().unwrap_or(NONE);
                }
                *slot
            }
            Self::Map(slots) => *slots.entry((left, right)).or_insert_with(|| make().unwrap_or(NONE)),
        }
    }
}
