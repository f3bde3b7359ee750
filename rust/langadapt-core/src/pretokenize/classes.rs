//! One byte of class bits per code point, as Oniguruma 6.9 (Unicode 16) sees them, laid out at compile time.
//!
//! Read off the regex engine itself, not off a Unicode table: equality with the engine is the promise.

use crate::code_points::unpack;

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 2;
/// `\s`
pub(super) const SPACE: u8 = 4;
/// `[^\s\p{L}\p{N}]`
pub(super) const OTHER: u8 = 8;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
pub(super) const UPPER: u8 = 16;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
pub(super) const LOWER: u8 = 32;
/// `[\r\n]`
pub(super) const NEWLINE: u8 = 64;

/// Every letter, number and space is below this code point; above it only variation selectors are not plain `OTHER`.
const TABLE: usize = 0x3_2400;

/// 205 KB, of which a text touches a few pages. A two-step table is smaller, but its second load is on the critical
/// path of every character that is not ASCII.
#[allow(long_running_const_eval, reason = "a quarter of a million steps, a tenth of a second")]
static CLASS: [u8; TABLE] = unpack(PACKED, OTHER);

const PACKED: &[u8] = include_bytes!("classes.bin");

/// Class bits of a code point.
#[inline(always)]
pub(super) fn class(code: u32) -> u8 {
    match CLASS.get(code as usize) {
        Some(&bits) => bits,
        None if (0xE_0100..=0xE_01EF).contains(&code) => OTHER | UPPER | LOWER,
        None => OTHER,
    }
}

/// Class bits of an ASCII byte.
#[inline(always)]
pub(super) fn ascii(byte: u8) -> u8 {
    CLASS[byte as usize]
}

/// Class bits and width in bytes of the character that starts at `at`, which must be a boundary inside `text`.
#[inline(always)]
pub(super) fn at(text: &[u8], at: usize) -> (u8, usize) {
    let byte = text[at];
    if byte < 0x80 { (ascii(byte), 1) } else { wide(text, at) }
}

/// [`at`] for a character of two to four bytes.
#[inline]
pub(super) fn wide(text: &[u8], at: usize) -> (u8, usize) {
    let (code, width) = decode(text, at);
    (class(code), width)
}

/// The character of two to four bytes that starts at `at`; the text is valid UTF-8.
#[inline(always)]
pub(crate) fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let tail = |k: usize| u32::from(text[at + k] & 0x3F);
    let lead = u32::from(text[at]);
    if lead < 0xE0 {
        ((lead & 0x1F) << 6 | tail(1), 2)
    } else if lead < 0xF0 {
        ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3)
    } else {
        ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code_points::tests::{by_code, check};

    /// The engine that `tokenizers` uses, asked for each class in one text of all characters.
    fn read_off() -> Vec<u8> {
        let classes = [
            (LETTER, r"\p{L}+"),
            (NUMBER, r"\p{N}+"),
            (SPACE, r"\s+"),
            (OTHER, r"[^\s\p{L}\p{N}]+"),
            (UPPER, r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"),
            (LOWER, r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"),
            (NEWLINE, r"[\r\n]+"),
        ];
        let all: String = ('\0'..=char::MAX).collect();
        let mut bits = by_code(OTHER, |_| 0);
        for (bit, regex) in classes {
            for (start, end) in onig::Regex::new(regex).unwrap().find_iter(&all) {
                all[start..end].chars().for_each(|character| bits[character as usize] |= bit);
            }
        }
        bits
    }

    #[test]
    fn the_table_is_what_the_engine_says() {
        let bits = read_off();
        check("pretokenize/classes.bin", PACKED, &bits, OTHER);
        for (code, bits) in bits.into_iter().enumerate() {
            assert_eq!(class(code as u32), bits, "U+{code:04X}");
        }
    }

    #[test]
    fn decoding_agrees_with_char() {
        for c in '\u{80}'..=char::MAX {
            let mut buffer = [0; 4];
            let text = c.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(decode(text, 0), (c as u32, c.len_utf8()));
        }
    }
}
