//! The merge engine of all styles: words as cells, pairs with the places where they stand, one merge as one pass over a
//! pair's places.
//!
//! **Cost.** Every merge of one place removes a symbol and adds at most two places; so the whole work is linear in the
//! cells, plus the queue. Memory: 2 bytes per cell (4 from 65,534 symbols on), 1 to 2 per place, 24 per pair, and
//! 50 or so per pair that waits in the queue.
//!
//! **Why counts stay exact.** Places of a pair arise only in the step that makes one of its two symbols, counts are
//! only lowered later; so a candidate whose count is stale is put back with the true one and what comes out is the
//! maximum. The exception is a merge whose text is in the vocabulary already (byte-level style): it makes an old symbol
//! again, a pair can get new places, and the reference then has two candidates that share one count. That is
//! reproduced: see [`Learner::places_of`].
//!
//! Tried and dropped: cells of 12 bytes with the number of the pair that they form and their word's weight, so that no
//! pair was looked up by its symbols (two to three times the memory, no faster on real text); lists of words instead
//! of places, rescanned whole at every merge (quadratic for long words); leaving counts too high and recounting a pair
//! when it comes to the front (recounts the frequent pairs too often).

use std::collections::HashMap;

use super::around::Around;
use super::cells::{Cell, Cells, Weights};
use super::fetch::fetch;
use super::pairs::{NONE, Pairs, Square};
use super::places::{Packer, Places, width};
use super::queue::{Candidate, Queue};
use crate::{Monitor, Result};

/// How far ahead cells are fetched, in places.
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

/// The state of learning.
pub(super) struct Learner {
    cells: Cells,
    weights: Weights,
    /// Cells per symbol.
    span: Vec<u32>,
    pairs: Pairs,
    /// Where the pair of a candidate stood when it was queued.
    places: Vec<Places>,
    queue: Queue,
    around: Around,
    /// Where the places of each slot are, if somebody else chooses which pair is merged.
    by_slot: Option<HashMap<u32, u32>>,
}

impl Learner {
    /// An engine for words of symbols below `symbols`.
    pub fn new(symbols: usize) -> Self {
        Self {
            cells: Cells::new(symbols),
            weights: Weights::default(),
            span: vec![1; symbols],
            pairs: Pairs::default(),
            places: Vec::new(),
            queue: Queue::default(),
            around: Around::new(symbols),
            by_slot: None,
        }
    }

    /// The same, also for merges that somebody else chooses: see [`Learner::follow`].
    pub fn following(symbols: usize) -> Self {
        Self { by_slot: Some(HashMap::new()), ..Self::new(symbols) }
    }

    /// Room for `cells` more cells.
    pub fn reserve(&mut self, cells: usize) {
        self.cells.reserve(cells);
    }

    /// Adds a word. Words of one symbol have no pair and are left out.
    pub fn push_word(&mut self, symbols: impl Iterator<Item = u32>, weight: u64) -> Result<()> {
        if let Some(start) = self.cells.push(symbols)? {
            self.weights.push(start, weight);
        }
        Ok(())
    }

    /// Counts all pairs and queues them.
    pub fn count_pairs<S: Style>(&mut self, style: &S, monitor: &Monitor) -> Result<()> {
        let (mut square, mut ties) = (Square::new(self.span.len()), Vec::new());
        let pairs = &mut self.pairs;
        let mut slot_of = |pair: [u32; 2], pairs: &mut Pairs| {
            let mut open = || match pairs.find(pair) {
                NONE => style.pair(pair[0], pair[1]).map_or(NONE, |tie| {
                    ties.push(tie);
                    pairs.open(pair)
                }),
                known => known,
            };
            if let Some(square) = &mut square { square.get_or_insert(pair, open) } else { open() }
        };
        let places = match &self.cells {
            Cells::Narrow(cells) => list_pairs(cells, &self.weights, pairs, &mut slot_of, monitor)?,
            Cells::Wide(cells) => list_pairs(cells, &self.weights, pairs, &mut slot_of, monitor)?,
        };
        for ((slot, tie), places) in (0..).zip(ties).zip(places) {
            self.enqueue(Candidate { count: self.pairs.counts[slot as usize], tie, slot, segment: 0 }, places, style);
        }
        Ok(())
    }

    /// Queues a candidate with its places.
    fn enqueue<S: Style>(&mut self, candidate: Candidate, places: Places, style: &S) {
        let candidate = Candidate { segment: self.places.len() as u32, ..candidate };
        self.places.push(places);
        if let Some(by_slot) = &mut self.by_slot {
            by_slot.insert(candidate.slot, candidate.segment);
        }
        self.queue.push(candidate, |a, b| style.before(&self.pairs.symbols, a, b));
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
        let pair = self.pairs.symbols[candidate.slot as usize];
        let merged = self.prepare(pair, symbol);
        let places = self.places_of(candidate);
        let (span, weights, around) = (&self.span, &self.weights, &mut self.around);
        let mut pass = Pass { merged, span, weights, around, style, run: 0, weight: 0 };
        match &mut self.cells {
            Cells::Narrow(cells) => pass.over(cells, &places, monitor)?,
            Cells::Wide(cells) => pass.over(cells, &places, monitor)?,
        }
        let weight = pass.weight;
        self.settle(pair, symbol, style);
        Ok(weight)
    }

    /// Merges a pair that was chosen elsewhere, if it is there; the weight of the places.
    pub fn follow<S: Style>(&mut self, pair: [u32; 2], symbol: u32, style: &S, monitor: &Monitor) -> Result<i64> {
        let slot = self.pairs.find(pair);
        let Some(segment) = self.by_slot.as_mut().and_then(|by_slot| by_slot.remove(&slot)) else {
            self.prepare(pair, symbol);
            return Ok(0);
        };
        let merged = self.step(Candidate { count: 0, tie: 0, slot, segment }, symbol, style, monitor)?;
        // It waits in the queue still.
        self.pairs.counts[slot as usize] = 0;
        Ok(merged)
    }

    /// Makes room for a symbol.
    fn prepare(&mut self, pair: [u32; 2], symbol: u32) -> Merged {
        let [left_span, right_span] = pair.map(|part| self.span[part as usize]);
        if symbol as usize >= self.span.len() {
            self.span.resize(symbol as usize + 1, 0);
            self.cells.widen(self.span.len());
        }
        self.span[symbol as usize] = left_span + right_span;
        self.around.begin(self.span.len());
        Merged { pair, symbol, left_span: left_span as usize, right_span: right_span as usize }
    }

    /// The places of a candidate, which it no longer needs. If its pair was reopened: all of the pair in every word of
    /// the candidate's own list, because the reference lists words, not places.
    fn places_of(&mut self, candidate: Candidate) -> Places {
        let places = std::mem::take(&mut self.places[candidate.segment as usize]);
        if !self.pairs.reopened.contains(&candidate.slot) {
            return places;
        }
        let pair = self.pairs.symbols[candidate.slot as usize];
        match &self.cells {
            Cells::Narrow(cells) => places_in_words(cells, &self.span, &places, pair),
            Cells::Wide(cells) => places_in_words(cells, &self.span, &places, pair),
        }
    }

    /// Writes the step's sums to the counts and queues the new pairs.
    fn settle<S: Style>(&mut self, [left, right]: [u32; 2], symbol: u32, style: &S) {
        let (pairs, locals) = (&mut self.pairs, &mut self.around.locals);
        let made = pairs.symbols.len() as u32;
        for local in locals.iter_mut().filter(|local| local.tie.is_some()) {
            let with = local.neighbour;
            local.slot = pairs.open(if local.on_left { [with, symbol] } else { [symbol, with] });
            pairs.counts[local.slot as usize] += local.weight;
            if local.slot < made {
                pairs.reopened.insert(local.slot);
            }
        }
        for local in locals.iter() {
            let with = local.neighbour;
            let old = pairs.find(if local.on_left { [with, left] } else { [right, with] });
            if old != NONE {
                pairs.counts[old as usize] -= local.weight;
            }
        }
        for index in 0..self.around.locals.len() {
            let local = &self.around.locals[index];
            let Some(tie) = local.tie.filter(|_| !local.is_twin(symbol)) else { continue };
            let count = self.pairs.counts[local.slot as usize];
            if count > 0 || S::QUEUE_ALL {
                self.enqueue(Candidate { count, tie, slot: local.slot, segment: 0 }, self.around.places(index), style);
            }
        }
    }
}

/// Counts the pairs and lists their places, by slot; `slot_of` opens them.
fn list_pairs<C: Cell>(
    cells: &[C],
    weights: &Weights,
    pairs: &mut Pairs,
    slot_of: &mut impl FnMut([u32; 2], &mut Pairs) -> u32,
    monitor: &Monitor,
) -> Result<Vec<Places>> {
    // Bytes of each list and its last place, so that lists are written without growing.
    let (mut sizes, mut run): (Vec<(u32, u32)>, _) = (Vec::new(), 0);
    each_pair(cells, monitor, |place, pair| {
        let slot = slot_of(pair, pairs);
        if slot == NONE {
            return;
        }
        let slot = slot as usize;
        pairs.counts[slot] += weights.at(place, &mut run);
        if slot == sizes.len() {
            sizes.push((0, 0));
        }
        let (bytes, last) = &mut sizes[slot];
        *bytes += width(place - *last);
        *last = place;
    })?;
    let mut lists: Vec<Packer> = sizes.into_iter().map(|(bytes, _)| Packer::with_capacity(bytes)).collect();
    each_pair(cells, monitor, |place, pair| {
        let slot = slot_of(pair, pairs);
        if slot != NONE {
            lists[slot as usize].push(place);
        }
    })?;
    Ok(lists.into_iter().map(Packer::into_places).collect())
}

/// Calls `visit` with every pair of words that nothing was merged in yet, and its place.
fn each_pair<C: Cell>(cells: &[C], monitor: &Monitor, mut visit: impl FnMut(u32, [u32; 2])) -> Result<()> {
    for (place, pair) in (0u32..).zip(cells.windows(2)) {
        if (place as usize).is_multiple_of(CHECK_EVERY) {
            monitor.check()?;
        }
        if !pair.contains(&C::BOUNDARY) {
            visit(place, [pair[0].symbol(), pair[1].symbol()]);
        }
    }
    Ok(())
}

/// All places of `pair` in the words that `places` lie in.
fn places_in_words<C: Cell>(cells: &[C], span: &[u32], places: &Places, [left, right]: [u32; 2]) -> Places {
    let (mut found, mut done) = (Packer::default(), 0);
    for place in places.iter().map(|place| place as usize) {
        if place < done {
            continue;
        }
        let mut at = place;
        while cells[at - 1] != C::BOUNDARY {
            at -= 1;
        }
        while cells[at] != C::BOUNDARY {
            let next = at + span[cells[at].symbol() as usize] as usize;
            if cells[at] == C::of(left) && cells[next] == C::of(right) {
                found.push(at as u32);
            }
            at = next;
        }
        done = at;
    }
    found.into_places()
}

/// A pair, the symbol that a step makes of it, and the cells of its two parts.
struct Merged {
    pair: [u32; 2],
    symbol: u32,
    left_span: usize,
    right_span: usize,
}

/// One merge on its way through the words.
struct Pass<'a, S> {
    merged: Merged,
    span: &'a [u32],
    weights: &'a Weights,
    around: &'a mut Around,
    style: &'a S,
    /// Where in `weights` the last place was.
    run: usize,
    /// Of all places so far.
    weight: i64,
}

impl<S: Style> Pass<'_, S> {
    /// Merges what is still valid of `places`. Each waits while the memory fetches its cell.
    fn over<C: Cell>(&mut self, cells: &mut [C], places: &Places, monitor: &Monitor) -> Result<()> {
        let (mut waiting, mut seen) = ([0; AHEAD], 0);
        for place in places.iter() {
            fetch(cells, place as usize);
            let ready = std::mem::replace(&mut waiting[seen % AHEAD], place);
            seen += 1;
            if seen > AHEAD {
                self.merge_at(ready, cells);
            }
            if seen % CHECK_EVERY == 0 {
                monitor.check()?;
            }
        }
        for index in seen.saturating_sub(AHEAD)..seen {
            self.merge_at(waiting[index % AHEAD], cells);
        }
        Ok(())
    }

    /// Merges a place, if it is still valid.
    #[inline(always)]
    fn merge_at<C: Cell>(&mut self, place: u32, cells: &mut [C]) {
        let Merged { pair: [left, right], symbol, left_span, right_span } = self.merged;
        let at = place as usize;
        let (middle, next) = (at + left_span, at + left_span + right_span);
        if cells[at] != C::of(left) || cells[middle] != C::of(right) {
            return;
        }
        let weight = self.weights.at(place, &mut self.run);
        self.weight += weight;
        let (before, after) = (cells[at - 1], cells[next]);
        if before != C::BOUNDARY {
            let with = before.symbol();
            let local = self.around.meet(true, with, weight, || self.style.pair(with, symbol));
            self.around.note(local, at - self.span[with as usize] as usize);
        }
        if after != C::BOUNDARY {
            let with = after.symbol();
            let mut local = self.around.meet(false, with, weight, || self.style.pair(symbol, with));
            if with == symbol {
                // Only where an old symbol is made again: the pair is that of this neighbour on the left.
                local = self.around.meet(true, symbol, 0, || self.style.pair(symbol, symbol));
            }
            self.around.note(local, at);
        }
        cells[middle] = C::INSIDE;
        (cells[at], cells[next - 1]) = (C::of(symbol), C::of(symbol));
    }
}
