//! Words, twice: between white space, and by Unicode UAX #29.

use unicode_segmentation::UnicodeSegmentation;

/// Puts start and end of every stretch without Unicode white space into `words`.
pub(super) fn split(text: &str, words: &mut Vec<(usize, usize)>) {
    words.clear();
    let base = text.as_ptr().addr();
    words.extend(text.split_whitespace().map(|word| {
        let start = word.as_ptr().addr() - base;
        (start, start + word.len())
    }));
}

/// How many words UAX #29 finds.
///
/// No word crosses a space or a line feed, so the parts between them are looked at one by one; most are plain letters
/// with perhaps a full stop behind, and need no table.
pub(super) fn count_unicode(text: &str) -> u64 {
    let mut words = 0;
    let mut start = 0;
    let bytes = text.as_bytes();
    for end in memchr::memchr2_iter(b' ', b'\n', bytes).chain([bytes.len()]) {
        let part = &text[start..end];
        start = end + 1;
        words += if is_plain(part) { 1 } else { part.unicode_words().count() as u64 };
    }
    words
}

/// Whether `part` is letters, and then perhaps ASCII punctuation.
fn is_plain(part: &str) -> bool {
    // A low line would join words; it is no such punctuation.
    let letters = part.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '"']);
    !letters.is_empty() && letters.chars().all(is_simple_letter)
}

/// Letters and digits between any two of which UAX #29 sees no boundary: Latin, Cyrillic, Arabic.
fn is_simple_letter(character: char) -> bool {
    matches!(character,
        'a'..='z' | 'A'..='Z' | '0'..='9' | 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='\u{24F}' | '\u{410}'..='\u{44F}'
        | '\u{620}'..='\u{64A}')
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
    fn words_of_scripts_without_spaces() {
        assert_eq!(count_unicode("中文没有空格。"), naive("中文没有空格。"));
        assert_eq!(count_unicode("Der Hund, 3,5 Jahre (alt) – can't!"), 6);
        let mut words = Vec::new();
        split(" ein\u{a0}Wort\n\t更多 ", &mut words);
        assert_eq!(words, [(1, 4), (6, 10), (12, 18)]);
        split("", &mut words);
        assert_eq!(words, []);
    }

    proptest! {
        #[test]
        fn counts_equal_the_library(text in any::<String>(), pieces in prop::collection::vec(prop::sample::select(vec![
            " ", "\n", "a", "ß", "1", ".", ",", "_", "'", "\u{301}", "\u{200d}", "中", "か", "カ", "ไ", "ع", "א", "\"", "-", ":",
            "😀", "🇩", "\r", "\u{a0}", "я", "\u{ad}", "!", "3", ")",
        ]), 0..40)) {
            prop_assert_eq!(count_unicode(&text), naive(&text));
            let text = pieces.concat();
            prop_assert_eq!(count_unicode(&text), naive(&text), "{:?}", text);
        }
    }
}
