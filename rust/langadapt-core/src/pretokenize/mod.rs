//! Text to pieces: the regexes that byte-level tokenizers cut text with, as hand-written scanners.
//!
//! Promise: for every text the pieces equal what Hugging Face `tokenizers` makes of the same regex (`Split` with
//! behaviour `isolated`, `ByteLevel` with `use_regex`), that is Oniguruma's semantics and its Unicode tables. The
//! pieces are contiguous and cover the text. Time is linear in the text; nothing is allocated.
//!
//! | file | concern |
//! |---|---|
//! | `ranges.rs` | which code point is a letter, a number, a space |
//! | `classes.rs` | the same as one byte per code point |
//! | `scan.rs` | one function per regex |
//! | `blocks.rs` | GPT-2's regex, 64 bytes at a time |
//!
//! Dropped on the way: to find only the end of each piece with SIMD, from its start on; with five-byte pieces the byte
//! loop over a 128-byte table is as good. It pays to judge a whole block at once (`blocks.rs`).

#[cfg(target_arch = "x86_64")]
mod blocks;
mod classes;
mod scan;

#[cfg(target_arch = "x86_64")]
pub(crate) use blocks::Gpt2Ends;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use scan::Gpt2Ends;

pub(crate) use classes::decode;

/// A regex that this module has a scanner for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// GPT-2, RoBERTa, Phi-2; also what `ByteLevel` with `use_regex` does.
    Gpt2,
    /// GPT-4 (cl100k) in the spelling with possessive quantifiers. Cuts exactly like [`Pattern::Llama3`].
    Gpt4,
    /// Llama 3, and cl100k in its older spelling: numbers in groups of up to three.
    Llama3,
    /// Qwen 2, 2.5 and 3: single digits.
    Qwen2,
    /// GPT-4o (o200k): case changes cut words.
    O200k,
}

impl Pattern {
    /// Every pattern.
    pub const ALL: [Self; 5] = [Self::Gpt2, Self::Gpt4, Self::Llama3, Self::Qwen2, Self::O200k];

    /// The pattern with exactly this regex, if there is a scanner for it.
    pub fn from_regex(regex: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pattern| pattern.regex() == regex)
    }

    /// The regex as written in a `tokenizer.json`.
    ///
    /// Spellings of cl100k with `{1,3}+` or `\s++$` are not here: Oniguruma reads the first as an unbounded repetition
    /// and lets `$` match before every newline, so they cut differently there.
    pub fn regex(self) -> &'static str {
        match self {
            Self::Gpt2 => r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            Self::Gpt4 => {
                r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
            }
            Self::Llama3 => {
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            }
            Self::Qwen2 => {
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            }
            Self::O200k => concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
                r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ),
        }
    }

    /// End of the piece that starts at byte `start`; `text.len()` if nothing is left.
    ///
    /// # Panics
    /// May panic if `start` is not a character boundary.
    #[inline(always)]
    pub fn next(self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        if start >= bytes.len() {
            return bytes.len();
        }
        match self {
            Self::Gpt2 => scan::gpt2_end(bytes, start),
            Self::Gpt4 | Self::Llama3 => scan::cl100k_end::<3>(bytes, start),
            Self::Qwen2 => scan::cl100k_end::<1>(bytes, start),
            Self::O200k => scan::o200k_end(bytes, start),
        }
    }

    /// Calls `piece` with every piece of `text`, in order. Faster than [`Pattern::next`] in a loop, because the
    /// pattern is chosen once.
    ///
    /// ```
    /// use langadapt_core::pretokenize::Pattern;
    /// let mut pieces = Vec::new();
    /// Pattern::Llama3.for_each("It's 12345 o'clock  now", |piece| pieces.push(piece));
    /// assert_eq!(pieces, ["It", "'s", " ", "123", "45", " o", "'clock", " ", " now"]);
    /// ```
    #[inline]
    pub fn for_each<'t>(self, text: &'t str, mut piece: impl FnMut(&'t str)) {
        self.for_each_span(text, |start, end| piece(&text[start..end]));
    }

    /// Calls `span` with the bounds of every piece of `text`, in order.
    #[inline]
    pub fn for_each_span(self, text: &str, span: impl FnMut(usize, usize)) {
        match self {
            Self::Gpt2 => {
                let mut ends = Gpt2Ends::new(text);
                each(text, |_, start| ends.next(start), span);
            }
            Self::Gpt4 | Self::Llama3 => each(text, scan::cl100k_end::<3>, span),
            Self::Qwen2 => each(text, scan::cl100k_end::<1>, span),
            Self::O200k => each(text, scan::o200k_end, span),
        }
    }
}

#[inline(always)]
fn each(text: &str, mut end_of: impl FnMut(&[u8], usize) -> usize, mut span: impl FnMut(usize, usize)) {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let end = end_of(bytes, start);
        span(start, end);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        pattern.for_each(text, |piece| pieces.push(piece));
        pieces
    }

    #[test]
    fn the_regex_names_the_pattern() {
        for pattern in Pattern::ALL {
            assert_eq!(Pattern::from_regex(pattern.regex()), Some(pattern));
        }
        assert_eq!(Pattern::from_regex(r"\s+"), None);
    }

    #[test]
    fn spaces_give_their_last_character_to_the_word() {
        assert_eq!(pieces(Pattern::Gpt2, "a   b\n\n c "), ["a", "  ", " b", "\n\n", " c", " "]);
        assert_eq!(pieces(Pattern::Llama3, "a \n \n  b \r\n"), ["a", " \n \n", " ", " b", " \r\n"]);
        assert_eq!(pieces(Pattern::Llama3, "a\u{a0}\u{a0}b"), ["a", "\u{a0}", "\u{a0}b"]);
    }

    #[test]
    fn contractions_fold_case_where_the_regex_does() {
        assert_eq!(pieces(Pattern::Gpt2, "I'M'm"), ["I", "'", "M", "'m"]);
        assert_eq!(pieces(Pattern::Qwen2, "I'M'LL'\u{17f}x"), ["I", "'M", "'LL", "'\u{17f}", "x"]);
        assert_eq!(pieces(Pattern::Llama3, "'l'lx'rE"), ["'l", "'lx", "'rE"]);
    }

    #[test]
    fn numbers_are_grouped_as_the_regex_says() {
        assert_eq!(pieces(Pattern::Gpt2, " 1234"), [" 1234"]);
        assert_eq!(pieces(Pattern::Llama3, " 1234"), [" ", "123", "4"]);
        assert_eq!(pieces(Pattern::Qwen2, "12"), ["1", "2"]);
    }

    #[test]
    fn case_changes_cut_in_o200k() {
        assert_eq!(pieces(Pattern::O200k, "camelCaseABC's a/b//\n"), ["camel", "Case", "ABC's", " a", "/b", "//\n"]);
        assert_eq!(pieces(Pattern::O200k, "\u{301}AB"), ["\u{301}", "AB"]);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_text(text in r"[a-bA'lLre1 \t\r\n.,/\u{a0}\u{301}\u{17f}äλ中²\u{2028}😀]{0,24}") {
            for pattern in Pattern::ALL {
                let parts = pieces(pattern, &text);
                prop_assert_eq!(parts.concat(), text.as_str());
                prop_assert!(parts.iter().all(|part| !part.is_empty()));
                let mut start = 0;
                for part in parts {
                    start += part.len();
                    prop_assert_eq!(pattern.next(&text, start - part.len()), start);
                }
                prop_assert_eq!(pattern.next(&text, text.len()), text.len());
            }
        }
    }
}
