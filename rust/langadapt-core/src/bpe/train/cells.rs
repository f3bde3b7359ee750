//! Words as cells: one for each base symbol, and one around each word.
//!
//! A symbol of several cells is written in its first and in its last one, so that both neighbours of a place are found
//! in O(1) without links. Where the right one of two merged symbols began is marked as [`Cell::INSIDE`]: so a place of
//! a pair is still valid exactly if its first cell holds the left symbol, and the cell behind that the right one.
//!
//! How often a word was seen is not in its cells. Words that were seen equally often lie side by side, as
//! [`WordCounts::drain`](super::WordCounts::drain) gives them, and [`Weights`] knows where such a run begins: the rare
//! words, most of all, are one run. Cells have two bytes each as long as symbols fit.

use crate::{Error, Result};

/// What a word is written in.
pub(super) trait Cell: Copy + Eq {
    /// Between words.
    const BOUNDARY: Self;
    /// No symbol begins or ends here any more.
    const INSIDE: Self;

    fn of(symbol: u32) -> Self;
    fn symbol(self) -> u32;
}

impl Cell for u16 {
    const BOUNDARY: Self = u16::MAX;
    const INSIDE: Self = u16::MAX - 1;

    #[inline(always)]
    fn of(symbol: u32) -> Self {
        symbol as u16
    }

    #[inline(always)]
    fn symbol(self) -> u32 {
        u32::from(self)
    }
}

impl Cell for u32 {
    const BOUNDARY: Self = u32::MAX;
    const INSIDE: Self = u32::MAX - 1;

    #[inline(always)]
    fn of(symbol: u32) -> Self {
        symbol
    }

    #[inline(always)]
    fn symbol(self) -> u32 {
        self
    }
}

/// All words.
pub(super) enum Cells {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl Cells {
    /// For symbols below `symbols`.
    pub fn new(symbols: usize) -> Self {
        if fits(symbols) { Self::Narrow(vec![Cell::BOUNDARY]) } else { Self::Wide(vec![Cell::BOUNDARY]) }
    }

    /// Makes room for symbols below `symbols`.
    pub fn widen(&mut self, symbols: usize) {
        if let Self::Narrow(narrow) = self
            && !fits(symbols)
        {
            let wide = |&cell: &u16| match cell {
                u16::BOUNDARY => u32::BOUNDARY,
                u16::INSIDE => u32::INSIDE,
                symbol => u32::of(symbol.symbol()),
            };
            *self = Self::Wide(narrow.iter().map(wide).collect());
        }
    }

    /// Room for `cells` more.
    pub fn reserve(&mut self, cells: usize) {
        match self {
            Self::Narrow(all) => all.reserve(cells),
            Self::Wide(all) => all.reserve(cells),
        }
    }

    /// Adds a word, and tells where it begins. One of a single symbol has no pair and is left out.
    pub fn push(&mut self, symbols: impl Iterator<Item = u32>) -> Result<Option<u32>> {
        match self {
            Self::Narrow(all) => push(all, symbols),
            Self::Wide(all) => push(all, symbols),
        }
    }
}

fn fits(symbols: usize) -> bool {
    symbols <= usize::from(u16::INSIDE)
}

fn push<C: Cell>(cells: &mut Vec<C>, symbols: impl Iterator<Item = u32>) -> Result<Option<u32>> {
    let start = cells.len();
    cells.extend(symbols.map(C::of));
    if cells.len() < start + 2 {
        cells.truncate(start);
        return Ok(None);
    }
    cells.push(C::BOUNDARY);
    if cells.len() >= u32::MAX as usize {
        return Err(Error::argument(
            "the different words of the corpus have more than 4,294,967,294 symbols in all; \
             train on less text or drop rare words (`max_words`)",
        ));
    }
    Ok(Some(start as u32))
}

/// How often the words were seen, by the cell in which a run of words that were seen equally often begins.
#[derive(Default)]
pub(super) struct Weights {
    starts: Vec<u32>,
    weights: Vec<i64>,
}

impl Weights {
    /// The next word begins at `start`.
    pub fn push(&mut self, start: u32, weight: u64) {
        let weight = i64::try_from(weight).unwrap_or(i64::MAX);
        if self.weights.last() != Some(&weight) {
            self.starts.push(start);
            self.weights.push(weight);
        }
    }

    /// The weight of the word around `place`. `run` goes from one call to the next: 0 at first, and places ascend.
    #[inline(always)]
    pub fn at(&self, place: u32, run: &mut usize) -> i64 {
        if self.starts.get(*run + 1).is_some_and(|&next| next <= place) {
            *run += self.runs_until(place, *run + 1);
        }
        self.weights[*run]
    }

    /// How many runs from `from` on, at least one, begin until `place`: of twice as many each time, then in between.
    fn runs_until(&self, place: u32, from: usize) -> usize {
        let ahead = &self.starts[from..];
        let mut end = 1;
        while ahead.get(end).is_some_and(|&start| start <= place) {
            end *= 2;
        }
        let known = end / 2;
        known + ahead[known..end.min(ahead.len())].partition_point(|&start| start <= place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_place_has_the_weight_of_its_word(
            words in prop::collection::vec((1u32..5, 1u64..4), 1..200), step in 1usize..40) {
            let (mut weights, mut expected) = (Weights::default(), Vec::new());
            for (length, weight) in words {
                weights.push(expected.len() as u32, weight);
                expected.extend((0..length).map(|_| weight as i64));
            }
            let mut run = 0;
            for (place, &weight) in expected.iter().enumerate().step_by(step) {
                prop_assert_eq!(weights.at(place as u32, &mut run), weight);
            }
        }
    }

    #[test]
    fn cells_grow_wider_with_their_marks() {
        let mut cells = Cells::new(10);
        assert_eq!(cells.push([3].into_iter()).unwrap(), None);
        assert_eq!(cells.push([3, 4].into_iter()).unwrap(), Some(1));
        if let Cells::Narrow(narrow) = &mut cells {
            narrow[2] = u16::INSIDE;
        }
        cells.widen(usize::from(u16::INSIDE));
        assert!(matches!(cells, Cells::Narrow(_)));
        cells.widen(usize::from(u16::INSIDE) + 1);
        assert_eq!(cells.push([70_000, 1].into_iter()).unwrap(), Some(4));
        let Cells::Wide(wide) = cells else { panic!("still narrow") };
        assert_eq!(wide, [u32::BOUNDARY, 3, u32::INSIDE, u32::BOUNDARY, 70_000, 1, u32::BOUNDARY]);
    }
}
