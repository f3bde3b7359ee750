//! Compiled regexes beside Oniguruma, the engine that `tokenizers` runs the same regexes with.

mod fuzzing;

use fuzzing::{Random, a_second, for_long};
use langadapt_core::pretokenize::{Pattern, Scanner};
use onig::Regex;

/// What the regexes tell apart: cases, marks, digits, line ends, contractions, white space of every kind.
const PARTS: [&str; 40] = [
    "a", "B", "word", "Word", "ß", "ä", "Ä", "λ", "ж", "中", "ا", "ǅ", "ʰ", "ª", "\u{301}", "\u{483}", "1", "23",
    "4567", "²", "½", "٣", "Ⅷ", ".", ",", "!?", "'", "'s", "'LL", "'ve", "’s", "/", " ", "  ", "\n", "\r\n", "\t",
    "\u{a0}", "😀", "\u{200d}",
];

struct Target(Vec<(Pattern, Scanner, Regex)>);

impl Target {
    fn new() -> Self {
        let both =
            |pattern: Pattern| (pattern, Scanner::new(pattern.regex()).unwrap(), Regex::new(pattern.regex()).unwrap());
        Self(Pattern::ALL.into_iter().map(both).collect())
    }

    fn step(&self, random: &mut Random) -> u64 {
        let text: String = (0..random.below(60))
            .map(|_| match random.below(8) {
                0 => char::from_u32(random.below(0x11_0000) as u32 >> random.below(12)).unwrap_or('x').to_string(),
                _ => random.pick(&PARTS).to_owned(),
            })
            .collect();
        for (pattern, scanner, regex) in &self.0 {
            let mut ours = Vec::new();
            scanner.for_each(text.as_bytes(), |start, end| ours.push((start, end)));
            let theirs: Vec<(usize, usize)> = regex.find_iter(&text).collect();
            assert_eq!(ours, theirs, "{pattern:?} on {text:?}");
        }
        1
    }
}

#[test]
fn a_second_of_texts() {
    let target = Target::new();
    a_second(|random| target.step(random));
}

#[test]
#[ignore = "runs for FUZZ_SECONDS, a minute by default"]
fn fuzz_pieces() {
    let target = Target::new();
    for_long(|random| target.step(random));
}
