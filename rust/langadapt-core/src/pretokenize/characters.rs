//! Characters out of UTF-8, and runs of letters, without a table.

/// Every byte's highest bit.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// End of the run of ASCII letters that starts at `from`.
///
/// Eight bytes are judged at once. Not so much for the work: most words end within the first eight, and then no branch
/// depends on where.
#[inline(always)]
pub(super) fn ascii_letters_end(text: &[u8], from: usize) -> usize {
    letters_end::<0x20>(text, from)
}

/// The same for lower-case letters.
#[inline(always)]
pub(super) fn ascii_lower_end(text: &[u8], from: usize) -> usize {
    letters_end::<0>(text, from)
}

/// The same for bytes that are lower-case letters once the bits of `SET` are set.
#[inline(always)]
fn letters_end<const SET: u8>(text: &[u8], from: usize) -> usize {
    let mut end = from;
    while let Some(chunk) = text.get(end..end + 8) {
        let others = !ascii_letters::<SET>(u64::from_le_bytes(chunk.try_into().unwrap_or_default())) & HIGH;
        if others != 0 {
            return end + others.trailing_zeros() as usize / 8;
        }
        end += 8;
    }
    while text.get(end).is_some_and(|byte| (byte | SET).is_ascii_lowercase()) {
        end += 1;
    }
    end
}

/// The highest bit of every byte of `word` that is a letter of [`letters_end`].
#[inline(always)]
fn ascii_letters<const SET: u8>(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let lower = (word | (ONES * SET as u64)) & !HIGH;
    let from_a = lower + ONES * (0x80 - b'a' as u64);
    let behind_z = lower + ONES * (0x80 - b'z' as u64 - 1);
    from_a & !behind_z & !word & HIGH
}

/// The character of two to four bytes that starts at `at`, and its width; the text is valid UTF-8.
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

    #[test]
    fn ascii_letters_as_one_by_one() {
        for byte in 0..=255u8 {
            for place in 0..20 {
                let mut text = *b"abcxyzABCXYZqrstQRST";
                text[place] = byte;
                let expected = text.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(text.len());
                assert_eq!(ascii_letters_end(&text, 0), expected, "{byte} at {place}");
                let expected = text.iter().position(|byte| !byte.is_ascii_lowercase()).unwrap_or(text.len());
                assert_eq!(ascii_lower_end(&text, 0), expected, "{byte} at {place}");
            }
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
