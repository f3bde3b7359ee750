//! Several steps, one within the pieces of another, in one pass over the text.

use super::fusing::fuse;
use super::split::{Pieces, Split};

/// Steps of cutting; each cuts the pieces of the one before. Without a step a text is one piece.
#[derive(Debug, Default)]
pub struct Steps(pub Vec<Split>);

impl Steps {
    /// The same with fewer steps, where several can be told by one regex.
    pub fn fused(self) -> Self {
        let mut fewer: Vec<Split> = Vec::new();
        for step in self.0.into_iter().rev() {
            let both = fewer.last().and_then(|inner| fuse(&step, inner));
            if both.is_some() {
                fewer.pop();
            }
            fewer.push(both.unwrap_or(step));
        }
        fewer.reverse();
        Self(fewer)
    }

    /// Calls `piece` with the bounds of every piece of `text`, in order.
    #[inline]
    pub fn for_each(&self, text: &[u8], mut piece: impl FnMut(usize, usize)) {
        let (mut cuts, mut start) = (Cuts::new(self, text), 0);
        while let Some((from, to)) = cuts.next(start) {
            piece(from, to);
            start = to;
        }
    }
}

/// The pieces of a text under several steps, one after the other.
#[derive(Debug)]
pub(crate) struct Cuts<'s, 't> {
    text: &'t [u8],
    /// The one step, where there is one: no need to keep count of levels.
    only: Option<Pieces<'s>>,
    steps: &'s [Split],
    levels: Vec<Level<'s>>,
}

/// What a step is at.
#[derive(Debug)]
struct Level<'s> {
    pieces: Pieces<'s>,
    /// The piece of the step before, in which it cuts.
    from: usize,
    to: usize,
}

impl<'s, 't> Cuts<'s, 't> {
    pub fn new(steps: &'s Steps, text: &'t [u8]) -> Self {
        let only = match steps.0.as_slice() {
            [one] => Some(Pieces::new(one)),
            _ => None,
        };
        let levels = steps
            .0
            .iter()
            .filter(|_| only.is_none())
            .map(|split| Level { pieces: Pieces::new(split), from: 0, to: 0 })
            .collect();
        Self { text, only, steps: &steps.0, levels }
    }

    /// The piece that begins at `start`, the end of the one before, or behind what is removed there.
    #[inline(always)]
    pub fn next(&mut self, start: usize) -> Option<(usize, usize)> {
        if let Some(pieces) = &mut self.only {
            return pieces.next(self.text, start);
        }
        self.nested(start)
    }

    #[inline]
    fn nested(&mut self, start: usize) -> Option<(usize, usize)> {
        match self.levels.len() {
            0 => (start < self.text.len()).then_some((start, self.text.len())),
            levels => self.level(levels - 1, start),
        }
    }

    /// The piece of a step that begins at `start` or behind what is removed there.
    fn level(&mut self, at: usize, mut start: usize) -> Option<(usize, usize)> {
        loop {
            let Level { pieces, from, to } = &mut self.levels[at];
            if start < *to
                && let Some((first, last)) = pieces.next(&self.text[*from..*to], start - *from)
            {
                return Some((*from + first, *from + last));
            }
            let behind = start.max(*to);
            let (from, to) = match at {
                0 => (behind < self.text.len()).then_some((0, self.text.len()))?,
                _ => self.level(at - 1, behind)?,
            };
            self.levels[at] = Level { pieces: Pieces::new(&self.steps[at]), from, to };
            start = from;
        }
    }
}
