//! Ids of pieces seen before.
//!
//! Text repeats itself: of the pieces of a large corpus 99 % have been seen earlier. One open-addressing table per
//! thread maps a piece to its ids; no lock, no sharing. An entry is 32 bytes, two to a cache line: a key of up to 15
//! bytes stands in it as two words, up to four ids likewise; longer keys and longer results live in arenas.
//!
//! The table doubles up to [`MAX_LINES`] (32 MiB) and then starts anew, so memory is bounded on any input. What is in
//! it never changes a result.
//!
//! Looking one piece up after the other would wait for memory at each. So a block of pieces is cut and hashed first,
//! each asking for its cache line, and only then looked up: the lines arrive side by side.
//!
//! Ids are written four at a time, needed or not, and the end of the output moves by their number: a copy of fixed
//! size has no branch to mispredict and needs no call.

use std::ops::Range;

use super::huge;
use super::merges::Scratch;
use super::piece_key::Key;
use crate::Monitor;

/// Longest piece that is kept; longer ones hardly ever come again.
const MAX_PIECE: usize = 255;
const MIN_LINES: usize = 1 << 12;
const MAX_LINES: usize = 1 << 19;
/// Text that brings as many new pieces as fit into a line, for tens of megabytes of German.
const BYTES_PER_LINE: u64 = 100;
/// The arenas hold rare pieces; beyond this many bytes all starts anew.
const MAX_ARENA: usize = 32 << 20;

/// Pieces that are cut before the first of them is looked up.
const BLOCK: usize = 32;

/// In the top four bits of the first id, instead of a count: the ids are in the arena.
const SPILLED: u32 = 15;
const COUNT_SHIFT: u32 = 28;
const ID_MASK: u32 = (1 << COUNT_SHIFT) - 1;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(32))]
struct Slot {
    key: Key,
    ids: [u32; 4],
}

/// A cache line. The first slot is filled first, so an empty second one ends a search.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([Slot; 2]);

/// Where a piece was found.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: usize,
    slot: usize,
}

/// What a thread keeps between texts: pieces seen before, and scratch memory. Belongs to one tokenizer.
#[derive(Debug)]
pub struct Cache {
    lines: Vec<Line>,
    used: usize,
    /// Bytes of long keys, each after its slot's hash.
    keys: Vec<u8>,
    /// Ids of long results.
    ids: Vec<u32>,
    /// Which tokenizer filled it.
    pub(super) owner: u64,
    scratch: Scratch,
    pub(super) symbols: Vec<u32>,
    pub(super) text: String,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            lines: vec![Line::default(); MIN_LINES],
            used: 0,
            keys: Vec::new(),
            ids: Vec::new(),
            owner: 0,
            scratch: Scratch::default(),
            symbols: Vec::new(),
            text: String::new(),
        }
    }
}

impl Cache {
    /// Forgets all pieces.
    pub fn clear(&mut self) {
        self.lines.fill(Line::default());
        self.used = 0;
        self.keys.clear();
        self.ids.clear();
    }

    /// Makes room in an empty cache for the pieces of a text of so many bytes: growing step by step would move what
    /// is remembered again and again, 4 % of the time of encoding.
    pub fn expect(&mut self, bytes: u64) {
        let lines = (bytes / BYTES_PER_LINE).clamp(1, MAX_LINES as u64 / 2).next_power_of_two() as usize;
        if self.used == 0 && lines > self.lines.len() {
            self.lines = huge::filled(lines, Line::default());
        }
    }

    /// Lets calls that use this cache return early once `monitor` is asked to stop: even one text can take long. What
    /// they return then is of no use, so [`Monitor::check`] has to be asked behind them.
    pub fn watch(&mut self, monitor: &Monitor) {
        self.scratch.stop = monitor.stop_sign();
    }

    /// Pieces remembered, and memory in bytes.
    pub fn statistics(&self) -> (usize, usize) {
        (self.used, self.lines.len() * size_of::<Line>() + self.keys.capacity() + self.ids.capacity() * 4)
    }

    /// Appends the ids of all pieces of `text` to `out`.
    ///
    /// `next` tells the bounds of the piece that begins at a place or, where text is left out, behind it; `encode` gets
    /// the place of a piece that is not remembered, an empty buffer for its ids, and scratch memory.
    #[inline]
    pub fn encode_pieces(
        &mut self,
        text: &[u8],
        out: &mut Vec<u32>,
        mut next: impl FnMut(usize) -> Option<(usize, usize)>,
        mut encode: impl FnMut(Range<usize>, &mut Vec<u32>, &mut Scratch),
    ) {
        let mut start = 0;
        let mut block = [(Key::default(), 0, 0); BLOCK];
        while start < text.len() && !self.scratch.stop.is_asked() {
            let mut count = 0;
            for (key, from, to) in &mut block {
                let Some((piece_start, end)) = next(start) else {
                    start = text.len();
                    break;
                };
                (*key, *from, *to) = (Key::new(text, piece_start, end), piece_start, end);
                self.prefetch(*key);
                start = end;
                count += 1;
            }
            let mut ids = [0; 4 * BLOCK];
            let mut written = 0;
            for &(key, from, to) in &block[..count] {
                if let Some(&[first, second, third, fourth]) =
                    self.find(key, &text[from..to]).map(|at| &self.slot(at).ids)
                    && first >> COUNT_SHIFT != SPILLED
                {
                    ids[written..written + 4].copy_from_slice(&[first & ID_MASK, second, third, fourth]);
                    written += (first >> COUNT_SHIFT) as usize;
                } else {
                    out.extend_from_slice(&ids[..written]);
                    written = 0;
                    self.encode_slowly(key, text, from..to, out, &mut encode);
                }
            }
            out.extend_from_slice(&ids[..written]);
        }
    }

    /// Appends the ids of one piece.
    pub fn encode_piece(
        &mut self,
        piece: &[u8],
        out: &mut Vec<u32>,
        mut encode: impl FnMut(Range<usize>, &mut Vec<u32>, &mut Scratch),
    ) {
        if piece.is_empty() {
            return;
        }
        let key = Key::new(piece, 0, piece.len());
        self.encode_slowly(key, piece, 0..piece.len(), out, &mut encode);
    }

    /// Asks the processor to fetch the slot where `key` belongs.
    #[inline]
    fn prefetch(&self, key: Key) {
        let at = key.hash() & (self.lines.len() - 1);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching reads nothing that a program can see, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(&self.lines[at]).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        std::hint::black_box(self.lines[at].0[0].key);
    }

    /// Where `piece` is, if it is remembered.
    ///
    /// Which of the two slots of a line holds a piece cannot be foreseen; so it is computed, not branched on.
    #[inline(always)]
    fn find(&self, key: Key, piece: &[u8]) -> Option<Place> {
        let mask = self.lines.len() - 1;
        let mut line = key.hash() & mask;
        loop {
            let slots = &self.lines[line].0;
            let slot = usize::from(slots[1].key.is(key));
            if slots[slot].key.is(key) && (!key.is_long() || self.long_key(&slots[slot]) == piece) {
                return Some(Place { line, slot });
            }
            if slots[1].key.is(Key::default()) {
                return None;
            }
            line = (line + 1) & mask;
        }
    }

    #[inline(always)]
    fn slot(&self, at: Place) -> &Slot {
        &self.lines[at.line].0[at.slot]
    }

    /// Appends the ids of a piece, wherever they come from.
    #[inline(never)]
    fn encode_slowly(
        &mut self,
        key: Key,
        text: &[u8],
        piece: Range<usize>,
        out: &mut Vec<u32>,
        encode: &mut impl FnMut(Range<usize>, &mut Vec<u32>, &mut Scratch),
    ) {
        if let Some(at) = self.find(key, &text[piece.clone()]) {
            let [first, from, len, _] = self.slot(at).ids;
            return match first >> COUNT_SHIFT {
                SPILLED => out.extend_from_slice(&self.ids[from as usize..from as usize + len as usize]),
                count => {
                    out.extend_from_slice(&self.slot(at).ids[..count as usize]);
                    let first_written = out.len() - count as usize;
                    out[first_written..].iter_mut().take(1).for_each(|id| *id &= ID_MASK);
                }
            };
        }
        let mut symbols = std::mem::take(&mut self.symbols);
        symbols.clear();
        encode(piece.clone(), &mut symbols, &mut self.scratch);
        out.extend_from_slice(&symbols);
        if piece.len() <= MAX_PIECE && !self.scratch.stop.is_asked() {
            self.insert(key, &text[piece], &symbols);
        }
        self.symbols = symbols;
    }

    fn long_key(&self, slot: &Slot) -> &[u8] {
        let start = slot.ids[3] as usize;
        &self.keys[start..start + slot.key.long_len()]
    }

    fn insert(&mut self, key: Key, piece: &[u8], ids: &[u32]) {
        // Pieces that come often came early and sit where they belong: a well filled table costs hits little, and a
        // small one stays in cache.
        let full = self.used * 3 >= self.lines.len() * 4;
        if full && self.lines.len() < MAX_LINES {
            self.grow();
        } else if full || self.keys.len() > MAX_ARENA || self.ids.len() * 4 > MAX_ARENA {
            self.clear();
        }
        let mut slot = Slot { key, ids: [0; 4] };
        // A long key needs the last id's place for itself.
        let room = if key.is_long() { 3 } else { 4 };
        if ids.len() <= room {
            slot.ids[..ids.len()].copy_from_slice(ids);
            slot.ids[0] |= (ids.len() as u32) << COUNT_SHIFT;
        } else {
            slot.ids = [SPILLED << COUNT_SHIFT, self.ids.len() as u32, ids.len() as u32, 0];
            self.ids.extend_from_slice(ids);
        }
        if key.is_long() {
            slot.ids[3] = self.keys.len() as u32;
            self.keys.extend_from_slice(piece);
        }
        *free_slot(&mut self.lines, key) = slot;
        self.used += 1;
    }

    fn grow(&mut self) {
        let mut lines = huge::filled(self.lines.len() * 2, Line::default());
        for slot in self.lines.iter().flat_map(|line| line.0).filter(|slot| !slot.key.is(Key::default())) {
            *free_slot(&mut lines, slot.key) = slot;
        }
        self.lines = lines;
    }
}

fn free_slot(lines: &mut [Line], key: Key) -> &mut Slot {
    let mask = lines.len() - 1;
    let mut at = key.hash() & mask;
    while !lines[at].0[1].key.is(Key::default()) {
        at = (at + 1) & mask;
    }
    let slots = &mut lines[at].0;
    let second = usize::from(!slots[0].key.is(Key::default()));
    &mut slots[second]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many ids as the piece has bytes, up to twenty, all told by the piece.
    fn ids_of(piece: &[u8]) -> Vec<u32> {
        (0..piece.len().min(20) as u32).map(|n| n * 7 + u32::from(piece[0])).collect()
    }

    #[test]
    fn remembers_pieces_of_all_lengths() {
        let mut cache = Cache::default();
        let text: String = (0..3000u32).map(|n| format!("{n:x}")).collect();
        let mut misses = 0;
        for round in 0..2 {
            for start in 0..2000 {
                let end = start + 1 + start % 40;
                let mut out = vec![9];
                let piece = &text.as_bytes()[start..end];
                cache.encode_piece(piece, &mut out, |range, ids, _| {
                    misses += 1;
                    ids.extend(ids_of(&piece[range]));
                });
                assert_eq!(out[0], 9);
                assert_eq!(out[1..], ids_of(piece), "round {round}, {start}..{end}");
            }
            assert!(misses <= 2000);
        }
    }

    #[test]
    fn memory_stays_bounded() {
        let mut cache = Cache::default();
        for n in 0..6 * MAX_LINES as u32 {
            cache.encode_piece(format!("{n:x}").as_bytes(), &mut Vec::new(), |_, ids, _| ids.push(n & 0xFFFF));
        }
        assert_eq!(cache.lines.len(), MAX_LINES);
        assert!(cache.used * 3 <= MAX_LINES * 4 + 3);
    }
}
