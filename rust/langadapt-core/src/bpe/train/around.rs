//! What one merge meets: the neighbours of its places, summed up before anything is written to the counts.

use super::pairs::NONE;
use super::places::{Packer, Places};

/// What a step found on one side of the merged pair, by neighbour.
pub(super) struct Local {
    pub on_left: bool,
    pub neighbour: u32,
    /// The tie key of the pair of the neighbour and the new symbol; `None` if it is never made.
    pub tie: Option<u64>,
    /// Its slot, once it has one.
    pub slot: u32,
    pub weight: i64,
}

impl Local {
    /// Whether the new pair is that of two new symbols, seen from the left one: places are noted at the other entry.
    pub fn is_twin(&self, symbol: u32) -> bool {
        self.neighbour == symbol && !self.on_left
    }
}

/// The neighbours met in the current step. Sums are kept here and written to the counts once per neighbour: the counts
/// lie all over the memory, and pairs are looked up by their symbols.
pub(super) struct Around {
    step: u32,
    /// By symbol: the step in which it was last seen on this side, and its entry in `locals`.
    lefts: Vec<(u32, u32)>,
    rights: Vec<(u32, u32)>,
    pub locals: Vec<Local>,
    /// Places of the new pairs, by entry in `locals`; kept from step to step for their memory.
    places: Vec<Packer>,
}

impl Around {
    /// Nothing met yet, by symbols below `symbols`.
    pub fn new(symbols: usize) -> Self {
        Self {
            step: 0,
            lefts: vec![(0, 0); symbols],
            rights: vec![(0, 0); symbols],
            locals: Vec::new(),
            places: Vec::new(),
        }
    }

    /// Opens a step, which may meet symbols below `symbols`.
    pub fn begin(&mut self, symbols: usize) {
        self.step += 1;
        if symbols > self.lefts.len() {
            self.lefts.resize(symbols, (0, 0));
            self.rights.resize(symbols, (0, 0));
        }
        let written = self.locals.len();
        self.places[..written].iter_mut().for_each(Packer::clear);
        self.locals.clear();
    }

    /// Adds a place's weight to the entry of a neighbour; `open` gives the tie key of the new pair.
    #[inline(always)]
    pub fn meet(&mut self, on_left: bool, neighbour: u32, weight: i64, open: impl FnOnce() -> Option<u64>) -> usize {
        let side = if on_left { &mut self.lefts } else { &mut self.rights };
        let seen = &mut side[neighbour as usize];
        if seen.0 != self.step {
            *seen = (self.step, self.locals.len() as u32);
            self.locals.push(Local { on_left, neighbour, tie: open(), slot: NONE, weight: 0 });
            if self.places.len() < self.locals.len() {
                self.places.push(Packer::default());
            }
        }
        self.locals[seen.1 as usize].weight += weight;
        seen.1 as usize
    }

    /// Notes a place of an entry's new pair; they ascend.
    #[inline(always)]
    pub fn note(&mut self, local: usize, place: usize) {
        if self.locals[local].tie.is_some() {
            self.places[local].push(place as u32);
        }
    }

    /// The noted places of an entry.
    pub fn places(&self, local: usize) -> Places {
        self.places[local].places()
    }
}
