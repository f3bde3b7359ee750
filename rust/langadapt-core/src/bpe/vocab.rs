//! Pieces and ids, both ways, in two flat arrays and one hash table.
//!
//! Looking up a piece costs one hash and about one comparison; nothing is allocated per piece, so that a vocabulary of
//! 150,000 entries loads in milliseconds.

use xxhash_rust::xxh3::xxh3_64;

const EMPTY: u32 = u32::MAX;

/// A map between byte strings and ids below `2^32 - 1`.
#[derive(Debug, Clone)]
pub struct Vocab {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Index into `entries` by hash of the piece; open addressing, a power of two in size.
    slots: Vec<u32>,
    /// Index into `entries` by id.
    by_id: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    id: u32,
}

impl Vocab {
    /// A vocabulary of these pieces; of a piece that comes twice the last id counts, as in a JSON object.
    pub fn new<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = (P, u32)>) -> Self {
        let mut vocab = Self { bytes: Vec::new(), entries: Vec::new(), slots: vec![EMPTY; 1024], by_id: Vec::new() };
        for (piece, id) in pieces {
            vocab.insert(piece.as_ref(), id);
        }
        vocab.index_ids();
        vocab
    }

    fn insert(&mut self, piece: &[u8], id: u32) {
        let slot = self.slot(piece);
        if self.slots[slot] != EMPTY {
            self.entries[self.slots[slot] as usize].id = id;
            return;
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(piece);
        self.slots[slot] = self.entries.len() as u32;
        self.entries.push(Entry { start, end: self.bytes.len() as u32, id });
        if self.entries.len() * 2 > self.slots.len() {
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.slots = vec![EMPTY; self.slots.len() * 2];
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            let slot = self.slot(&self.bytes[entry.start as usize..entry.end as usize]);
            self.slots[slot] = index as u32;
        }
    }

    fn index_ids(&mut self) {
        let size = self.entries.iter().map(|entry| entry.id as usize + 1).max().unwrap_or(0);
        self.by_id = vec![EMPTY; size];
        for (index, entry) in self.entries.iter().enumerate() {
            self.by_id[entry.id as usize] = index as u32;
        }
    }

    /// The slot that holds `piece`, or the empty one where it belongs.
    fn slot(&self, piece: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = xxh3_64(piece) as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return slot,
                index if self.piece_at(index) == piece => return slot,
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn piece_at(&self, index: u32) -> &[u8] {
        let entry = self.entries[index as usize];
        &self.bytes[entry.start as usize..entry.end as usize]
    }

    /// Number of distinct pieces.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no piece at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One more than the largest id.
    pub fn id_limit(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no two pieces share an id.
    pub fn is_one_to_one(&self) -> bool {
        self.by_id.iter().filter(|&&index| index != EMPTY).count() == self.entries.len()
    }

    /// The id of `piece`.
    pub fn id(&self, piece: &[u8]) -> Option<u32> {
        match self.slots[self.slot(piece)] {
            EMPTY => None,
            index => Some(self.entries[index as usize].id),
        }
    }

    /// The piece with this id.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        match self.by_id.get(id as usize) {
            None | Some(&EMPTY) => None,
            Some(&index) => Some(self.piece_at(index)),
        }
    }

    /// All pieces in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.entries.iter().map(|entry| (&self.bytes[entry.start as usize..entry.end as usize], entry.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_pieces_and_ids() {
        let pieces: Vec<(String, u32)> = (0..5000).map(|n| (format!("piece {n}"), n * 2)).collect();
        let vocab = Vocab::new(pieces.iter().map(|(piece, id)| (piece, *id)));
        assert_eq!(vocab.len(), 5000);
        assert_eq!(vocab.id_limit(), 9999);
        assert!(vocab.is_one_to_one());
        for (piece, id) in &pieces {
            assert_eq!(vocab.id(piece.as_bytes()), Some(*id));
            assert_eq!(vocab.piece(*id), Some(piece.as_bytes()));
        }
        assert_eq!(vocab.id(b"absent"), None);
        assert_eq!(vocab.piece(1), None);
        assert_eq!(vocab.piece(1_000_000), None);
    }

    #[test]
    fn the_last_id_of_a_repeated_piece_counts() {
        let vocab = Vocab::new([("a", 0), ("b", 1), ("a", 2)]);
        assert_eq!(vocab.id(b"a"), Some(2));
        assert_eq!(vocab.piece(0), None);
    }
}
