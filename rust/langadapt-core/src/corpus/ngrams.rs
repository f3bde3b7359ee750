//! Repeated n-grams of words.
//!
//! Of the n-grams of a text only those can occur twice whose first n - 1 words do. So n grows step by step, and each
//! step looks only at the places that the step before left over: a third of all for three words of prose, one in a
//! hundred for five. Each place carries its hash from step to step.

use crate::words::Word;
use crate::{Monitor, Result};

/// Places between two looks at the monitor: a millisecond or two.
const CHECK_EVERY: usize = 1 << 16;

/// Places where an n-gram begins that occurs more than once, for rising n.
pub(super) struct Grams<'a> {
    words: &'a [Word],
    /// Characters before each word, and in all.
    before: Vec<u64>,
    /// Words of the n-grams at the places.
    n: usize,
    /// In the order of the text.
    places: Vec<Place>,
    table: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// Number of its first word.
    at: u32,
    /// Where in the table its n-gram stands.
    entry: u32,
    hash: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    hash: u64,
    /// 0: free.
    count: u32,
    is_seen: bool,
}

impl<'a> Grams<'a> {
    pub fn new(words: &'a [Word]) -> Self {
        let mut sum = 0;
        let lengths = words.iter().map(|&(_, length)| {
            sum += u64::from(length);
            sum
        });
        let before = std::iter::once(0).chain(lengths).collect();
        let places = (0..words.len() as u32).map(|at| Place { at, entry: 0, hash: words[at as usize].0 }).collect();
        Self { words, before, n: 1, places, table: Vec::new() }
    }

    /// Characters in all occurrences of the n-gram with the most of them, among those that occur more than once.
    pub fn top(&mut self, n: usize, monitor: &Monitor) -> Result<u64> {
        self.grow_to(n, monitor)?;
        let characters = |place: &Place| u64::from(self.table[place.entry as usize].count) * self.length_at(place);
        Ok(self.places.iter().map(characters).max().unwrap_or(0))
    }

    /// Characters in n-grams that occurred before; after a repeat the next n-gram starts behind it.
    pub fn repeated(&mut self, n: usize, monitor: &Monitor) -> Result<u64> {
        self.grow_to(n, monitor)?;
        let (mut next, mut repeated) = (0, 0);
        for place in &self.places {
            let at = place.at as usize;
            if at < next {
                continue;
            }
            let entry = &mut self.table[place.entry as usize];
            if entry.is_seen {
                repeated += self.before[at + n] - self.before[at];
                next = at + n;
            }
            entry.is_seen = true;
        }
        Ok(repeated)
    }

    fn length_at(&self, place: &Place) -> u64 {
        self.before[place.at as usize + self.n] - self.before[place.at as usize]
    }

    /// Goes on to n-grams of `n` words, which must not be fewer than before.
    fn grow_to(&mut self, n: usize, monitor: &Monitor) -> Result<()> {
        while self.n < n {
            self.n += 1;
            let (n, words) = (self.n, self.words);
            self.places.retain_mut(|place| {
                let Some(&(word, _)) = words.get(place.at as usize + n - 1) else { return false };
                // Odd factor of the golden ratio; the order of the words counts.
                place.hash = place.hash.rotate_left(5).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word;
                true
            });
            self.count(monitor)?;
        }
        Ok(())
    }

    /// Enters all places into the table and drops those whose n-gram occurs once.
    fn count(&mut self, monitor: &Monitor) -> Result<()> {
        let size = (self.places.len() * 2).next_power_of_two().max(16);
        self.table.clear();
        self.table.resize(size, Entry::default());
        for (number, place) in self.places.iter_mut().enumerate() {
            if number.is_multiple_of(CHECK_EVERY) {
                monitor.check()?;
            }
            // The upper half of the product depends on all bits.
            let mut at = (place.hash.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32) as usize & (size - 1);
            while self.table[at].count > 0 && self.table[at].hash != place.hash {
                at = (at + 1) & (size - 1);
            }
            self.table[at] = Entry { hash: place.hash, count: self.table[at].count + 1, is_seen: false };
            place.entry = at as u32;
        }
        self.places.retain(|place| self.table[place.entry as usize].count > 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::words::hashes;

    fn length_of(gram: &[Word]) -> u64 {
        gram.iter().map(|&(_, length)| u64::from(length)).sum()
    }

    /// The definition of [`Grams::top`].
    fn naive_top(words: &[Word], n: usize) -> u64 {
        let mut counts: HashMap<&[Word], u64> = HashMap::new();
        words.windows(n).for_each(|gram| *counts.entry(gram).or_default() += 1);
        counts.iter().filter(|(_, count)| **count > 1).map(|(gram, count)| count * length_of(gram)).max().unwrap_or(0)
    }

    /// The definition of [`Grams::repeated`].
    fn naive_repeated(words: &[Word], n: usize) -> u64 {
        let mut seen = HashSet::new();
        let (mut at, mut repeated) = (0, 0);
        while let Some(gram) = words.get(at..at + n) {
            if seen.insert(gram) {
                at += 1;
            } else {
                repeated += length_of(gram);
                at += n;
            }
        }
        repeated
    }

    fn of(text: &str) -> Vec<Word> {
        hashes(text, false, &Monitor::default()).unwrap()
    }

    fn top(words: &[Word], n: usize) -> u64 {
        Grams::new(words).top(n, &Monitor::default()).unwrap()
    }

    #[test]
    fn shares_are_those_of_the_definition() {
        let found = of("aa b aa b aa b c");
        assert_eq!(top(&found, 2), 9);
        // aa b | b aa | (aa b: repeat, skip two) (aa b: repeat, skip two) c
        assert_eq!(Grams::new(&found).repeated(2, &Monitor::default()).unwrap(), 6);
        assert_eq!(top(&of("a b c"), 2), 0);
        assert_eq!(top(&[], 2), 0);
    }

    proptest! {
        #[test]
        fn as_the_definition_says(text in prop::collection::vec("a|bb|ccc|dddd", 0..200), repeat in 1usize..4) {
            let text = vec![text.join(" "); repeat].join(" end ");
            let found = of(&text);
            let monitor = Monitor::default();
            let mut grams = Grams::new(&found);
            for n in 2..=4 {
                prop_assert_eq!(grams.top(n, &monitor).unwrap(), naive_top(&found, n), "top {}", n);
            }
            for n in 5..=10 {
                prop_assert_eq!(grams.repeated(n, &monitor).unwrap(), naive_repeated(&found, n), "repeated {}", n);
            }
        }
    }
}
