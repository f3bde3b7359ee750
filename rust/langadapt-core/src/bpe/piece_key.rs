//! A piece as two words, so that pieces are compared and hashed without a loop.

use xxhash_rust::xxh3::xxh3_64;

/// Longest piece whose bytes are the key.
const INLINE: usize = 15;
/// In the top byte of the second word, instead of a length: the key is a hash, and the bytes are kept elsewhere.
const LONG: u64 = 0xFF << 56;

/// The bytes of a piece of so many bytes, in two words.
const MASKS: [(u64, u64); INLINE + 1] = {
    let mut masks = [(0, 0); INLINE + 1];
    let mut len = 1;
    while len <= INLINE {
        let mask = u128::MAX >> (128 - 8 * len);
        masks[len] = (mask as u64, (mask >> 64) as u64);
        len += 1;
    }
    masks
};

/// A piece as it is compared: its bytes and length, or a hash of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Key {
    low: u64,
    high: u64,
}

impl Key {
    /// The key of `text[start..end]`, which must not be empty.
    #[inline(always)]
    pub fn new(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        if len > INLINE {
            return Self::long(&text[start..end]);
        }
        let bytes = match text.get(start..start + 16) {
            Some(window) => <[u8; 16]>::try_from(window).unwrap_or_default(),
            None => {
                let mut bytes = [0; 16];
                bytes[..len].copy_from_slice(&text[start..end]);
                bytes
            }
        };
        let word = u128::from_le_bytes(bytes);
        // Reading on behind the piece and masking is far cheaper than copying `len` bytes.
        let (low, high) = MASKS[len];
        Self { low: word as u64 & low, high: (word >> 64) as u64 & high | (len as u64) << 56 }
    }

    #[inline(never)]
    fn long(piece: &[u8]) -> Self {
        Self { low: xxh3_64(piece), high: LONG | piece.len() as u64 }
    }

    /// Equality without a branch.
    #[inline(always)]
    pub fn is(self, other: Self) -> bool {
        (self.low ^ other.low) | (self.high ^ other.high) == 0
    }

    /// Whether it stands for bytes that are kept elsewhere.
    #[inline]
    pub fn is_long(self) -> bool {
        self.high >= LONG
    }

    /// Bytes of a long piece.
    #[inline]
    pub fn long_len(self) -> usize {
        (self.high & !LONG) as usize
    }

    /// Where in a table to look for it; all bits are good.
    #[inline]
    pub fn hash(self) -> usize {
        let product = u128::from(self.low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(self.high ^ 0xD6E8_FEB8_6659_FD93);
        (product as u64 ^ (product >> 64) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_at_the_end_of_the_text_is_the_same() {
        let text = b"some word in the middle, word";
        assert_eq!(Key::new(text, 5, 9), Key::new(text, text.len() - 4, text.len()));
        assert_ne!(Key::new(b"a\0", 0, 1), Key::new(b"a\0", 0, 2));
    }
}
