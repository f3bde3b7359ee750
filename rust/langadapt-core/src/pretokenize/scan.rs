//! The scanners: each `*_end` function gives the end of the one match that starts at `start`.
//!
//! The regexes' alternatives are tried in order, but every choice is decided by the class of one or two characters, so
//! nothing is ever scanned twice and the cost is linear in the text. Only `\s+(?!\S)` looks back: it gives its last
//! character to the piece that follows.

use super::classes::{LETTER, LOWER, NEWLINE, NUMBER, OTHER, SPACE, UPPER, ascii, at, decode, wide};

/// Every byte's highest bit.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// End of the run of ASCII letters that starts at `from`.
///
/// Eight bytes are judged at once. Not so much for the work: most words end within the first eight, and then no branch
/// depends on where.
#[inline(always)]
fn ascii_letters_end(text: &[u8], from: usize) -> usize {
    let mut end = from;
    while let Some(chunk) = text.get(end..end + 8) {
        let others = !ascii_letters(u64::from_le_bytes(chunk.try_into().unwrap_or_default())) & HIGH;
        if others != 0 {
            return end + others.trailing_zeros() as usize / 8;
        }
        end += 8;
    }
    while text.get(end).is_some_and(u8::is_ascii_alphabetic) {
        end += 1;
    }
    end
}

/// The highest bit of every byte of `word` that is an ASCII letter.
#[inline(always)]
fn ascii_letters(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let lower = (word | (ONES * 0x20)) & !HIGH;
    let from_a = lower + ONES * (0x80 - b'a' as u64);
    let behind_z = lower + ONES * (0x80 - b'z' as u64 - 1);
    from_a & !behind_z & !word & HIGH
}

/// End of the longest run of characters with any bit of `mask` that starts at `from`.
#[inline(always)]
fn run(text: &[u8], from: usize, mask: u8) -> usize {
    let mut end = from;
    loop {
        if mask == LETTER {
            end = ascii_letters_end(text, end);
        }
        let Some(&byte) = text.get(end) else { return end };
        if byte < 0x80 {
            if ascii(byte) & mask == 0 {
                return end;
            }
            end += 1;
        } else {
            let (class, width) = wide(text, end);
            if class & mask == 0 {
                return end;
            }
            end += width;
        }
    }
}

/// Class bits of the character at `from`, 0 at the end of the text.
#[inline(always)]
pub(super) fn peek(text: &[u8], from: usize) -> u8 {
    if from < text.len() { at(text, from).0 } else { 0 }
}

/// `'s|'t|'re|'ve|'m|'ll|'d` with its apostrophe at `start`.
#[inline]
pub(super) fn contraction(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start + 1)? {
        b's' | b't' | b'm' | b'd' => Some(start + 2),
        b'r' | b'v' if text.get(start + 2) == Some(&b'e') => Some(start + 3),
        b'l' if text.get(start + 2) == Some(&b'l') => Some(start + 3),
        _ => None,
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)` with its apostrophe at `start`. U+017F folds to `s`.
#[inline]
fn contraction_any_case(text: &[u8], start: usize) -> Option<usize> {
    let lower = |k: usize| text.get(start + k).map(u8::to_ascii_lowercase);
    match lower(1)? {
        b's' | b't' | b'm' | b'd' => Some(start + 2),
        b'r' | b'v' if lower(2) == Some(b'e') => Some(start + 3),
        b'l' if lower(2) == Some(b'l') => Some(start + 3),
        0xC5 if decode(text, start + 1).0 == 0x17F => Some(start + 3),
        _ => None,
    }
}

/// `\s+(?!\S)|\s+`, with `\s*[\r\n]+` in front of it if `NEWLINES`; the character at `start` is a space.
#[inline]
fn spaces<const NEWLINES: bool>(text: &[u8], start: usize) -> usize {
    let (mut end, mut last, mut after_newline) = (start, start, start);
    while end < text.len() {
        let (class, width) = at(text, end);
        if class & SPACE == 0 {
            break;
        }
        last = end;
        end += width;
        if class & NEWLINE != 0 {
            after_newline = end;
        }
    }
    if NEWLINES && after_newline > start {
        after_newline
    } else if end < text.len() && last > start {
        last
    } else {
        end
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
#[inline(always)]
pub(super) fn gpt2_end(text: &[u8], start: usize) -> usize {
    let byte = text[start];
    if byte == b'\''
        && let Some(end) = contraction(text, start)
    {
        return end;
    }
    let first = start + usize::from(byte == b' ');
    let class = peek(text, first);
    if class & LETTER != 0 {
        run(text, first, LETTER)
    } else if class & NUMBER != 0 {
        run(text, first, NUMBER)
    } else if class & OTHER != 0 {
        run(text, first, OTHER)
    } else {
        spaces::<false>(text, start)
    }
}

/// The ends of the pieces of a text, one after the other.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) struct Gpt2Ends<'t>(&'t [u8]);

#[cfg(not(target_arch = "x86_64"))]
impl<'t> Gpt2Ends<'t> {
    pub fn new(text: &'t str) -> Self {
        Self(text.as_bytes())
    }

    #[inline(always)]
    pub fn next(&mut self, start: usize) -> usize {
        if start < self.0.len() { gpt2_end(self.0, start) } else { start }
    }
}

/// End of at most `DIGITS` numbers from `start`, of which the first is one.
#[inline(always)]
fn numbers<const DIGITS: usize>(text: &[u8], start: usize) -> usize {
    let mut end = start;
    for _ in 0..DIGITS {
        if peek(text, end) & NUMBER == 0 {
            break;
        }
        end += at(text, end).1;
    }
    end
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|` then
/// `\s+(?!\S)|\s+`
#[inline(always)]
pub(super) fn cl100k_end<const DIGITS: usize>(text: &[u8], start: usize) -> usize {
    let (class, width) = at(text, start);
    if class & LETTER != 0 {
        return run(text, start + width, LETTER);
    }
    if class & NUMBER != 0 {
        return numbers::<DIGITS>(text, start);
    }
    if text[start] == b'\''
        && let Some(end) = contraction_any_case(text, start)
    {
        return end;
    }
    let second = start + width;
    let next = peek(text, second);
    if next & LETTER != 0 && class & NEWLINE == 0 {
        return run(text, second, LETTER);
    }
    punctuation(text, start, second, class, next)
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`, given the classes of the characters at `start` and `second`.
#[inline(always)]
fn punctuation(text: &[u8], start: usize, second: usize, class: u8, next: u8) -> usize {
    if class & OTHER != 0 || (text[start] == b' ' && next & OTHER != 0) {
        run(text, run(text, second, OTHER), NEWLINE)
    } else {
        spaces::<true>(text, start)
    }
}

/// The regex of o200k (GPT-4o), see [`super::Pattern::O200k`].
#[inline(always)]
pub(super) fn o200k_end(text: &[u8], start: usize) -> usize {
    let (class, width) = at(text, start);
    if class & NUMBER != 0 {
        return numbers::<3>(text, start);
    }
    let second = start + width;
    // `[^\r\n\p{L}\p{N}]?`: a mark may stand before the word or belong to it, so both readings are tried, in order.
    let prefix = class & (LETTER | NEWLINE) == 0;
    let word = (prefix.then(|| ends_lower(text, second)).flatten())
        .or_else(|| ends_lower(text, start))
        .or_else(|| prefix.then(|| ends_upper(text, second)).flatten())
        .or_else(|| ends_upper(text, start));
    if let Some(end) = word {
        let quote = text.get(end) == Some(&b'\'');
        return quote.then(|| contraction_any_case(text, end)).flatten().unwrap_or(end);
    }
    if class & OTHER != 0 || (text[start] == b' ' && peek(text, second) & OTHER != 0) {
        let mut end = run(text, second, OTHER);
        while matches!(text.get(end), Some(b'\r' | b'\n' | b'/')) {
            end += 1;
        }
        end
    } else {
        spaces::<true>(text, start)
    }
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`: where the first run swallows everything that the
/// second could begin with, it gives back up to the last character that is of both kinds.
fn ends_lower(text: &[u8], start: usize) -> Option<usize> {
    let (mut end, mut after_both) = (start, None);
    while end < text.len() {
        let (class, width) = at(text, end);
        if class & UPPER == 0 {
            if class & LOWER != 0 {
                return Some(run(text, end, LOWER));
            }
            break;
        }
        end += width;
        if class & LOWER != 0 {
            after_both = Some(end);
        }
    }
    after_both
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`, tried only where [`ends_lower`] failed.
fn ends_upper(text: &[u8], start: usize) -> Option<usize> {
    let end = run(text, start, UPPER);
    (end > start).then_some(end)
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
            }
        }
    }
}
