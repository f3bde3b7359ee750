//! Word counting: a map from short byte strings to 64-bit counts, private to a thread, merged at the end.
//!
//! Words of up to 15 bytes, nearly all of them, are their own key: a `u128` with the length on top. They are loaded
//! with one unaligned read, compared with one comparison, and need no memory beyond their entry. Longer words lie in an
//! arena. The map is in parts that grow one after the other, so that old and new slots stand side by side for one of
//! them alone. Memory: 24 bytes a slot, filled to 5/16 at least; counts are `u64` and cannot overflow.

use super::fetch::fetch;
use super::word_maps::{INLINE, LongWords, ShortEntry, ShortWords, hash_key, hash_long, key_at};
use crate::{Monitor, Result};

/// Of the map, by the upper bits of a word's hash.
const PARTS: usize = 64;
/// Words taken out between two looks at the monitor.
const CHECK_EVERY: usize = 1 << 14;

/// How often each word was seen.
#[derive(Debug)]
pub struct WordCounts {
    short: [ShortWords; PARTS],
    long: [LongWords; PARTS],
}

impl Default for WordCounts {
    fn default() -> Self {
        Self {
            short: std::array::from_fn(|_| ShortWords::default()),
            long: std::array::from_fn(|_| LongWords::default()),
        }
    }
}

/// The part of a short word.
#[inline(always)]
fn short_part(hash: u64) -> usize {
    (hash >> 58) as usize
}

/// The part of a longer one.
#[inline(always)]
fn long_part(hash: u32) -> usize {
    (hash >> 26) as usize
}

impl WordCounts {
    /// Adds `count` to the word `text[start..end]`. Bytes after `end` are read but do not matter.
    #[inline]
    pub fn add(&mut self, text: &[u8], start: usize, end: usize, count: u64) {
        if end - start <= INLINE {
            let key = key_at(text, start, end - start);
            self.add_short(key, hash_key(key), count);
        } else {
            self.add_long(&text[start..end], count);
        }
    }

    #[inline(always)]
    fn add_short(&mut self, key: u128, hash: u64, count: u64) {
        self.short[short_part(hash)].add(key, hash, count);
    }

    fn add_long(&mut self, word: &[u8], count: u64) {
        let hash = hash_long(word);
        self.long[long_part(hash)].add(word, hash, count);
    }

    /// Something to add many words with.
    pub(super) fn feed(&mut self) -> Feeder<'_> {
        Feeder { words: self, waiting: [(0, 0); DEPTH], next: 0 }
    }

    /// Adds the counts of `other`.
    pub fn absorb(&mut self, other: Self) {
        for (mine, mut short) in self.short.iter_mut().zip(other.short) {
            if short.used > mine.used {
                std::mem::swap(mine, &mut short);
            }
            mine.absorb(&short.entries);
        }
        for (mine, long) in self.long.iter_mut().zip(other.long) {
            for entry in long.entries.iter().filter(|entry| entry.count > 0) {
                mine.add(long.word(entry), entry.hash, entry.count);
            }
        }
    }

    /// Number of different words.
    pub fn len(&self) -> usize {
        let short: usize = self.short.iter().map(|part| part.used).sum();
        short + self.long.iter().map(|part| part.used).sum::<usize>()
    }

    /// Whether no word was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all different words.
    pub(super) fn total_bytes(&self) -> usize {
        let length = |entry: &ShortEntry| entry.give(|word, _| word.len());
        let short = self.short.iter().flat_map(|part| &part.entries).map(length).sum::<usize>();
        short + self.long.iter().map(|part| part.arena.len()).sum::<usize>()
    }

    /// Calls `visit` with every word and its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for entry in self.short.iter().flat_map(|part| &part.entries).filter(|entry| entry.count > 0) {
            entry.give(&mut visit);
        }
        for part in &self.long {
            part.entries.iter().filter(|entry| entry.count > 0).for_each(|entry| visit(part.word(entry), entry.count));
        }
    }

    /// Calls `visit` with every word and its count, most frequent first, and frees memory on the way.
    ///
    /// # Errors
    /// Those of `visit`; [`crate::Error::Interrupted`].
    pub(super) fn drain(self, monitor: &Monitor, mut visit: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
        let Self { mut short, mut long } = self;
        for part in &mut short {
            sort(&mut part.entries, |entry| entry.count);
            monitor.check()?;
        }
        for part in &mut long {
            sort(&mut part.entries, |entry| entry.count);
            monitor.check()?;
        }
        loop {
            let of_short = short.iter().filter_map(|part| part.entries.last()).map(|entry| entry.count);
            let of_long = long.iter().filter_map(|part| part.entries.last()).map(|entry| entry.count);
            let Some(count) = of_short.chain(of_long).max() else { return Ok(()) };
            for part in &mut short {
                each_last(&mut part.entries, monitor, |entry| entry.count == count, |entry| entry.give(&mut visit))?;
            }
            for LongWords { entries, arena, .. } in &mut long {
                each_last(entries, monitor, |entry| entry.count == count, |entry| visit(entry.word(arena), count))?;
            }
        }
    }

    /// Multiplies all counts.
    pub fn scale(&mut self, factor: u64) {
        let short = self.short.iter_mut().flat_map(|part| &mut part.entries).map(|entry| &mut entry.count);
        let long = self.long.iter_mut().flat_map(|part| &mut part.entries).map(|entry| &mut entry.count);
        short.chain(long).for_each(|count| *count = count.saturating_mul(factor));
    }

    /// Forgets words that were seen fewer than `least` times.
    pub(super) fn prune(&mut self, least: u64) {
        let mut kept = Self::default();
        self.for_each(|word, count| {
            if count >= least {
                kept.add(word, 0, word.len(), count);
            }
        });
        *self = kept;
    }
}

/// Leaves out free slots and puts the highest counts last.
fn sort<T>(entries: &mut Vec<T>, count: impl Fn(&T) -> u64) {
    entries.retain(|entry| count(entry) > 0);
    entries.shrink_to_fit();
    entries.sort_unstable_by_key(count);
}

/// Takes the last entries off, as long as they are `wanted`; memory is given back with the last of all.
fn each_last<T>(
    entries: &mut Vec<T>,
    monitor: &Monitor,
    wanted: impl Fn(&T) -> bool,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    while let Some(entry) = entries.pop_if(|entry| wanted(entry)) {
        if entries.len().is_multiple_of(CHECK_EVERY) {
            monitor.check()?;
        }
        take(entry)?;
    }
    if entries.is_empty() {
        *entries = Vec::new();
    }
    Ok(())
}

/// Words that wait for their entry to arrive from memory.
const DEPTH: usize = 16;

/// Adds words, each once. A word waits while the memory fetches its entry; dropping the feeder adds those that wait.
/// This takes a third off counting as soon as the map is larger than the second-level cache.
pub(super) struct Feeder<'w> {
    words: &'w mut WordCounts,
    /// Keys and hashes; key 0 is none.
    waiting: [(u128, u64); DEPTH],
    next: usize,
}

impl Feeder<'_> {
    /// Adds the word `text[start..end]`. Bytes after `end` are read but do not matter.
    #[inline(always)]
    pub fn add(&mut self, text: &[u8], start: usize, end: usize) {
        if end - start <= INLINE {
            self.wait(key_at(text, start, end - start));
        } else {
            self.words.add_long(&text[start..end], 1);
        }
    }

    /// Adds a space followed by `text[start..end]`.
    #[inline]
    pub fn add_after_space(&mut self, text: &[u8], start: usize, end: usize) {
        let len = end - start;
        if len < INLINE {
            let bytes = key_at(text, start, len) & (u128::MAX >> 8);
            self.wait(bytes << 8 | u128::from(b' ') | ((len as u128 + 1) << 120));
        } else {
            let mut word = Vec::with_capacity(len + 1);
            word.push(b' ');
            word.extend_from_slice(&text[start..end]);
            self.words.add_long(&word, 1);
        }
    }

    #[inline(always)]
    fn wait(&mut self, key: u128) {
        let hash = hash_key(key);
        let entries = &self.words.short[short_part(hash)].entries;
        fetch(entries, hash as usize & entries.len().wrapping_sub(1));
        let (ready, ready_hash) = std::mem::replace(&mut self.waiting[self.next % DEPTH], (key, hash));
        self.next += 1;
        if ready != 0 {
            self.words.add_short(ready, ready_hash, 1);
        }
    }
}

impl Drop for Feeder<'_> {
    fn drop(&mut self) {
        for (key, hash) in self.waiting.into_iter().filter(|&(key, _)| key != 0) {
            self.words.add_short(key, hash, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn as_map(counts: &WordCounts) -> BTreeMap<Vec<u8>, u64> {
        let mut map = BTreeMap::new();
        counts.for_each(|word, count| assert!(map.insert(word.to_vec(), count).is_none()));
        map
    }

    proptest! {
        #[test]
        fn counts_like_a_map(words in prop::collection::vec(prop::collection::vec(0u8..4, 1..40), 0..300), cut in 0usize..300) {
            let mut expected = BTreeMap::new();
            let (mut left, mut right) = (WordCounts::default(), WordCounts::default());
            for (index, word) in words.iter().enumerate() {
                *expected.entry(word.clone()).or_insert(0u64) += 2;
                let part = if index < cut { &mut left } else { &mut right };
                part.add(word, 0, word.len(), 1);
            }
            for (words, part) in [(&words[..cut.min(words.len())], &mut left), (&words[cut.min(words.len())..], &mut right)] {
                let mut feeder = part.feed();
                for word in words {
                    let text = [b"xy".as_slice(), word, b"and what follows"].concat();
                    feeder.add(&text, 2, 2 + word.len());
                }
            }
            left.absorb(right);
            prop_assert_eq!(left.len(), expected.len());
            prop_assert_eq!(left.total_bytes(), expected.keys().map(Vec::len).sum::<usize>());
            prop_assert_eq!(as_map(&left), expected);
        }

        #[test]
        fn the_space_is_part_of_the_word(word in "[a-c]{0,30}") {
            let mut counts = WordCounts::default();
            for _ in 0..3 {
                counts.feed().add_after_space(word.as_bytes(), 0, word.len());
            }
            prop_assert_eq!(as_map(&counts), BTreeMap::from([(format!(" {word}").into_bytes(), 3)]));
        }
    }

    proptest! {
        #[test]
        fn the_most_frequent_words_come_out_first(words in prop::collection::vec(("[a-c]{1,20}", 1u64..9), 0..100)) {
            let mut counts = WordCounts::default();
            words.iter().for_each(|(word, count)| counts.add(word.as_bytes(), 0, word.len(), *count));
            let (expected, mut found, mut last) = (as_map(&counts), BTreeMap::new(), u64::MAX);
            counts.drain(&Monitor::default(), |word, count| {
                assert!(count <= std::mem::replace(&mut last, count));
                assert!(found.insert(word.to_vec(), count).is_none());
                Ok(())
            }).unwrap();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn pruning_keeps_what_is_frequent() {
        let mut counts = WordCounts::default();
        for (word, count) in [("a", 1), ("bb", 2), ("a word of more than fifteen bytes", 1)] {
            counts.add(word.as_bytes(), 0, word.len(), count);
        }
        counts.prune(2);
        assert_eq!(as_map(&counts), BTreeMap::from([(b"bb".to_vec(), 2)]));
    }
}
