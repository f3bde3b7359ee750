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

use super::huge;
use crate::progress::Stop;

/// Longest piece, in symbols, that is merged by scanning. Found by measurement: both ways cost the same near here.
const SCAN_LIMIT: usize = 64;

/// Steps of the heap way between two looks at [`Scratch::stop`]; about a millisecond.
const CHECK_EVERY: usize = 1 << 14;

/// "No such merge", larger than every rank.
pub const NO_RANK: u32 = u32::MAX;

/// Filter bits for a slot.
const FILTER_BITS: usize = 8;

/// In place of a key: no pair of ids, as both would have to be [`u32::MAX`].
const EMPTY: u64 = u64::MAX;

/// Pairs of ids to rank and resulting id.
///
/// Open addressing over slots of 16 bytes, four to a cache line. A look-up waits for one line, which also brings the
/// result: with ranks alone in the table (half the memory) and results beside it, a merge waited twice and piece
/// encoding was slower.
///
/// Tried and dropped: a cuckoo table of eight bytes a slot without a filter, read without a branch. No look-up was
/// mispredicted any more, but each had to wait for both lines where the filter lets the processor run ahead: encoding of
/// new pieces lost 5 to 15 %. Scanning for the minimum eight ranks at a time, with the place in the low bits, neither
/// won nor lost: scanning hides behind the waits of the look-ups.
#[derive(Debug, Clone)]
pub struct Merges {
    slots: Vec<Slot>,
    shift: u32,
    /// One bit for every hash that a pair has, eight times as many as there are merges: most pairs that have no merge
    /// are refused here, in a table small enough to stay in the fastest caches.
    filter: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(16))]
struct Slot {
    pair: u64,
    rank: u32,
    result: u32,
}

impl Merges {
    /// Merges in order of rank, as (left, right, result); of a pair that comes twice the later rank counts.
    pub fn new(merges: &[(u32, u32, u32)]) -> Self {
        // Between 1.5 and 3 slots for a merge.
        let size = (merges.len() * 3 / 2).next_power_of_two().max(64);
        let empty = Slot { pair: EMPTY, rank: NO_RANK, result: 0 };
        let shift = 64 - size.trailing_zeros();
        let mut table = Self { slots: huge::filled(size, empty), shift, filter: vec![0; size * FILTER_BITS / 64] };
        for (rank, &(left, right, result)) in merges.iter().enumerate() {
            let pair = pair_of(left, right);
            let hash = hash(pair);
            let at = table.place(pair, hash);
            table.slots[at] = Slot { pair, rank: rank as u32, result };
            let bit = (hash >> (shift - FILTER_BITS.trailing_zeros())) as usize;
            table.filter[bit / 64] |= 1 << (bit % 64);
        }
        table
    }

    /// Where a pair is, or the empty slot where it belongs.
    #[inline(always)]
    fn place(&self, pair: u64, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        while self.slots[at].pair != pair && self.slots[at].pair != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }

    /// Rank of the merge of `left` and `right`, or [`NO_RANK`], and what it makes.
    #[inline(always)]
    pub fn look_up(&self, left: u32, right: u32) -> (u32, u32) {
        let pair = pair_of(left, right);
        let hash = hash(pair);
        let bit = (hash >> (self.shift - FILTER_BITS.trailing_zeros())) as usize;
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return (NO_RANK, 0);
        }
        let slot = &self.slots[self.place(pair, hash)];
        (slot.rank, slot.result)
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
        let len = symbols.len();
        // `ranks[at]` and `results[at]` belong to the pair of the symbol at `at` and the next one that is left.
        let (mut ranks, mut results) = ([NO_RANK; SCAN_LIMIT], [0; SCAN_LIMIT]);
        let (mut next, mut previous) = ([0u8; SCAN_LIMIT + 1], [0u8; SCAN_LIMIT + 1]);
        for at in 0..len {
            (next[at], previous[at]) = (at as u8 + 1, (at as u8).wrapping_sub(1));
        }
        for at in 0..len - 1 {
            (ranks[at], results[at]) = self.look_up(symbols[at], symbols[at + 1]);
        }
        loop {
            let (at, rank) = leftmost_minimum(&ranks[..len - 1]);
            if rank == NO_RANK {
                break;
            }
            let gone = usize::from(next[at]);
            let (after, before) = (next[gone], previous[at]);
            symbols[at] = results[at];
            (ranks[at], ranks[gone]) = (NO_RANK, NO_RANK);
            (next[at], previous[usize::from(after)]) = (after, at as u8);
            if usize::from(after) < len {
                (ranks[at], results[at]) = self.look_up(symbols[at], symbols[usize::from(after)]);
            }
            let before = usize::from(before);
            if before < len {
                (ranks[before], results[before]) = self.look_up(symbols[before], symbols[at]);
            }
        }
        let (mut kept, mut at) = (0, 0);
        while at < len {
            symbols[kept] = symbols[at];
            kept += 1;
            at = usize::from(next[at]);
        }
        symbols.truncate(kept);
    }

    fn apply_by_heap(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        let len = symbols.len();
        let Scratch { heap, previous, next, ranks, stop } = scratch;
        previous.clear();
        previous.extend((0..len as u32).map(|at| at.wrapping_sub(1)));
        next.clear();
        next.extend(1..=len as u32);
        ranks.clear();
        for part in (0..len - 1).step_by(CHECK_EVERY) {
            if stop.is_asked() {
                return;
            }
            let pairs = symbols[part..len.min(part + CHECK_EVERY + 1)].windows(2);
            ranks.extend(pairs.map(|pair| self.look_up(pair[0], pair[1]).0));
        }
        ranks.push(NO_RANK);
        heap.clear();
        // Pushing takes linear time, too, on average, and can be stopped.
        for (at, &rank) in ranks.iter().enumerate() {
            push(heap, rank, at);
            if at.is_multiple_of(CHECK_EVERY) && stop.is_asked() {
                return;
            }
        }
        let mut popped = 0usize;
        while let Some(Reverse((rank, at))) = heap.pop() {
            let at = at as usize;
            popped += 1;
            if popped.is_multiple_of(CHECK_EVERY) && stop.is_asked() {
                return;
            }
            if ranks[at] != rank {
                continue;
            }
            let right = next[at] as usize;
            symbols[at] = self.look_up(symbols[at], symbols[right]).1;
            (ranks[at], ranks[right]) = (NO_RANK, NO_RANK);
            next[at] = next[right];
            let after = next[at] as usize;
            if after < len {
                previous[after] = at as u32;
                ranks[at] = self.look_up(symbols[at], symbols[after]).0;
                push(heap, ranks[at], at);
            }
            let before = previous[at] as usize;
            if before < len {
                ranks[before] = self.look_up(symbols[before], symbols[at]).0;
                push(heap, ranks[before], before);
            }
        }
        let (mut kept, mut at) = (0, 0);
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
    /// Once asked, [`Merges::apply`] returns with whatever it has.
    pub(super) stop: Stop,
}

fn push(heap: &mut BinaryHeap<Reverse<(u32, u32)>>, rank: u32, at: usize) {
    if rank != NO_RANK {
        heap.push(Reverse((rank, at as u32)));
    }
}

/// Only the high bits are any good; they depend on all bits of both ids.
#[inline]
fn hash(pair: u64) -> u64 {
    (pair ^ pair >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[inline]
fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
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
