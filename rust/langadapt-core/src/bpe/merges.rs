//! The ranked merges and their application to one piece.
//!
//! The rule, as in Hugging Face `tokenizers`: of all adjacent pairs that have a merge, take the one of lowest rank, the
//! leftmost of equals, replace it, repeat. `tokenizers` keeps entries in a queue that may be out of date and compares
//! only the resulting id before it uses one. That is the same rule: the symbols at one place only ever grow, so an
//! outdated entry leads to a shorter piece, hence to another id, than the pair that is there now.
//!
//! Cost: short pieces are scanned for their minimum again and again, in about n^2/4 very cheap steps; from
//! [`SCAN_LIMIT`] symbols on a heap over a linked list does the same in n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Longest piece, in symbols, that is merged by scanning. Found by measurement: both ways cost the same near here.
const SCAN_LIMIT: usize = 64;

/// "No such merge", larger than every rank.
pub const NO_RANK: u32 = u32::MAX;

const ID_BITS: u32 = 21;
const RANK_BITS: u32 = 64 - 2 * ID_BITS;
/// Pieces that take part in merges have ids below this.
pub const ID_LIMIT: u32 = 1 << ID_BITS;
/// A tokenizer has fewer merges than this.
pub const RANK_LIMIT: u32 = (1 << RANK_BITS) - 1;

const EMPTY: u64 = u64::MAX;

/// Pairs of ids to rank and resulting id.
///
/// A slot is one `u64` of left id, right id and rank: half the memory of a plain struct, so that the table of a
/// tokenizer with 70,000 merges fits a second-level cache.
#[derive(Debug, Clone)]
pub struct Merges {
    slots: Vec<u64>,
    shift: u32,
    results: Vec<u32>,
}

impl Merges {
    /// Merges in order of rank, as (left, right, result); of a pair that comes twice the later rank counts.
    ///
    /// The caller makes sure that ids are below [`ID_LIMIT`] and that there are fewer than [`RANK_LIMIT`] merges.
    pub fn new(merges: &[(u32, u32, u32)]) -> Self {
        let size = (merges.len() * 2).next_power_of_two().max(64);
        let mut table = Self {
            slots: vec![EMPTY; size],
            shift: 64 - size.trailing_zeros(),
            results: merges.iter().map(|merge| merge.2).collect(),
        };
        for (rank, &(left, right, _)) in merges.iter().enumerate() {
            let slot = table.slot(pair_key(left, right));
            table.slots[slot] = pair_key(left, right) << RANK_BITS | rank as u64;
        }
        table
    }

    /// The slot of a pair, or the empty one where it belongs.
    #[inline]
    fn slot(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[slot] != EMPTY && self.slots[slot] >> RANK_BITS != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Rank of the merge of `left` and `right`, or [`NO_RANK`].
    #[inline]
    pub fn rank(&self, left: u32, right: u32) -> u32 {
        match self.slots[self.slot(pair_key(left, right))] {
            EMPTY => NO_RANK,
            slot => slot as u32 & RANK_LIMIT,
        }
    }

    /// What the merge of this rank makes.
    #[inline]
    pub fn result(&self, rank: u32) -> u32 {
        self.results[rank as usize]
    }

    /// Applies all merges to `symbols`, in place.
    pub fn apply(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_LIMIT => self.apply_by_scanning(symbols),
            _ => self.apply_by_heap(symbols, scratch),
        }
    }

    fn apply_by_scanning(&self, symbols: &mut Vec<u32>) {
        let mut ranks = [NO_RANK; SCAN_LIMIT];
        let mut len = symbols.len();
        for at in 0..len - 1 {
            ranks[at] = self.rank(symbols[at], symbols[at + 1]);
        }
        // `ranks[at]` belongs to the pair (at, at + 1); the last symbol has none.
        while len > 1 {
            let (at, rank) = leftmost_minimum(&ranks[..len - 1]);
            if rank == NO_RANK {
                break;
            }
            symbols[at] = self.result(rank);
            symbols.copy_within(at + 2..len, at + 1);
            ranks.copy_within(at + 2..len, at + 1);
            len -= 1;
            ranks[at] = if at + 1 < len { self.rank(symbols[at], symbols[at + 1]) } else { NO_RANK };
            if at > 0 {
                ranks[at - 1] = self.rank(symbols[at - 1], symbols[at]);
            }
        }
        symbols.truncate(len);
    }

    fn apply_by_heap(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        let len = symbols.len();
        let Scratch { heap, previous, next, ranks } = scratch;
        previous.clear();
        previous.extend((0..len as u32).map(|at| at.wrapping_sub(1)));
        next.clear();
        next.extend(1..=len as u32);
        ranks.clear();
        ranks.extend(symbols.windows(2).map(|pair| self.rank(pair[0], pair[1])));
        ranks.push(NO_RANK);
        heap.clear();
        // `extend` on the empty heap builds it in linear time.
        heap.extend(
            ranks
                .iter()
                .enumerate()
                .filter(|(_, rank)| **rank != NO_RANK)
                .map(|(at, rank)| Reverse((*rank, at as u32))),
        );
        while let Some(Reverse((rank, at))) = heap.pop() {
            let at = at as usize;
            if ranks[at] != rank {
                continue;
            }
            let right = next[at] as usize;
            symbols[at] = self.result(rank);
            ranks[right] = NO_RANK;
            next[at] = next[right];
            let after = next[at] as usize;
            ranks[at] = NO_RANK;
            if after < len {
                previous[after] = at as u32;
                ranks[at] = self.rank(symbols[at], symbols[after]);
                push(heap, ranks[at], at);
            }
            let before = previous[at] as usize;
            if before < len {
                ranks[before] = self.rank(symbols[before], symbols[at]);
                push(heap, ranks[before], before);
            }
        }
        let mut kept = 0;
        let mut at = 0;
        while at < len {
            symbols[kept] = symbols[at];
            kept += 1;
            at = next[at] as usize;
        }
        symbols.truncate(kept);
    }
}

/// Memory of the heap way, kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    heap: BinaryHeap<Reverse<(u32, u32)>>,
    previous: Vec<u32>,
    next: Vec<u32>,
    ranks: Vec<u32>,
}

fn push(heap: &mut BinaryHeap<Reverse<(u32, u32)>>, rank: u32, at: usize) {
    if rank != NO_RANK {
        heap.push(Reverse((rank, at as u32)));
    }
}

#[inline]
fn pair_key(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

#[inline]
fn leftmost_minimum(ranks: &[u32]) -> (usize, u32) {
    let mut best = (0, NO_RANK);
    for (at, &rank) in ranks.iter().enumerate() {
        if rank < best.1 {
            best = (at, rank);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule, word for word.
    fn naive(merges: &[(u32, u32, u32)], symbols: &[u32]) -> Vec<u32> {
        let mut symbols = symbols.to_vec();
        loop {
            let candidates = symbols.windows(2).enumerate().filter_map(|(at, pair)| {
                let rank = merges.iter().rposition(|merge| (merge.0, merge.1) == (pair[0], pair[1]))?;
                Some((rank, at))
            });
            let Some((rank, at)) = candidates.min() else { return symbols };
            symbols.splice(at..at + 2, [merges[rank].2]);
        }
    }

    /// Merges that always make a longer piece, several of them the same one, as converted SentencePiece models have.
    fn some_merges() -> Vec<(u32, u32, u32)> {
        let mut merges = Vec::new();
        let mut pieces: Vec<String> = "abc".chars().map(String::from).collect();
        for joined in ["ab", "aa", "bc", "aab", "abc", "aaaa", "aabc", "bb", "bbb", "abab"] {
            let id = pieces.len() as u32;
            pieces.push(joined.into());
            for cut in 1..joined.len() {
                let left = pieces.iter().position(|piece| piece == &joined[..cut]);
                let right = pieces.iter().position(|piece| piece == &joined[cut..]);
                if let (Some(left), Some(right)) = (left, right) {
                    merges.push((left as u32, right as u32, id));
                }
            }
        }
        merges
    }

    proptest! {
        #[test]
        fn all_ways_agree(symbols in proptest::collection::vec(0u32..3, 0..200), cut in 0usize..200) {
            let merges = some_merges();
            let table = Merges::new(&merges);
            let symbols = &symbols[..cut.min(symbols.len())];
            let expected = naive(&merges, symbols);
            let mut scratch = Scratch::default();
            let mut by_heap = symbols.to_vec();
            if !by_heap.is_empty() {
                table.apply_by_heap(&mut by_heap, &mut scratch);
            }
            prop_assert_eq!(&by_heap, &expected);
            if (2..=SCAN_LIMIT).contains(&symbols.len()) {
                let mut by_scanning = symbols.to_vec();
                table.apply_by_scanning(&mut by_scanning);
                prop_assert_eq!(&by_scanning, &expected);
            }
            let mut applied = symbols.to_vec();
            table.apply(&mut applied, &mut scratch);
            prop_assert_eq!(&applied, &expected);
        }
    }
}
