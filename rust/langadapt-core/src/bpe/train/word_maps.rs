//! The two maps that words are counted in: those of up to 15 bytes, which are their own keys, and longer ones.

use crate::hash::hash_bytes;

/// Longest word that is its own key.
pub(super) const INLINE: usize = 15;
/// Slots of the smallest map.
const SMALLEST: usize = 1 << 6;

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
pub(super) fn key_at(text: &[u8], start: usize, len: usize) -> u128 {
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
pub(super) fn hash_key(key: u128) -> u64 {
    let (low, high) = (key as u64 ^ 0x9E37_79B9_7F4A_7C15, (key >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
    let product = u128::from(low) * u128::from(high);
    (product >> 64) as u64 ^ product as u64
}

/// The hash of a longer word.
pub(super) fn hash_long(word: &[u8]) -> u32 {
    hash_bytes(word) as u32
}

/// A `u128` would be aligned to 16 and leave 8 bytes of each entry unused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ShortEntry {
    key: [u64; 2],
    /// Zero marks a free slot.
    pub count: u64,
}

impl ShortEntry {
    pub fn key(&self) -> u128 {
        u128::from(self.key[0]) | u128::from(self.key[1]) << 64
    }

    /// Calls `visit` with the word and its count.
    #[inline]
    pub fn give<T>(&self, visit: impl FnOnce(&[u8], u64) -> T) -> T {
        let bytes = self.key().to_le_bytes();
        visit(&bytes[..bytes[INLINE] as usize], self.count)
    }
}

/// Open addressing with linear probing; the length is a power of two.
#[derive(Debug, Default)]
pub(super) struct ShortWords {
    pub entries: Vec<ShortEntry>,
    pub used: usize,
}

impl ShortWords {
    #[inline(always)]
    pub fn add(&mut self, key: u128, hash: u64, count: u64) {
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
        let len = (self.entries.len() * 2).max(SMALLEST);
        let old = std::mem::replace(&mut self.entries, vec![ShortEntry::default(); len]);
        self.used = 0;
        self.absorb(&old);
    }

    pub fn absorb(&mut self, entries: &[ShortEntry]) {
        for entry in entries.iter().filter(|entry| entry.count > 0) {
            self.add(entry.key(), hash_key(entry.key()), entry.count);
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LongEntry {
    start: usize,
    /// Zero marks a free slot.
    pub count: u64,
    pub hash: u32,
    /// No document has 4 GiB.
    len: u32,
}

impl LongEntry {
    pub fn word<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start..self.start + self.len as usize]
    }
}

#[derive(Debug, Default)]
pub(super) struct LongWords {
    pub entries: Vec<LongEntry>,
    pub used: usize,
    pub arena: Vec<u8>,
}

impl LongWords {
    pub fn word(&self, entry: &LongEntry) -> &[u8] {
        entry.word(&self.arena)
    }

    pub fn add(&mut self, word: &[u8], hash: u32, count: u64) {
        if self.used * 4 >= self.entries.len() * 3 {
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
        self.entries[slot] = LongEntry { hash, start: self.arena.len(), len: word.len() as u32, count };
        self.arena.extend_from_slice(word);
        self.used += 1;
    }

    #[cold]
    fn grow(&mut self) {
        let len = (self.entries.len() * 2).max(SMALLEST);
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
