//! Word counting: a map from short byte strings to 64-bit counts, private to a thread, merged at the end.
//!
//! Words of up to 15 bytes, nearly all of them, are their own key: a `u128` with the length on top. They are loaded
//! with one unaligned read, compared with one comparison, and need no memory beyond their entry. Longer words lie in an
//! arena. Memory: about 24 bytes a slot at a load of at most 5/8 for short words; counts are `u64` and cannot overflow.

use super::fetch::fetch;
use crate::hash::hash_bytes;

/// Longest word that is its own key.
pub(super) const INLINE: usize = 15;

/// How often each word was seen.
#[derive(Debug, Default)]
pub struct WordCounts {
    short: ShortWords,
    long: LongWords,
}

impl WordCounts {
    /// Adds `count` to the word `text[start..end]`. Bytes after `end` are read but do not matter.
    #[inline]
    pub fn add(&mut self, text: &[u8], start: usize, end: usize, count: u64) {
        if end - start <= INLINE {
            let key = key_at(text, start, end - start);
            self.short.add(key, hash_key(key), count);
        } else {
            self.long.add(&text[start..end], count);
        }
    }

    /// Something to add many words with.
    pub(super) fn feed(&mut self) -> Feeder<'_> {
        Feeder { words: self, waiting: [(0, 0); DEPTH], next: 0 }
    }

    /// Adds the counts of `other`.
    pub fn absorb(&mut self, other: Self) {
        let Self { short, long } = other;
        if short.used > self.short.used {
            let smaller = std::mem::replace(&mut self.short, short);
            self.short.absorb(&smaller);
        } else {
            self.short.absorb(&short);
        }
        for entry in long.entries.iter().filter(|entry| entry.count > 0) {
            self.long.add_hashed(long.word(entry), entry.hash, entry.count);
        }
    }

    /// Number of different words.
    pub fn len(&self) -> usize {
        self.short.used + self.long.used
    }

    /// Whether no word was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all different words.
    pub(super) fn total_bytes(&self) -> usize {
        let short = self.short.entries.iter().map(|entry| (entry.key[1] >> 56) as usize).sum::<usize>();
        short + self.long.arena.len()
    }

    /// Calls `visit` with every word and its count, in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for entry in self.short.entries.iter().filter(|entry| entry.count > 0) {
            let bytes = entry.key().to_le_bytes();
            visit(&bytes[..bytes[INLINE] as usize], entry.count);
        }
        for entry in self.long.entries.iter().filter(|entry| entry.count > 0) {
            visit(self.long.word(entry), entry.count);
        }
    }

    /// Multiplies all counts.
    pub fn scale(&mut self, factor: u64) {
        self.short.entries.iter_mut().for_each(|entry| entry.count = entry.count.saturating_mul(factor));
        self.long.entries.iter_mut().for_each(|entry| entry.count = entry.count.saturating_mul(factor));
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
            self.words.long.add(&text[start..end], 1);
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
            self.words.long.add(&word, 1);
        }
    }

    #[inline(always)]
    fn wait(&mut self, key: u128) {
        let short = &mut self.words.short;
        let hash = hash_key(key);
        fetch(&short.entries, hash as usize & short.entries.len().wrapping_sub(1));
        let (ready, ready_hash) = std::mem::replace(&mut self.waiting[self.next % DEPTH], (key, hash));
        self.next += 1;
        if ready != 0 {
            short.add(ready, ready_hash, 1);
        }
    }
}

impl Drop for Feeder<'_> {
    fn drop(&mut self) {
        for (key, hash) in self.waiting.into_iter().filter(|&(key, _)| key != 0) {
            self.words.short.add(key, hash, 1);
        }
    }
}

/// `MASKS[n]` keeps the first `n` bytes.
const MASKS: [u128; INLINE + 1] = {
    let mut masks = [0; INLINE + 1];
    let mut len = 0;
    while len <= INLINE {
        masks[len] = (1 << (8 * len)) - 1;
        len += 1;
    }
    masks
};

/// The word of at most 15 bytes as a key; never zero for a word that is not empty.
#[inline(always)]
fn key_at(text: &[u8], start: usize, len: usize) -> u128 {
    let raw = match text.get(start..start + 16) {
        Some(chunk) => u128::from_le_bytes(chunk.try_into().unwrap_or_default()),
        None => {
            let mut chunk = [0; 16];
            chunk[..len].copy_from_slice(&text[start..start + len]);
            u128::from_le_bytes(chunk)
        }
    };
    raw & MASKS[len] | (len as u128) << 120
}

/// Folded multiplication: both halves of the product depend on all bits of the key.
#[inline(always)]
fn hash_key(key: u128) -> u64 {
    let (low, high) = (key as u64 ^ 0x9E37_79B9_7F4A_7C15, (key >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
    let product = u128::from(low) * u128::from(high);
    (product >> 64) as u64 ^ product as u64
}

/// A `u128` would be aligned to 16 and leave 8 bytes of each entry unused.
#[derive(Debug, Clone, Copy, Default)]
struct ShortEntry {
    key: [u64; 2],
    /// Zero marks a free slot.
    count: u64,
}

impl ShortEntry {
    fn key(&self) -> u128 {
        u128::from(self.key[0]) | u128::from(self.key[1]) << 64
    }
}

/// Open addressing with linear probing; the length is a power of two.
#[derive(Debug, Default)]
struct ShortWords {
    entries: Vec<ShortEntry>,
    used: usize,
}

impl ShortWords {
    #[inline(always)]
    fn add(&mut self, key: u128, hash: u64, count: u64) {
        if self.used * 8 >= self.entries.len() * 5 {
            self.grow();
        }
        let key = [key as u64, (key >> 64) as u64];
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize;
        loop {
            let entry = &mut self.entries[slot & mask];
            if entry.key == key {
                entry.count += count;
                return;
            }
            if entry.count == 0 {
                *entry = ShortEntry { key, count };
                self.used += 1;
                return;
            }
            slot += 1;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.entries.len() * 2).max(1 << 12);
        let old = std::mem::replace(&mut self.entries, vec![ShortEntry::default(); len]);
        self.used = 0;
        for entry in old.iter().filter(|entry| entry.count > 0) {
            self.add(entry.key(), hash_key(entry.key()), entry.count);
        }
    }

    fn absorb(&mut self, other: &Self) {
        for entry in other.entries.iter().filter(|entry| entry.count > 0) {
            self.add(entry.key(), hash_key(entry.key()), entry.count);
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct LongEntry {
    hash: u64,
    start: usize,
    len: usize,
    /// Zero marks a free slot.
    count: u64,
}

#[derive(Debug, Default)]
struct LongWords {
    entries: Vec<LongEntry>,
    used: usize,
    arena: Vec<u8>,
}

impl LongWords {
    fn word(&self, entry: &LongEntry) -> &[u8] {
        &self.arena[entry.start..entry.start + entry.len]
    }

    fn add(&mut self, word: &[u8], count: u64) {
        self.add_hashed(word, hash_bytes(word) as u64, count);
    }

    fn add_hashed(&mut self, word: &[u8], hash: u64, count: u64) {
        if self.used * 8 >= self.entries.len() * 5 {
            self.grow();
        }
        let mask = self.entries.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let entry = self.entries[slot];
            if entry.count == 0 {
                break;
            }
            if entry.hash == hash && self.word(&entry) == word {
                self.entries[slot].count += count;
                return;
            }
            slot = (slot + 1) & mask;
        }
        self.entries[slot] = LongEntry { hash, start: self.arena.len(), len: word.len(), count };
        self.arena.extend_from_slice(word);
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.entries.len() * 2).max(1 << 8);
        let old = std::mem::replace(&mut self.entries, vec![LongEntry::default(); len]);
        for entry in old.into_iter().filter(|entry| entry.count > 0) {
            let mut slot = entry.hash as usize & (len - 1);
            while self.entries[slot].count > 0 {
                slot = (slot + 1) & (len - 1);
            }
            self.entries[slot] = entry;
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
