//! The ranked merges and their application to one piece.
//!
//! The rule, as in Hugging Face `tokenizers`: of all adjacent pairs that have a merge, take the one of lowest rank, the
//! leftmost of equals, replace it, repeat. `tokenizers` keeps entries in a queue that may be out of date and compares
//! only the resulting id before it uses one. That is the same rule: the symbols at one place only ever grow, so an
//! outdated entry leads to a shorter piece, hence to another id, than the pair that is there now.
//!
//! A merge and the token that it makes are one, and symbols are numbered by rank (`numbering.rs`): a table from pairs
//! to numbers is all there is, eight bytes a slot.
//!
//! Cost: short pieces are scanned for their minimum again and again, in about n^2/4 very cheap steps; from
//! [`SCAN_LIMIT`] symbols on a heap over a linked list does the same in n log n.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::huge;
use super::numbering::{one_for_a_token, renumber};
use super::pair_ranks::hash;
use crate::progress::Stop;

/// Longest piece, in symbols, that is merged by scanning. Found by measurement: both ways cost the same near here.
const SCAN_LIMIT: usize = 64;

/// Steps of the heap way between two looks at [`Scratch::stop`]; about a millisecond.
const CHECK_EVERY: usize = 1 << 14;

/// "No merge": larger than every number.
const NONE: u32 = u32::MAX;

/// Bits of a number in a slot, which holds three.
const NUMBER_BITS: u32 = 21;

/// Ids have to be below this.
pub const ID_LIMIT: usize = 1 << NUMBER_BITS;

/// No slot is like this, as a pair of two equal numbers this large has no merge.
const EMPTY: u64 = u64::MAX;

/// Filter bits for a slot.
const FILTER_BITS: usize = 8;

/// Places of neighbours, before any merge.
const NEXT: [u8; SCAN_LIMIT + 1] = places(1);
const PREVIOUS: [u8; SCAN_LIMIT + 1] = places(u8::MAX);

const fn places(first: u8) -> [u8; SCAN_LIMIT + 1] {
    let mut places = [0; SCAN_LIMIT + 1];
    let mut at = 0;
    while at <= SCAN_LIMIT {
        places[at] = first.wrapping_add(at as u8);
        at += 1;
    }
    places
}

/// So many symbols that no merge makes have a table of their own, by both numbers.
const DENSE: usize = 256;

/// Pairs of symbols to what their merge makes.
///
/// Tried and dropped: doing without the filter (4 % slower); four minima side by side with the place in the low bits (3
/// % slower: packing costs what the shorter chain of comparisons wins). With slots of 16 bytes: a cuckoo table without
/// a filter, read without a branch. No look-up was mispredicted any more, but each had to wait for both lines where the
/// filter lets the processor run ahead: encoding of new pieces lost 5 to 15 %. Scanning for the minimum eight ranks at
/// a time, with the place in the low bits, neither won nor lost: scanning hides behind the waits of the look-ups.
#[derive(Debug, Clone)]
pub struct Merges {
    /// Numbers by id.
    numbers: Vec<u32>,
    /// Ids by number.
    ids: Vec<u32>,
    /// Left, right and resulting number of a merge; open addressing.
    slots: Vec<u64>,
    shift: u32,
    /// One bit for every hash that a pair has: most pairs that have no merge are refused here, in a table small enough
    /// to stay in the fastest caches.
    filter: Vec<u64>,
    /// What the first [`DENSE`] symbols make: every piece begins with a look-up for each of its symbols.
    dense: Vec<u32>,
}

impl Merges {
    /// Merges in order of rank, as (left, right, result), of ids below `id_limit`; of a pair that comes twice the later
    /// rank counts. `spell` appends the symbols to which text that becomes a token is cut at first.
    ///
    /// # Panics
    /// Where an id is not below `id_limit`, or that is above [`ID_LIMIT`].
    pub fn new(merges: &[(u32, u32, u32)], id_limit: usize, spell: impl Fn(u32, &mut Vec<u32>)) -> Self {
        assert!(id_limit <= ID_LIMIT);
        let merges = one_for_a_token(merges, id_limit, spell);
        // Between 1.5 and 3 slots for a merge.
        let size = (merges.len() * 3 / 2).next_power_of_two().max(64);
        let (numbers, ids) = renumber(&merges, id_limit);
        let mut table = Self {
            numbers,
            ids,
            slots: huge::filled(size, EMPTY),
            shift: 64 - size.trailing_zeros(),
            filter: vec![0; size * FILTER_BITS / 64],
            dense: vec![NONE; DENSE * DENSE],
        };
        for (left, right, result) in merges {
            table.insert([left, right, result].map(|id| table.numbers[id as usize]));
        }
        table
    }

    fn insert(&mut self, [left, right, result]: [u32; 3]) {
        let pair = pair_of(left, right);
        let hash = hash(pair);
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = pair << NUMBER_BITS | u64::from(result);
        let bit = self.filter_bit(hash);
        self.filter[bit / 64] |= 1 << (bit % 64);
        if left.max(right) < DENSE as u32 {
            self.dense[left as usize * DENSE + right as usize] = result;
        }
    }

    #[inline(always)]
    fn filter_bit(&self, hash: u64) -> usize {
        (hash >> (self.shift - FILTER_BITS.trailing_zeros())) as usize
    }

    /// What the merge of `left` and `right` makes, or [`NONE`].
    #[inline(always)]
    fn look_up(&self, left: u32, right: u32) -> u32 {
        let pair = pair_of(left, right);
        let hash = hash(pair);
        let bit = self.filter_bit(hash);
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return NONE;
        }
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        loop {
            let slot = self.slots[at];
            if slot >> NUMBER_BITS == pair {
                return slot as u32 & (ID_LIMIT as u32 - 1);
            }
            if slot == EMPTY {
                return NONE;
            }
            at = (at + 1) & mask;
        }
    }

    /// The same for symbols that have just been cut.
    #[inline(always)]
    fn look_up_first(&self, left: u32, right: u32) -> u32 {
        if (left | right) < DENSE as u32 {
            self.dense[left as usize * DENSE + right as usize]
        } else {
            self.look_up(left, right)
        }
    }

    /// Applies all merges to `symbols`, in place.
    ///
    /// # Panics
    /// Where a symbol is not below the limit of ids.
    pub fn apply(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        match symbols.len() {
            0 | 1 => {}
            2..=SCAN_LIMIT => self.apply_by_scanning(symbols),
            _ => self.apply_by_heap(symbols, scratch),
        }
    }

    fn apply_by_scanning(&self, symbols: &mut Vec<u32>) {
        let len = symbols.len();
        // `made[at]` is what the symbol at `at` and the next one that is left make.
        let mut made = [NONE; SCAN_LIMIT];
        let (mut next, mut previous) = (NEXT, PREVIOUS);
        let mut right = self.numbers[symbols[0] as usize];
        symbols[0] = right;
        for at in 1..len {
            let left = right;
            right = self.numbers[symbols[at] as usize];
            symbols[at] = right;
            made[at - 1] = self.look_up_first(left, right);
        }
        loop {
            let (at, number) = leftmost_minimum(&made[..len - 1]);
            if number == NONE {
                break;
            }
            let gone = usize::from(next[at]);
            let (after, before) = (next[gone], previous[at]);
            symbols[at] = number;
            (made[at], made[gone]) = (NONE, NONE);
            (next[at], previous[usize::from(after)]) = (after, at as u8);
            if usize::from(after) < len {
                made[at] = self.look_up(number, symbols[usize::from(after)]);
            }
            let before = usize::from(before);
            if before < len {
                made[before] = self.look_up(symbols[before], number);
            }
        }
        let (mut kept, mut at) = (0, 0);
        while at < len {
            symbols[kept] = self.ids[symbols[at] as usize];
            kept += 1;
            at = usize::from(next[at]);
        }
        symbols.truncate(kept);
    }

    fn apply_by_heap(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        let len = symbols.len();
        if self.queue_all(symbols, scratch).is_none() {
            return;
        }
        let Scratch { heap, previous, next, made, stop } = scratch;
        let mut popped = 0usize;
        while let Some(Reverse((number, at))) = heap.pop() {
            let at = at as usize;
            popped += 1;
            if popped.is_multiple_of(CHECK_EVERY) && stop.is_asked() {
                return;
            }
            if made[at] != number {
                continue;
            }
            let right = next[at] as usize;
            symbols[at] = number;
            (made[at], made[right]) = (NONE, NONE);
            next[at] = next[right];
            let after = next[at] as usize;
            if after < len {
                previous[after] = at as u32;
                made[at] = self.look_up(number, symbols[after]);
                push(heap, made[at], at);
            }
            let before = previous[at] as usize;
            if before < len {
                made[before] = self.look_up(symbols[before], number);
                push(heap, made[before], before);
            }
        }
        let (mut kept, mut at) = (0, 0);
        while at < len {
            symbols[kept] = self.ids[symbols[at] as usize];
            kept += 1;
            at = next[at] as usize;
        }
        symbols.truncate(kept);
    }

    /// Numbers for ids, neighbours linked, every pair that has a merge in the heap; `None` on a stop.
    fn queue_all(&self, symbols: &mut [u32], scratch: &mut Scratch) -> Option<()> {
        let len = symbols.len();
        let Scratch { heap, previous, next, made, stop } = scratch;
        previous.clear();
        previous.extend((0..len as u32).map(|at| at.wrapping_sub(1)));
        next.clear();
        next.extend(1..=len as u32);
        symbols.iter_mut().for_each(|symbol| *symbol = self.numbers[*symbol as usize]);
        made.clear();
        for part in (0..len - 1).step_by(CHECK_EVERY) {
            if stop.is_asked() {
                return None;
            }
            let pairs = symbols[part..len.min(part + CHECK_EVERY + 1)].windows(2);
            made.extend(pairs.map(|pair| self.look_up_first(pair[0], pair[1])));
        }
        made.push(NONE);
        heap.clear();
        // Pushing takes linear time, too, on average, and can be stopped.
        for (at, &number) in made.iter().enumerate() {
            push(heap, number, at);
            if at.is_multiple_of(CHECK_EVERY) && stop.is_asked() {
                return None;
            }
        }
        Some(())
    }
}

/// Memory of the heap way, kept between calls.
#[derive(Debug, Default)]
pub struct Scratch {
    heap: BinaryHeap<Reverse<(u32, u32)>>,
    previous: Vec<u32>,
    next: Vec<u32>,
    made: Vec<u32>,
    /// Once asked, [`Merges::apply`] returns with whatever it has.
    pub(super) stop: Stop,
}

fn push(heap: &mut BinaryHeap<Reverse<(u32, u32)>>, number: u32, at: usize) {
    if number != NONE {
        heap.push(Reverse((number, at as u32)));
    }
}

#[inline]
fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << NUMBER_BITS | u64::from(right)
}

#[inline]
fn leftmost_minimum(made: &[u32]) -> (usize, u32) {
    let mut best = (0, NONE);
    for (at, &number) in made.iter().enumerate() {
        if number < best.1 {
            best = (at, number);
        }
    }
    best
}

#[cfg(test)]
mod tests;
