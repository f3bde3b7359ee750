//! Words, twice: between white space, and by Unicode UAX #29.

use unicode_segmentation::UnicodeSegmentation;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Monitor, Result};

/// Bytes of a section: a few milliseconds of work.
const SECTION: usize = 256 << 10;

/// `text` in sections that no word reaches across, each with its place: between two of them a caller can ask whether to
/// stop. A section ends behind a space or a line feed; a text without them is one section.
pub(crate) fn sections(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let from = start;
        let rest = text.as_bytes().get(from..).filter(|rest| !rest.is_empty())?;
        let border = rest.get(SECTION..).and_then(|behind| memchr::memchr2(b' ', b'\n', behind));
        start = border.map_or(text.len(), |at| from + SECTION + at + 1);
        Some((from, &text[from..start]))
    })
}

/// Appends start and end of every stretch without Unicode white space to `words`.
pub(crate) fn split(text: &str, words: &mut Vec<(usize, usize)>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        while at < bytes.len()
            && let white @ 1.. = white_space(&bytes[at..])
        {
            at += white;
        }
        let start = at;
        while at < bytes.len() && (!BEGINS_SPACE[usize::from(bytes[at])] || white_space(&bytes[at..]) == 0) {
            at += 1;
        }
        if start == at {
            return;
        }
        words.push((start, at));
    }
}

/// Bytes with which a white-space character begins; no such byte lies inside a character.
static BEGINS_SPACE: [bool; 256] = {
    let mut table = [false; 256];
    let firsts = [9, 10, 11, 12, 13, b' ', 0xC2, 0xE1, 0xE2, 0xE3];
    let mut n = 0;
    while n < firsts.len() {
        table[firsts[n] as usize] = true;
        n += 1;
    }
    table
};

/// Bytes of the white-space character at the start of `bytes`; 0 if there is another one.
fn white_space(bytes: &[u8]) -> usize {
    match bytes {
        [9..=13 | b' ', ..] => 1,
        [0xC2, 0x85 | 0xA0, ..] => 2,
        [0xE1, 0x9A, 0x80, ..] | [0xE2, 0x81, 0x9F, ..] | [0xE3, 0x80, 0x80, ..] => 3,
        [0xE2, 0x80, 0x80..=0x8A | 0xA8 | 0xA9 | 0xAF, ..] => 3,
        _ => 0,
    }
}

/// How many words UAX #29 finds.
pub(crate) fn count_unicode(text: &str) -> u64 {
    let mut words = 0;
    for_each_unicode(text, |_| words += 1);
    words
}

/// How many extended grapheme clusters UAX #29 finds.
pub(crate) fn count_graphemes(text: &str) -> u64 {
    let mut graphemes = 0;
    // Lines apart: a line feed is a grapheme of its own, or the end of one. Most lines are plain.
    for line in text.split_inclusive('\n') {
        graphemes += if line.is_ascii() {
            line.len() - usize::from(line.ends_with("\r\n"))
        } else {
            line.graphemes(true).count()
        };
    }
    graphemes as u64
}

/// Calls `word` with every word that UAX #29 finds.
///
/// No word crosses a space or a line feed, so the parts between them are looked at one by one; most are plain letters
/// with perhaps a full stop behind, and need no table.
pub(crate) fn for_each_unicode<'t>(text: &'t str, mut word: impl FnMut(&'t str)) {
    let mut start = 0;
    let bytes = text.as_bytes();
    for end in memchr::memchr2_iter(b' ', b'\n', bytes).chain([bytes.len()]) {
        let part = &text[start..end];
        start = end + 1;
        match plain(part) {
            Some(letters) => word(letters),
            None => part.unicode_words().for_each(&mut word),
        }
    }
}

/// The letters of `part`, if it is letters and then perhaps ASCII punctuation.
fn plain(part: &str) -> Option<&str> {
    // A low line would join words; it is no such punctuation.
    let letters = part.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"']);
    let is_plain = !letters.is_empty()
        && (letters.bytes().all(|byte| byte.is_ascii_alphanumeric()) || letters.chars().all(is_simple_letter));
    is_plain.then_some(letters)
}

/// Letters and digits between any two of which UAX #29 sees no boundary: Latin, Cyrillic, Arabic.
fn is_simple_letter(character: char) -> bool {
    matches!(character,
        'a'..='z' | 'A'..='Z' | '0'..='9' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='\u{24F}' | '\u{410}'..='\u{44F}'
        | '\u{620}'..='\u{64A}')
}

/// A word's hash and its length in characters.
pub(crate) type Word = (u64, u32);

/// Words by Unicode UAX #29, so that scripts without spaces have words too; `fold` lower-cases them.
pub(crate) fn hashes(text: &str, fold: bool, monitor: &Monitor) -> Result<Vec<Word>> {
    let mut found = Vec::with_capacity(text.len() / 6);
    for (_, section) in sections(text) {
        monitor.check()?;
        hash_words(section, fold, &mut found);
    }
    Ok(found)
}

fn hash_words(text: &str, fold: bool, found: &mut Vec<Word>) {
    let mut lower = String::new();
    for_each_unicode(text, |word| {
        if !fold {
            return found.push((xxh3_64(word.as_bytes()), word.chars().count() as u32));
        }
        lower.clear();
        if word.is_ascii() {
            lower.push_str(word);
            lower.make_ascii_lowercase();
        } else {
            lower.extend(word.chars().flat_map(char::to_lowercase));
        }
        found.push((xxh3_64(lower.as_bytes()), word.chars().count() as u32));
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(text: &str) -> u64 {
        text.unicode_words().count() as u64
    }

    #[test]
    fn all_simple_letters_join() {
        let simple: Vec<char> = (' '..='\u{FFFF}').filter(|&character| is_simple_letter(character)).collect();
        for &one in &simple {
            for other in ['a', '0', 'ß', 'я', 'ع', one] {
                let pair: String = [one, other].iter().collect();
                assert_eq!(naive(&pair), 1, "{pair:?}");
            }
        }
    }

    #[test]
    fn sections_are_the_text() {
        for (word, count) in [("wort ", 200_000), ("zeile\n", 100_000), ("ü", 300_000), ("a", 3), ("", 0)] {
            let text = word.repeat(count);
            let parts: Vec<_> = sections(&text).collect();
            assert_eq!(parts.iter().map(|part| part.1).collect::<String>(), text);
            assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1.len() == pair[1].0));
            assert_eq!(parts.len() > 1, word.len() > 3 && count > 3);
        }
    }

    #[test]
    fn words_of_scripts_without_spaces() {
        assert_eq!(count_unicode("中文没有空格。"), naive("中文没有空格。"));
        assert_eq!(count_unicode("Der Hund, 3,5 Jahre (alt) – can't!"), 6);
        let mut words = Vec::new();
        split(" ein\u{a0}Wort\n\t更多 ", &mut words);
        assert_eq!(words, [(1, 4), (6, 10), (12, 18)]);
        split("", &mut words);
        assert_eq!(words.len(), 3);
    }

    fn assert_split(text: &str) {
        let mut words = Vec::new();
        split(text, &mut words);
        let found: Vec<&str> = words.iter().map(|&(start, end)| &text[start..end]).collect();
        assert_eq!(found, text.split_whitespace().collect::<Vec<_>>(), "{text:?}");
    }

    #[test]
    fn white_space_is_that_of_unicode() {
        for character in '\0'..=char::MAX {
            if white_space(character.encode_utf8(&mut [0; 4]).as_bytes()) > 0 || character.is_whitespace() {
                assert_split(&format!("a{character}b{character}{character}"));
            }
        }
    }

    proptest! {
        #[test]
        fn split_equals_the_library(text in any::<String>(), spaced in "[a中 \n\u{85}\u{a0}\u{2003}\u{202f}\u{3000}ä\u{1680}]{0,30}") {
            assert_split(&text);
            assert_split(&spaced);
        }

        #[test]
        fn counts_equal_the_library(text in any::<String>(), pieces in prop::collection::vec(prop::sample::select(vec![
            " ", "\n", "a", "ß", "1", ".", ",", "_", "'", "\u{301}", "\u{200d}", "中", "か", "カ", "ไ", "ع", "א", "\"", "-", ":",
            "😀", "🇩", "\r", "\u{a0}", "я", "\u{ad}", "!", "3", ")",
        ]), 0..40)) {
            prop_assert_eq!(count_unicode(&text), naive(&text));
            let text = pieces.concat();
            prop_assert_eq!(count_graphemes(&text), text.graphemes(true).count() as u64, "{:?}", text);
            let mut found = Vec::new();
            for_each_unicode(&text, |word| found.push(word));
            prop_assert_eq!(found, text.unicode_words().collect::<Vec<_>>(), "{:?}", text);
        }
    }
}
