//! What one merge meets: the neighbours of its places, summed up before anything is written to the counts.

use super::pairs::NONE;

/// What a step found on one side of the merged pair, by neighbour.
pub(super) struct Local {
    /// The pair of the neighbour and the new symbol; [`NONE`] if it is never made.
    pub slot: u32,
    /// The pair that the neighbour formed before; [`NONE`] if it had no slot.
    pub old: u32,
    pub tie: u64,
    /// Moved from `old` to `slot`.
    pub weight: i64,
    /// Given to `slot` alone.
    pub extra: i64,
    pub places: u32,
    pub start: usize,
}

/// The neighbours met in the current step. Sums are kept here and written to the counts once per neighbour: the counts
/// lie all over the memory.
pub(super) struct Around {
    pub step: u32,
    /// By symbol: the step in which it was last seen on this side, and its entry in `locals`.
    pub lefts: Vec<(u32, u32)>,
    pub rights: Vec<(u32, u32)>,
    pub locals: Vec<Local>,
    /// New places: entry in `locals`, cell.
    pub hits: Vec<(u32, u32)>,
}

impl Around {
    /// Nothing met yet, by symbols below `symbols`.
    pub fn new(symbols: usize) -> Self {
        Self {
            step: 0,
            lefts: vec![(0, 0); symbols],
            rights: vec![(0, 0); symbols],
            locals: Vec::new(),
            hits: Vec::new(),
        }
    }

    /// The entry of a neighbour whose pair was `old` until now; `open` gives slot and tie of the new pair.
    #[inline(always)]
    pub fn local(&mut self, on_left: bool, neighbour: u32, old: u32, open: impl FnOnce(&[Local]) -> (u32, u64)) -> u32 {
        let side = if on_left { &mut self.lefts } else { &mut self.rights };
        let seen = &mut side[neighbour as usize];
        if seen.0 != self.step {
            *seen = (self.step, self.locals.len() as u32);
            let (slot, tie) = open(&self.locals);
            self.locals.push(Local { slot, old, tie, weight: 0, extra: 0, places: 0, start: 0 });
        }
        seen.1
    }

    /// Notes a new place; the slot for its cell.
    #[inline(always)]
    pub fn note(&mut self, local: u32, place: usize, weight: i64) -> u32 {
        let entry = &mut self.locals[local as usize];
        entry.weight += weight;
        if entry.slot != NONE {
            entry.places += 1;
            self.hits.push((local, place as u32));
        }
        entry.slot
    }
}
