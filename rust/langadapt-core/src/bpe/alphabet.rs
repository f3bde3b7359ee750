//! Bytes as the printable characters that stand for them in byte-level vocabularies (`Ġ` is a space).

use std::sync::LazyLock;

/// The printable characters that stand for the bytes: printable Latin-1 for itself, the rest from U+0100 on.
pub(super) static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
});

static BYTES: LazyLock<[Option<u8>; 0x180]> = LazyLock::new(|| {
    let mut bytes = [None; 0x180];
    for (byte, character) in CHARACTERS.iter().enumerate() {
        bytes[*character as usize] = Some(byte as u8);
    }
    bytes
});

/// The byte that `character` stands for.
pub fn byte_of(character: char) -> Option<u8> {
    BYTES.get(character as usize).copied().flatten()
}

/// The bytes that a piece of the vocabulary stands for, where all its characters do.
pub fn bytes_of(piece: &str) -> Option<Vec<u8>> {
    piece.chars().map(byte_of).collect()
}

/// `bytes` as their stand-ins.
pub fn characters_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| CHARACTERS[usize::from(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_characters() {
        assert_eq!(characters_of("ü a\n".as_bytes()), "Ã¼ĠaĊ");
        assert_eq!(bytes_of("Ã¼ĠaĊ").as_deref(), Some("ü a\n".as_bytes()));
        assert_eq!(bytes_of("▁"), None);
        for byte in 0..=255u8 {
            assert_eq!(bytes_of(&characters_of(&[byte])), Some(vec![byte]));
        }
    }
}
