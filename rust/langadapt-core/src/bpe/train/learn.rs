//! The merge engine shared by both styles: words as cells, pairs as slots, one merge as one pass over a pair's places.
//!
//! **Layout.** All words lie in one array of [`Cell`]s, one cell per base symbol, with a boundary cell around each word.
//! A symbol that spans several cells is written in its first cell and, marked as a tail, in its last one, so that both
//! neighbours of a place are found in O(1) without links. The first cell also names the pair that it forms with its
//! right neighbour (its *slot*): a place of a pair is still valid exactly if the cell still names the slot, and the
//! counts of the two pairs that a merge destroys are reached without any hash table.
//!
//! **Cost.** Every merge of one place removes a symbol and adds at most two places; so the whole work is linear in the
//! cells, plus the queue. Memory: 12 bytes per cell, at most 4 x 3 bytes per cell for places, 40 bytes per pair.
//!
//! **Why counts stay exact.** Places of a pair arise only in the step that makes one of its two symbols, counts are
//! only lowered later; so a candidate whose count is stale is put back with the true one and what comes out is the
//! maximum. The exception is a merge whose text is in the vocabulary already (byte-level style): it makes an old symbol
//! again, a pair can get new places, and the reference then has two candidates that share one count. That is reproduced:
//! see [`Learner::step`] and [`Learner::places_of`].
//!
//! Tried and dropped: a hash map from pair to slot (two thirds of the time went into its cache misses); lists of words
//! instead of places, rescanned whole at every merge (quadratic for long words); a deletion-free variant that recounts
//! a pair whenever it comes to the front (recounts the frequent pairs too often).

use std::collections::{HashMap, HashSet};

use super::queue::{Candidate, Queue};
use crate::{Error, Monitor, Result};

/// No slot: the pair is never made.
const NONE: u32 = u32::MAX;
/// Symbol of the cells between words.
const BOUNDARY: u32 = u32::MAX;
/// Marks the last cell of a symbol of two or more cells.
const TAIL: u32 = 1 << 31;
/// Marks a weight that does not fit a cell.
const HEAVY: u32 = 1 << 31;
/// How far ahead cells are fetched, in places; measured, flat between 8 and 32.
const AHEAD: usize = 16;
/// Places handled between two looks at the monitor; about a millisecond.
const CHECK_EVERY: usize = 1 << 16;

/// What differs between the styles.
pub(super) trait Style {
    /// Whether a pair that is gone again at the end of the step that made it is still a candidate.
    const QUEUE_ALL: bool;

    /// The tie key of a new pair; `None` if such a pair is never made.
    fn pair(&self, left: u32, right: u32) -> Option<u64>;

    /// Whether `a` comes before `b`.
    fn before(&self, pairs: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool;
}

/// The weight lies in the cell and not in a table of words: a merge touches cells all over the memory, and a second
/// wait for every one of them was a quarter of the time.
#[derive(Debug, Clone, Copy)]
struct Cell {
    symbol: u32,
    slot: u32,
    /// How often the word was seen; above [`HEAVY`], where to find it.
    weight: u32,
}

/// A pair met in the current step.
struct Local {
    slot: u32,
    tie: u64,
    places: u32,
    start: usize,
}

/// The state of learning.
pub(super) struct Learner {
    cells: Vec<Cell>,
    heavy: Vec<i64>,
    /// Cells per symbol.
    span: Vec<u32>,
    pairs: Vec<[u32; 2]>,
    counts: Vec<i64>,
    /// Where the places of a candidate lie in `places`.
    segments: Vec<(usize, u32)>,
    places: Vec<u32>,
    queue: Queue,
    /// Slots made in the step(s) that made a symbol.
    made: HashMap<u32, Vec<(u32, u32)>>,
    /// Slots that got places in more than one step.
    reopened: HashSet<u32>,
    step: u32,
    lefts: Vec<(u32, u32)>,
    rights: Vec<(u32, u32)>,
    locals: Vec<Local>,
    hits: Vec<(u32, u32)>,
    track_made: bool,
}

impl Learner {
    /// An engine for words of symbols below `symbols`. `track_made`: whether [`Learner::step`] may make an old symbol
    /// again.
    pub fn new(symbols: usize, track_made: bool) -> Self {
        Self {
            cells: vec![Cell { symbol: BOUNDARY, slot: NONE, weight: 0 }],
            heavy: Vec::new(),
            span: vec![1; symbols],
            pairs: Vec::new(),
            counts: Vec::new(),
            segments: Vec::new(),
            places: Vec::new(),
            queue: Queue::default(),
            made: HashMap::new(),
            reopened: HashSet::new(),
            step: 0,
            lefts: vec![(0, 0); symbols],
            rights: vec![(0, 0); symbols],
            locals: Vec::new(),
            hits: Vec::new(),
            track_made,
        }
    }

    /// Room for `cells` more cells.
    pub fn reserve(&mut self, cells: usize) {
        self.cells.reserve(cells);
    }

    /// Adds a word. Words of one symbol have no pair and are left out.
    pub fn push_word(&mut self, symbols: impl Iterator<Item = u32>, weight: u64) -> Result<()> {
        let before = self.cells.len();
        let in_cell = u32::try_from(weight).ok().filter(|&weight| weight < HEAVY);
        let weight = in_cell.unwrap_or_else(|| {
            self.heavy.push(i64::try_from(weight).unwrap_or(i64::MAX));
            HEAVY | (self.heavy.len() - 1) as u32
        });
        self.cells.extend(symbols.map(|symbol| Cell { symbol, slot: NONE, weight }));
        if self.cells.len() < before + 2 {
            self.cells.truncate(before);
            return Ok(());
        }
        self.cells.push(Cell { symbol: BOUNDARY, slot: NONE, weight: 0 });
        if self.cells.len() >= u32::MAX as usize {
            return Err(Error::argument(
                "the different words of the corpus have more than 4,294,967,294 symbols in all; \
                 train on less text or drop rare words (`max_words`)",
            ));
        }
        Ok(())
    }

    /// Counts all pairs and queues them.
    pub fn count_pairs<S: Style>(&mut self, style: &S, monitor: &Monitor) -> Result<()> {
        let mut slots = PairSlots::new(self.span.len());
        let mut sizes: Vec<u32> = Vec::new();
        let mut ties = Vec::new();
        for at in 1..self.cells.len() - 1 {
            if at % CHECK_EVERY == 0 {
                monitor.check()?;
            }
            let Cell { symbol, weight, .. } = self.cells[at];
            let right = self.cells[at + 1].symbol;
            if symbol == BOUNDARY || right == BOUNDARY {
                continue;
            }
            let slot = slots.get_or_insert(symbol, right, || {
                style.pair(symbol, right).map(|tie| {
                    ties.push(tie);
                    sizes.push(0);
                    self.counts.push(0);
                    self.pairs.push([symbol, right]);
                    self.pairs.len() as u32 - 1
                })
            });
            if slot != NONE {
                self.cells[at].slot = slot;
                self.counts[slot as usize] += self.weight(weight);
                sizes[slot as usize] += 1;
            }
        }
        let mut start = 0;
        let mut ends: Vec<usize> = Vec::with_capacity(sizes.len());
        for &size in &sizes {
            ends.push(start);
            self.segments.push((start, size));
            start += size as usize;
        }
        self.places = vec![0; start];
        for (at, cell) in self.cells.iter().enumerate().filter(|(_, cell)| cell.slot != NONE) {
            let end = &mut ends[cell.slot as usize];
            self.places[*end] = at as u32;
            *end += 1;
        }
        monitor.check()?;
        for (slot, &tie) in ties.iter().enumerate() {
            let candidate = Candidate { count: self.counts[slot], tie, slot: slot as u32, segment: slot as u32 };
            self.queue.push(candidate, |a, b| style.before(&self.pairs, a, b));
        }
        Ok(())
    }

    /// The best pair: the candidate and its two symbols. It is taken off the queue.
    pub fn next<S: Style>(&mut self, style: &S) -> Option<(Candidate, [u32; 2])> {
        let before = |a: &Candidate, b: &Candidate| style.before(&self.pairs, a, b);
        loop {
            let first = self.queue.first()?;
            let count = self.counts[first.slot as usize];
            if count == first.count {
                self.queue.pop(before);
                return Some((first, self.pairs[first.slot as usize]));
            }
            self.queue.replace_first(Candidate { count, ..first }, before);
        }
    }

    /// Merges all places of `candidate` into `symbol`, lowers and raises the counts of the pairs around them and queues
    /// the new pairs.
    ///
    /// `symbol` is either the next unused number or, if made before, one that the caller's vocabulary already has.
    pub fn step<S: Style>(&mut self, candidate: Candidate, symbol: u32, style: &S, monitor: &Monitor) -> Result<()> {
        let [left, right] = self.pairs[candidate.slot as usize];
        let (left_span, span) = (self.span[left as usize], self.span[left as usize] + self.span[right as usize]);
        let again = self.prepare(symbol, span);
        let first_slot = self.pairs.len() as u32;
        let found = self.places_of(candidate);
        let places = found.as_deref().map_or(self.segments[candidate.segment as usize], |list| (0, list.len() as u32));
        for index in 0..places.1 as usize {
            if index % CHECK_EVERY == CHECK_EVERY - 1 {
                monitor.check()?;
            }
            if let Some(&place) = self.places[places.0..].get(index + AHEAD) {
                self.fetch(place);
            }
            let at = found.as_ref().map_or_else(|| self.places[places.0 + index], |list| list[index]) as usize;
            if self.cells[at].slot != candidate.slot {
                continue;
            }
            let (middle, next) = (at + left_span as usize, at + span as usize);
            let weight = self.weight(self.cells[at].weight);
            let before = self.cells[at - 1].symbol;
            if before != BOUNDARY {
                let neighbour = before & !TAIL;
                let place = at - self.span[neighbour as usize] as usize;
                self.lower(place, weight);
                let local = self.local(true, neighbour, symbol, again, style);
                self.raise(place, local, weight);
            }
            let after = self.cells[next].symbol;
            if after != BOUNDARY {
                self.lower(middle, weight);
                let local = self.local(after == symbol, after, symbol, again, style);
                self.raise(at, local, weight);
            } else {
                self.cells[at].slot = NONE;
            }
            self.cells[middle].slot = NONE;
            self.cells[at].symbol = symbol;
            self.cells[next - 1].symbol = symbol | TAIL;
        }
        self.queue_locals(style);
        if self.track_made {
            self.made.entry(symbol).or_default().push((first_slot, self.pairs.len() as u32));
        }
        Ok(())
    }

    /// Opens a step; whether `symbol` was made before.
    fn prepare(&mut self, symbol: u32, span: u32) -> bool {
        self.step += 1;
        let symbol = symbol as usize;
        if symbol >= self.span.len() {
            self.span.resize(symbol + 1, 0);
            self.lefts.resize(symbol + 1, (0, 0));
            self.rights.resize(symbol + 1, (0, 0));
        }
        self.span[symbol] = span;
        self.made.contains_key(&(symbol as u32))
    }

    /// The places of a candidate whose pair was reopened: all of the pair in every word of the candidate's own list,
    /// because the reference lists words, not places. `None` in the usual case, where the list is right as it is.
    fn places_of(&self, candidate: Candidate) -> Option<Vec<u32>> {
        if !self.reopened.contains(&candidate.slot) {
            return None;
        }
        let (start, len) = self.segments[candidate.segment as usize];
        let mut places = Vec::new();
        let mut done = 0;
        for &place in &self.places[start..start + len as usize] {
            if place < done {
                continue;
            }
            let mut at = place as usize;
            while self.cells[at - 1].symbol != BOUNDARY {
                at -= 1;
            }
            while self.cells[at].symbol != BOUNDARY {
                if self.cells[at].slot == candidate.slot {
                    places.push(at as u32);
                }
                at += self.span[self.cells[at].symbol as usize] as usize;
            }
            done = at as u32;
        }
        Some(places)
    }

    #[inline(always)]
    fn weight(&self, weight: u32) -> i64 {
        if weight < HEAVY { i64::from(weight) } else { self.heavy[(weight & !HEAVY) as usize] }
    }

    /// Asks the memory for a cell that is needed soon.
    #[inline(always)]
    fn fetch(&self, place: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(cell) = self.cells.get(place as usize) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch reads nothing, and SSE is part of every x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(cell).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    #[inline(always)]
    fn lower(&mut self, place: usize, weight: i64) {
        let slot = self.cells[place].slot;
        if slot != NONE {
            self.counts[slot as usize] -= weight;
        }
    }

    #[inline(always)]
    fn raise(&mut self, place: usize, local: u32, weight: i64) {
        self.cells[place].slot = NONE;
        if local != NONE {
            let entry = &mut self.locals[local as usize];
            entry.places += 1;
            self.cells[place].slot = entry.slot;
            self.counts[entry.slot as usize] += weight;
            self.hits.push((local, place as u32));
        }
    }

    /// This step's entry for the pair of `neighbour` on the left (or right) and `symbol`.
    #[inline(always)]
    fn local<S: Style>(&mut self, on_left: bool, neighbour: u32, symbol: u32, again: bool, style: &S) -> u32 {
        let seen = if on_left { &self.lefts } else { &self.rights }[neighbour as usize];
        if seen.0 == self.step {
            return seen.1;
        }
        let pair = if on_left { [neighbour, symbol] } else { [symbol, neighbour] };
        let local = self.open_local(pair, again, style);
        let seen = if on_left { &mut self.lefts } else { &mut self.rights };
        seen[neighbour as usize] = (self.step, local);
        local
    }

    fn open_local<S: Style>(&mut self, pair: [u32; 2], again: bool, style: &S) -> u32 {
        let Some(tie) = style.pair(pair[0], pair[1]) else { return NONE };
        let known = if again { self.find(pair) } else { None };
        let slot = known.unwrap_or_else(|| {
            self.pairs.push(pair);
            self.counts.push(0);
            self.pairs.len() as u32 - 1
        });
        if known.is_some() {
            self.reopened.insert(slot);
        }
        self.locals.push(Local { slot, tie, places: 0, start: 0 });
        self.locals.len() as u32 - 1
    }

    /// The slot of a pair of which at least one symbol was made by a merge.
    fn find(&self, pair: [u32; 2]) -> Option<u32> {
        let ranges = pair.iter().filter_map(|symbol| self.made.get(symbol)).flatten();
        let current = (self.locals.iter()).map(|local| local.slot).find(|&slot| self.pairs[slot as usize] == pair);
        current.or_else(|| ranges.flat_map(|&(first, end)| first..end).find(|&slot| self.pairs[slot as usize] == pair))
    }

    /// Sorts the step's places by pair and queues the pairs.
    fn queue_locals<S: Style>(&mut self, style: &S) {
        let mut start = self.places.len();
        for local in &mut self.locals {
            local.start = start;
            start += local.places as usize;
        }
        self.places.resize(start, 0);
        for &(local, place) in &self.hits {
            let local = &mut self.locals[local as usize];
            self.places[local.start] = place;
            local.start += 1;
        }
        for local in &self.locals {
            let count = self.counts[local.slot as usize];
            if count > 0 || S::QUEUE_ALL {
                let segment = self.segments.len() as u32;
                self.segments.push((local.start - local.places as usize, local.places));
                let candidate = Candidate { count, tie: local.tie, slot: local.slot, segment };
                self.queue.push(candidate, |a, b| style.before(&self.pairs, a, b));
            }
        }
        self.hits.clear();
        self.locals.clear();
    }
}

/// Slots of the pairs of base symbols: a square for small alphabets, a map for large ones.
enum PairSlots {
    Square { side: usize, slots: Vec<u32> },
    Map(HashMap<(u32, u32), u32>),
}

impl PairSlots {
    /// One more than [`NONE`] wrapped: not looked up yet.
    const UNKNOWN: u32 = NONE - 1;

    fn new(symbols: usize) -> Self {
        if symbols <= 1 << 11 {
            Self::Square { side: symbols, slots: vec![Self::UNKNOWN; symbols * symbols] }
        } else {
            Self::Map(HashMap::new())
        }
    }

    #[inline(always)]
    fn get_or_insert(&mut self, left: u32, right: u32, make: impl FnOnce() -> Option<u32>) -> u32 {
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
