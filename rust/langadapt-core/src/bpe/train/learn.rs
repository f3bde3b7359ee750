//! The merge engine shared by both styles: words as cells, pairs as slots, one merge as one pass over a pair's places.
//!
//! **Layout.** All words lie in one array of [`Cell`]s, one cell per base symbol, with a boundary cell around each
//! word. A symbol that spans several cells is written in its first cell and, marked as a tail, in its last one, so that
//! both neighbours of a place are found in O(1) without links. The first cell also names the pair that it forms with
//! its right neighbour (its *slot*): a place of a pair is still valid exactly if the cell still names the slot, and the
//! counts of the two pairs that a merge destroys are reached without any hash table.
//!
//! **Cost.** Every merge of one place removes a symbol and adds at most two places; so the whole work is linear in the
//! cells, plus the queue. Memory: 12 bytes per cell, at most 12 bytes per cell for places, 56 bytes per pair; measured,
//! with the counts before it, 290 to 303 bytes for every different word of 16 letters.
//!
//! **Why counts stay exact.** Places of a pair arise only in the step that makes one of its two symbols, counts are
//! only lowered later; so a candidate whose count is stale is put back with the true one and what comes out is the
//! maximum. The exception is a merge whose text is in the vocabulary already (byte-level style): it makes an old symbol
//! again, a pair can get new places, and the reference then has two candidates that share one count. That is
//! reproduced: see [`Pairs::open`] and [`Learner::places_of`].
//!
//! **Where the time went**, on 35 MB of German and 32,000 merges: waiting for cells (a prefetch 16 places ahead and the
//! weight in the cell took a third off), writing counts all over the memory (sums per neighbour: an eighth).
//!
//! Tried and dropped: a hash map from pair to slot (cache misses again, two for every neighbour); lists of words
//! instead of places, rescanned whole at every merge (quadratic for long words); leaving counts too high and recounting
//! a pair when it comes to the front (recounts the frequent pairs too often); a second prefetch for the counts of the
//! neighbours (a tenth slower: more instructions than waiting saved).

use std::collections::HashMap;

use super::around::{Around, Local};
use super::fetch::fetch;
use super::pairs::{NONE, PairSlots, Pairs};
use super::queue::{Candidate, Queue};
use crate::{Error, Monitor, Result};

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

/// The state of learning.
pub(super) struct Learner {
    cells: Vec<Cell>,
    heavy: Vec<i64>,
    /// Cells per symbol.
    span: Vec<u32>,
    pairs: Pairs,
    /// Where the places of a candidate lie in `places`.
    segments: Vec<(usize, u32)>,
    places: Vec<u32>,
    queue: Queue,
    around: Around,
    track_made: bool,
    /// Candidate of each pair, where somebody else chooses which pair is merged.
    chosen_elsewhere: Option<HashMap<[u32; 2], (u32, u32)>>,
}

impl Learner {
    /// An engine for words of symbols below `symbols`. `track_made`: whether [`Learner::step`] may make an old symbol
    /// again.
    pub fn new(symbols: usize, track_made: bool) -> Self {
        Self {
            cells: vec![Cell { symbol: BOUNDARY, slot: NONE, weight: 0 }],
            heavy: Vec::new(),
            span: vec![1; symbols],
            pairs: Pairs::default(),
            segments: Vec::new(),
            places: Vec::new(),
            queue: Queue::default(),
            around: Around::new(symbols),
            track_made,
            chosen_elsewhere: None,
        }
    }

    /// The same, also for merges that somebody else chooses: see [`Learner::follow`].
    pub fn following(symbols: usize) -> Self {
        Self { chosen_elsewhere: Some(HashMap::new()), ..Self::new(symbols, false) }
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
                    self.pairs.push([symbol, right])
                })
            });
            if slot != NONE {
                self.cells[at].slot = slot;
                self.pairs.counts[slot as usize] += weight_of(weight, &self.heavy);
                sizes[slot as usize] += 1;
            }
        }
        self.place_pairs(&sizes);
        monitor.check()?;
        for (slot, &tie) in ties.iter().enumerate() {
            let candidate = Candidate { count: self.pairs.counts[slot], tie, slot: slot as u32, segment: slot as u32 };
            if let Some(known) = &mut self.chosen_elsewhere {
                known.insert(self.pairs.symbols[slot], (slot as u32, slot as u32));
            }
            self.queue.push(candidate, |a, b| style.before(&self.pairs.symbols, a, b));
        }
        Ok(())
    }

    /// Lists the places of every pair; `sizes` tells how many each has.
    fn place_pairs(&mut self, sizes: &[u32]) {
        let mut start = 0;
        let mut ends: Vec<usize> = Vec::with_capacity(sizes.len());
        for &size in sizes {
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
    }

    /// The best pair: the candidate and its two symbols. It is taken off the queue.
    pub fn next<S: Style>(&mut self, style: &S) -> Option<(Candidate, [u32; 2])> {
        let before = |a: &Candidate, b: &Candidate| style.before(&self.pairs.symbols, a, b);
        loop {
            let first = self.queue.first()?;
            let count = self.pairs.counts[first.slot as usize];
            if count == first.count {
                self.queue.pop(before);
                return Some((first, self.pairs.symbols[first.slot as usize]));
            }
            self.queue.replace_first(Candidate { count, ..first }, before);
        }
    }

    /// Merges all places of `candidate` into `symbol`, lowers and raises the counts of the pairs around them and queues
    /// the new pairs.
    ///
    /// `symbol` is either the next unused number or, if made before, one that the caller's vocabulary already has.
    /// Gives the weight of the places.
    pub fn step<S: Style>(&mut self, candidate: Candidate, symbol: u32, style: &S, monitor: &Monitor) -> Result<i64> {
        let [left, right] = self.pairs.symbols[candidate.slot as usize];
        let shape =
            Merged { symbol, left: self.span[left as usize] as usize, right: self.span[right as usize] as usize };
        let again = self.prepare(&shape);
        let first_slot = self.pairs.symbols.len() as u32;
        let found = self.places_of(candidate);
        let (start, len) = self.segments[candidate.segment as usize];
        let places = found.as_deref().unwrap_or(&self.places[start..start + len as usize]);
        let (cells, span) = (self.cells.as_mut_slice(), self.span.as_slice());
        let (around, pairs, heavy) = (&mut self.around, &mut self.pairs, &self.heavy);
        let open = |pair: [u32; 2], locals: &[Local], pairs: &mut Pairs| match style.pair(pair[0], pair[1]) {
            Some(tie) => (pairs.open(pair, again, locals.iter().map(|local| local.slot)), tie),
            None => (NONE, 0),
        };
        let mut merged = 0;
        for (index, &place) in places.iter().enumerate() {
            if index % CHECK_EVERY == CHECK_EVERY - 1 {
                monitor.check()?;
            }
            if let Some(&soon) = places.get(index + AHEAD) {
                fetch(cells, soon as usize);
            }
            if cells[place as usize].slot == candidate.slot {
                let weight = weight_of(cells[place as usize].weight, heavy);
                merged += weight;
                merge_at(place as usize, weight, &shape, cells, span, around, |pair, locals| open(pair, locals, pairs));
            }
        }
        self.settle(style);
        if self.track_made {
            self.pairs.made.entry(symbol).or_default().push((first_slot, self.pairs.symbols.len() as u32));
        }
        Ok(merged)
    }

    /// Merges a pair that was chosen elsewhere, if it is there; the weight of the places.
    pub fn follow<S: Style>(&mut self, pair: [u32; 2], symbol: u32, style: &S, monitor: &Monitor) -> Result<i64> {
        let known = self.chosen_elsewhere.as_mut().and_then(|known| known.remove(&pair));
        let Some((slot, segment)) = known else {
            let [left, right] = pair.map(|symbol| self.span[symbol as usize] as usize);
            self.prepare(&Merged { symbol, left, right });
            return Ok(0);
        };
        let merged = self.step(Candidate { count: 0, tie: 0, slot, segment }, symbol, style, monitor)?;
        // It waits in the queue still.
        self.pairs.counts[slot as usize] = 0;
        Ok(merged)
    }

    /// Opens a step; whether its symbol was made before.
    fn prepare(&mut self, merged: &Merged) -> bool {
        self.around.step += 1;
        let symbol = merged.symbol as usize;
        if symbol >= self.span.len() {
            self.span.resize(symbol + 1, 0);
            self.around.lefts.resize(symbol + 1, (0, 0));
            self.around.rights.resize(symbol + 1, (0, 0));
        }
        self.span[symbol] = (merged.left + merged.right) as u32;
        self.pairs.made.contains_key(&merged.symbol)
    }

    /// The places of a candidate whose pair was reopened: all of the pair in every word of the candidate's own list,
    /// because the reference lists words, not places. `None` in the usual case, where the list is right as it is.
    fn places_of(&self, candidate: Candidate) -> Option<Vec<u32>> {
        if !self.pairs.reopened.contains(&candidate.slot) {
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

    /// Writes the step's sums to the counts, sorts its places by pair and queues the pairs.
    fn settle<S: Style>(&mut self, style: &S) {
        let mut start = self.places.len();
        for local in &mut self.around.locals {
            if local.old != NONE {
                self.pairs.counts[local.old as usize] -= local.weight;
            }
            if local.slot != NONE {
                self.pairs.counts[local.slot as usize] += local.weight + local.extra;
            }
            local.start = start;
            start += local.places as usize;
        }
        self.places.resize(start, 0);
        for &(local, place) in &self.around.hits {
            let local = &mut self.around.locals[local as usize];
            self.places[local.start] = place;
            local.start += 1;
        }
        for local in self.around.locals.iter().filter(|local| local.slot != NONE) {
            let count = self.pairs.counts[local.slot as usize];
            if count > 0 || S::QUEUE_ALL {
                let segment = self.segments.len() as u32;
                self.segments.push((local.start - local.places as usize, local.places));
                let candidate = Candidate { count, tie: local.tie, slot: local.slot, segment };
                if let Some(known) = &mut self.chosen_elsewhere {
                    known.insert(self.pairs.symbols[local.slot as usize], (local.slot, segment));
                }
                self.queue.push(candidate, |a, b| style.before(&self.pairs.symbols, a, b));
            }
        }
        self.around.hits.clear();
        self.around.locals.clear();
    }
}

/// The symbol that a step makes, and the spans of its two parts.
struct Merged {
    symbol: u32,
    left: usize,
    right: usize,
}

/// Merges one valid place.
#[inline(always)]
fn merge_at(
    at: usize,
    weight: i64,
    merged: &Merged,
    cells: &mut [Cell],
    span: &[u32],
    around: &mut Around,
    mut open: impl FnMut([u32; 2], &[Local]) -> (u32, u64),
) {
    let symbol = merged.symbol;
    let (middle, next) = (at + merged.left, at + merged.left + merged.right);
    let before = cells[at - 1].symbol;
    if before != BOUNDARY {
        let neighbour = before & !TAIL;
        let place = at - span[neighbour as usize] as usize;
        let old = cells[place].slot;
        let local = around.local(true, neighbour, old, |locals| open([neighbour, symbol], locals));
        if neighbour == symbol {
            // The entry may have been opened from the other side, see below.
            around.locals[local as usize].old = old;
        }
        cells[place].slot = around.note(local, place, weight);
    }
    let (after, old) = (cells[next].symbol, cells[middle].slot);
    cells[middle].slot = NONE;
    cells[at].slot = if after == BOUNDARY {
        NONE
    } else if after == symbol {
        // Only where an old symbol is made again. The new pair is that of this neighbour on the left, the old one not.
        let twin = around.local(true, symbol, NONE, |locals| open([symbol, symbol], locals));
        let ended = around.local(false, symbol, old, |_| (NONE, 0));
        around.locals[ended as usize].weight += weight;
        let entry = &mut around.locals[twin as usize];
        entry.extra += weight;
        entry.weight -= weight;
        around.note(twin, at, weight)
    } else {
        let local = around.local(false, after, old, |locals| open([symbol, after], locals));
        around.note(local, at, weight)
    };
    cells[at].symbol = symbol;
    cells[next - 1].symbol = symbol | TAIL;
}

#[inline(always)]
fn weight_of(weight: u32, heavy: &[i64]) -> i64 {
    if weight < HEAVY { i64::from(weight) } else { heavy[(weight & !HEAVY) as usize] }
}
