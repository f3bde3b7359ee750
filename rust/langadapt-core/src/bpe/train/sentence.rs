//! Sentences to words as SentencePiece's trainer cuts them, and further where no piece can reach across.
//!
//! A sentence is a line. The trainer puts a space in front, replaces reserved text by a mark and cuts before every run
//! of spaces; its pieces never cross a change of script, a digit or a control mark (`split_by_unicode_script`,
//! `split_digits`, its defaults and the paper's option). Cutting there at once changes no count of a pair that can be
//! merged, and makes "Haus," and "Haus." the same word: a third fewer words to learn from.
//!
//! Words are counted with U+0020 for the space symbol U+2581, which is shorter.

use aho_corasick::AhoCorasick;
use memchr::{memchr, memmem};

use super::words::{Feeder, WordCounts};
use crate::bpe::added::leftmost_longest;
use crate::bpe::normalize::{Step, apply_all};
use crate::code_points::unpack;
use crate::{Error, Monitor, Result};

/// A character that takes the script of what precedes it.
const ANY: u8 = 0;
/// White space.
pub(super) const SPACE: u8 = 254;
/// Never joins a pair: digits, U+0000, and U+001F, which stands for reserved text.
pub(super) const ISOLATE: u8 = 255;
const COMMON: u8 = 1;

const TABLE: usize = 0x2_FA20;

static CLASS: [u8; TABLE] = build();

/// Scripts of code points as SentencePiece 0.2.3 (Unicode 9) sees them; Hiragana, Katakana and the long vowel mark are
/// Han there.
const SCRIPTS: &[u8] = include_bytes!("scripts.bin");

#[allow(long_running_const_eval, reason = "a quarter of a million steps, a tenth of a second")]
const fn build() -> [u8; TABLE] {
    let mut table = unpack(SCRIPTS, COMMON);
    let mut digit = 0;
    while digit < 10 {
        table[0x30 + digit] = ISOLATE;
        table[0xFF10 + digit] = ISOLATE;
        digit += 1;
    }
    table[0] = ISOLATE;
    table[0x1F] = ISOLATE;
    table[0x20] = SPACE;
    table[0x2581] = SPACE;
    table
}

#[inline(always)]
fn class(code: u32) -> u8 {
    match CLASS.get(code as usize) {
        Some(&class) => class,
        None if (0xE_0100..=0xE_01EF).contains(&code) => ANY,
        None => COMMON,
    }
}

/// Class of a character: 0 inherited, [`SPACE`], [`ISOLATE`], else its script.
pub(super) fn class_of(c: char) -> u8 {
    class(c as u32)
}

/// Whether no piece contains `previous` followed by `next`.
#[inline(always)]
fn cuts(previous: u8, next: u8) -> bool {
    match (previous, next) {
        (_, SPACE) => previous != SPACE,
        (ISOLATE, _) | (_, ISOLATE) => true,
        (SPACE | ANY, _) | (_, ANY) => false,
        _ => previous != next,
    }
}

/// How text becomes sentences.
#[derive(Debug)]
pub struct SentenceOptions {
    /// Longer lines are left out, in bytes.
    pub max_sentence_length: usize,
    /// Whether a line begins with a space that is not in the text.
    pub space_in_front: bool,
    /// Unicode normalization of each line.
    pub forms: Vec<Step>,
    /// Text of the pieces that are not learnt; it is left out.
    pub reserved: Vec<String>,
}

impl Default for SentenceOptions {
    fn default() -> Self {
        Self { max_sentence_length: 8192, space_in_front: true, forms: Vec::new(), reserved: Vec::new() }
    }
}

/// Cuts documents into words.
#[derive(Debug)]
pub struct Sentences {
    options: SentenceOptions,
    reserved: Option<AhoCorasick>,
}

/// What was left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Lines above [`SentenceOptions::max_sentence_length`].
    pub too_long: u64,
    /// Lines with U+2585, which SentencePiece keeps for unknown characters.
    pub reserved: u64,
}

impl Sentences {
    /// # Errors
    /// [`Error::Argument`] if the reserved texts do not fit into a matcher.
    pub fn new(options: SentenceOptions) -> Result<Self> {
        // Spaces are written U+2581 where the reference looks for reserved text, so a text with a space is never found.
        let texts = options.reserved.iter().filter(|text| !text.is_empty() && !text.contains(' '));
        let texts: Vec<String> = texts.map(|text| text.replace('\u{2581}', " ")).collect();
        let matcher = leftmost_longest(&texts);
        let matcher = matcher.map_err(|error| Error::argument(format!("special tokens: {error}")))?;
        Ok(Self { options, reserved: (!texts.is_empty()).then_some(matcher) })
    }

    /// Counts the words of all lines of a document.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn count(&self, text: &str, counts: &mut WordCounts, omitted: &mut Omitted, monitor: &Monitor) -> Result<()> {
        let bytes = text.as_bytes();
        // U+2581 and U+2585 are rare, as is reserved text: one fast search for the whole document instead of tests
        // for every character.
        let plain = self.options.forms.is_empty()
            && memmem::find(bytes, b"\xE2\x96").is_none()
            && self.reserved.as_ref().is_none_or(|matcher| !matcher.is_match(bytes));
        if !plain {
            return self.count_special(text, counts, omitted, monitor);
        }
        let mut feeder = counts.feed();
        let mut start = 0;
        while start < bytes.len() {
            let end = memchr(b'\n', &bytes[start..]).map_or(bytes.len(), |length| start + length);
            if end - start > self.options.max_sentence_length {
                omitted.too_long += 1;
            } else {
                count_line(bytes, start, end, self.options.space_in_front, &mut feeder);
            }
            monitor.check()?;
            start = end + 1;
        }
        Ok(())
    }

    #[cold]
    fn count_special(
        &self,
        text: &str,
        counts: &mut WordCounts,
        omitted: &mut Omitted,
        monitor: &Monitor,
    ) -> Result<()> {
        for line in text.split('\n') {
            if line.len() > self.options.max_sentence_length {
                omitted.too_long += 1;
            } else if line.contains('\u{2585}') {
                omitted.reserved += 1;
            } else if !line.is_empty() {
                let line = self.prepared(line);
                count_line(line.as_bytes(), 0, line.len(), false, &mut counts.feed());
            }
            monitor.check()?;
        }
        Ok(())
    }

    /// A line in normal form, with a space in front and marks for reserved text.
    fn prepared(&self, line: &str) -> String {
        let line = apply_all(&self.options.forms, line);
        let spaced = format!("{}{line}", if self.options.space_in_front { " " } else { "" }).replace('\u{2581}', " ");
        match &self.reserved {
            Some(matcher) if matcher.is_match(&spaced) => {
                let mut replaced = String::with_capacity(spaced.len());
                matcher.replace_all_with(&spaced, &mut replaced, |_, _, out| {
                    out.push('\u{1f}');
                    true
                });
                replaced
            }
            _ => spaced,
        }
    }
}

/// Counts the words of `text[start..end]`, with a space in front if `spaced`.
fn count_line(text: &[u8], start: usize, end: usize, spaced: bool, words: &mut Feeder<'_>) {
    if start == end {
        return;
    }
    let (mut from, mut at) = (start, start);
    let mut pending_space = spaced;
    let mut previous = if spaced { SPACE } else { ANY };
    loop {
        let (next, width) = if at < end { class_at(text, at) } else { (ISOLATE, 0) };
        if (cuts(previous, next) || at == end) && (at > from || pending_space) {
            if pending_space {
                words.add_after_space(text, from, at);
                pending_space = false;
            } else {
                words.add(text, from, at);
            }
            from = at;
        }
        if at == end {
            return;
        }
        previous = next;
        at += width;
        // Most text is runs of ASCII of one script.
        while at < end && next > COMMON && next < SPACE && text[at] < 0x80 && CLASS[text[at] as usize] == next {
            at += 1;
        }
    }
}

#[inline(always)]
fn class_at(text: &[u8], at: usize) -> (u8, usize) {
    let byte = text[at];
    if byte < 0x80 {
        (CLASS[byte as usize], 1)
    } else {
        let (code, width) = crate::pretokenize::decode(text, at);
        (class(code), width)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unicode_script::{Script, UnicodeScript};

    use super::*;
    use crate::code_points::tests::{by_code, check};

    /// Scripts of Unicode 9, which SentencePiece has: those of today for the characters of that age, numbered as they
    /// come up.
    fn scripts() -> Vec<u8> {
        let mut seen = vec![Script::Inherited, Script::Common];
        let is_of_age = regex::Regex::new(r"\p{Age=9.0}").unwrap();
        by_code(COMMON, |character| {
            let script = match character.script() {
                _ if !is_of_age.is_match(character.encode_utf8(&mut [0; 4])) => Script::Common,
                // Unicode has changed its mind about these.
                _ if matches!(character, '\u{589}' | '\u{61c}') => Script::Common,
                _ if matches!(character, '\u{953}' | '\u{954}') => Script::Devanagari,
                _ if character == 'ー' => Script::Han,
                Script::Hiragana | Script::Katakana => Script::Han,
                Script::Unknown => Script::Common,
                script => script,
            };
            let number = seen.iter().position(|known| *known == script).unwrap_or_else(|| {
                seen.push(script);
                seen.len() - 1
            });
            u8::try_from(number).unwrap()
        })
    }

    #[test]
    fn scripts_are_those_of_unicode_9() {
        check("bpe/train/scripts.bin", SCRIPTS, &scripts(), COMMON);
    }

    fn words(text: &str, options: SentenceOptions) -> (BTreeMap<String, u64>, Omitted) {
        let (mut counts, mut omitted) = (WordCounts::default(), Omitted::default());
        let sentences = Sentences::new(options).unwrap();
        sentences.count(text, &mut counts, &mut omitted, &Monitor::default()).unwrap();
        let mut map = BTreeMap::new();
        counts.for_each(|word, count| assert!(map.insert(String::from_utf8(word.to_vec()).unwrap(), count).is_none()));
        (map, omitted)
    }

    fn expect(text: &str, expected: &[(&str, u64)]) {
        let expected: BTreeMap<String, u64> = expected.iter().map(|&(word, count)| (word.to_owned(), count)).collect();
        assert_eq!(words(text, SentenceOptions::default()).0, expected, "{text:?}");
    }

    #[test]
    fn a_line_begins_with_a_space() {
        expect("ab  cd\nab\n\n ef", &[(" ab", 2), ("  cd", 1), ("  ef", 1)]);
        expect("\t\n", &[(" \t", 1)]);
        expect("a\u{2581}b", &[(" a", 1), (" b", 1)]);
    }

    #[test]
    fn digits_and_scripts_cut() {
        expect("a12,b", &[(" a", 1), ("1", 1), ("2", 1), (",", 1), ("b", 1)]);
        expect("1", &[(" ", 1), ("1", 1)]);
        expect("жa e\u{301}ж", &[(" ж", 1), ("a", 1), (" e\u{301}ж", 1)]);
        expect("カの漢ー", &[(" カの漢ー", 1)]);
    }

    #[test]
    fn reserved_text_is_left_out() {
        let options = SentenceOptions { reserved: vec!["<s>".into(), "<s>>".into()], ..SentenceOptions::default() };
        let (map, omitted) = words("a<s>>b\nx\u{2585}y", options);
        assert_eq!(map.into_keys().collect::<Vec<_>>(), ["\u{1f}", " a", "b"]);
        assert_eq!(omitted, Omitted { too_long: 0, reserved: 1 });
    }

    #[test]
    fn long_lines_are_left_out() {
        let options = SentenceOptions { max_sentence_length: 3, ..SentenceOptions::default() };
        let (map, omitted) = words("abcd\nabc", options);
        assert_eq!((map.len(), omitted.too_long), (1, 1));
    }
}
