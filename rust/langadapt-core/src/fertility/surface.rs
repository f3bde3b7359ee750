//! What token ids stand for in the text.

use unicode_segmentation::GraphemeCursor;

use crate::bpe::NativeTokenizer;
use crate::bpe::byte_level::bytes_of;
use crate::bpe::decode::byte_token;

/// Per id of a tokenizer: the text behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surfaces {
    /// UTF-8 bytes of text; [`Surfaces::NONE`] for an id that stands for nothing.
    pub bytes: Vec<u32>,
    /// Characters that begin in the token.
    pub characters: Vec<u32>,
    /// Whether the token is less than whole characters: a `<0xNN>` token of a SentencePiece-style vocabulary, or a
    /// byte-level token that is not valid UTF-8.
    pub is_byte: Vec<bool>,
}

impl Surfaces {
    /// Length of an id that stands for nothing.
    pub const NONE: u32 = u32::MAX;

    /// The surfaces of all ids of `tokenizer`.
    pub fn of(tokenizer: &NativeTokenizer) -> Self {
        let size = tokenizer.vocab_size();
        let mut all = Self { bytes: vec![Self::NONE; size], characters: vec![0; size], is_byte: vec![false; size] };
        for id in 0..size {
            let Ok(number) = u32::try_from(id) else { break };
            let is_added = tokenizer.added_tokens().binary_search_by_key(&number, |token| token.id).is_ok();
            let Some(token) = tokenizer.id_to_token(number) else { continue };
            let (bytes, characters, is_byte) = surface(token, is_added, tokenizer.is_byte_level());
            all.bytes[id] = bytes;
            all.characters[id] = characters;
            all.is_byte[id] = is_byte;
        }
        all
    }

    /// How many of `words` (start and end, ascending) more than one token has a part in, and how many have a border
    /// between tokens inside a grapheme; `None` where the tokens do not add up to the text, because a normalizer
    /// changed it or an id stands for unknown text.
    ///
    /// A SentencePiece-style tokenizer may put one space before the text, which is then no part of it.
    pub(super) fn cut_words(&self, ids: &[u32], text: &str, words: &[(usize, usize)]) -> Option<(u64, u64)> {
        let mut total = 0u64;
        for &id in ids {
            let bytes = *self.bytes.get(id as usize)?;
            if bytes == Self::NONE {
                return None;
            }
            total += u64::from(bytes);
        }
        let shift = total.checked_sub(text.len() as u64).filter(|&shift| shift <= 1)? as usize;
        let (mut continued, mut torn, mut at, mut next) = (0, 0, 0, 0);
        // Words that have been counted as continued, and as torn.
        let (mut seen, mut seen_torn) = (usize::MAX, usize::MAX);
        for &id in ids {
            at += self.bytes[id as usize] as usize;
            let border = at - shift.min(at);
            while next < words.len() && words[next].1 <= border {
                next += 1;
            }
            let Some(&(start, end)) = words.get(next).filter(|word| word.0 < border) else { continue };
            if seen != next {
                seen = next;
                continued += 1;
            }
            if seen_torn != next && !is_between_graphemes(&text[start..end], border - start) {
                seen_torn = next;
                torn += 1;
            }
        }
        Some((continued, torn))
    }
}

/// Whether a place inside of `word` is between two of its graphemes.
fn is_between_graphemes(word: &str, at: usize) -> bool {
    // A border between ASCII characters is one, and words have no line ends.
    let bytes = word.as_bytes();
    (bytes[at - 1] < 0x80 && bytes[at] < 0x80)
        || (word.is_char_boundary(at) && GraphemeCursor::new(at, word.len(), true).is_boundary(word, 0).unwrap_or(true))
}

fn surface(token: &str, is_added: bool, is_byte_level: bool) -> (u32, u32, bool) {
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(Surfaces::NONE);
    let whole = |text: &str| (length(text.len()), text.chars().count() as u32, false);
    if is_added {
        return if byte_token(token).is_some() { (1, 1, true) } else { whole(token) };
    }
    if !is_byte_level {
        return match byte_token(token) {
            Some(byte) => (1, u32::from(byte & 0xC0 != 0x80), true),
            None => whole(&token.replace('▁', " ")),
        };
    }
    match bytes_of(token) {
        None => whole(token),
        Some(bytes) => {
            let characters = bytes.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
            (length(bytes.len()), characters as u32, std::str::from_utf8(&bytes).is_err())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surfaces_of_pieces() {
        assert_eq!(surface("▁Größe", false, false), (8, 6, false));
        assert_eq!(surface("<0x0A>", false, false), (1, 1, true));
        assert_eq!(surface("<0x9F>", false, false), (1, 0, true));
        assert_eq!(surface("Ġdas", false, true), (4, 4, false));
        assert_eq!(surface("Ã", false, true), (1, 1, true));
        assert_eq!(surface("<s>", true, true), (3, 3, false));
    }

    #[test]
    fn borders_inside_words_are_seen() {
        let surfaces = Surfaces { bytes: vec![1, 2, 3, 4], characters: vec![], is_byte: vec![] };
        let words = [(0, 3), (4, 8), (9, 10)];
        let cut = |ids: &[u32]| surfaces.cut_words(ids, "abc defg h", &words);
        assert_eq!(cut(&[2, 0, 3, 0, 0]), Some((0, 0)));
        assert_eq!(cut(&[1, 2, 2, 1]), Some((1 + 1, 0)));
        assert_eq!(cut(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some((2, 0)));
        // With a space in front: _abc _def g _h
        assert_eq!(cut(&[3, 3, 0, 1]), Some((1, 0)));
        assert_eq!(cut(&[3, 3]), None);
        assert_eq!(cut(&[3, 3, 3]), None);
    }

    #[test]
    fn borders_inside_graphemes_are_seen() {
        let surfaces = Surfaces { bytes: (0..10).collect(), characters: vec![], is_byte: vec![] };
        let cut = |ids: &[u32], text: &str| surfaces.cut_words(ids, text, &[(0, text.len())]);
        // k a|́ b, k|á b, a letter and its vowel sign, half of a character.
        assert_eq!(cut(&[2, 3], "ka\u{301}b"), Some((1, 1)));
        assert_eq!(cut(&[1, 3, 1], "ka\u{301}b"), Some((1, 0)));
        assert_eq!(cut(&[3, 3], "हि"), Some((1, 1)));
        assert_eq!(cut(&[6, 6], "हिहि"), Some((1, 0)));
        assert_eq!(cut(&[1, 1], "ä"), Some((1, 1)));
    }
}
