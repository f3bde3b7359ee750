//! Byte-level merges for several languages at once, each chosen for the language that is worst off.
//!
//! Parity-aware BPE (Foroutan et al., ACL 2026.342): before every merge the language that needs most tokens for its
//! text says which pair is merged, everywhere. Text is measured in characters here, for want of aligned text. A pair
//! whose text is a token already is never merged: unlike in `byte_level.rs`, a token is made in one way.

use std::collections::{HashMap, HashSet};

use super::byte_level::{ByteLevelOptions, alphabet_of};
use super::given::{Given, given_merges};
use super::learn::{Learner, Style};
use super::queue::Candidate;
use super::{Piece, PieceKind, TrainedBpe, WordCounts, too_small};
use crate::{Error, Monitor, Result};

/// What is a token already, and how long symbols are.
struct Known {
    texts: Vec<String>,
    taken: HashSet<String>,
    longest: usize,
}

impl Known {
    fn joined(&self, left: u32, right: u32) -> String {
        [self.texts[left as usize].as_str(), self.texts[right as usize].as_str()].concat()
    }
}

impl Style for Known {
    const QUEUE_ALL: bool = false;

    fn pair(&self, left: u32, right: u32) -> Option<u64> {
        let text = self.joined(left, right);
        let fits = text.chars().count() <= self.longest && !self.taken.contains(&text);
        fits.then_some(u64::from(left) << 32 | u64::from(right))
    }

    fn before(&self, _: &[[u32; 2]], a: &Candidate, b: &Candidate) -> bool {
        (b.count, a.tie) < (a.count, b.tie)
    }
}

/// One language on the way.
struct Language {
    learner: Learner,
    tokens: i64,
    characters: i64,
    /// None of its pairs is left, or frequent enough.
    is_through: bool,
}

impl Language {
    fn worse_off_than(&self, other: &Self) -> bool {
        i128::from(self.tokens) * i128::from(other.characters) > i128::from(other.tokens) * i128::from(self.characters)
    }
}

/// Learns merges from the counted words of several languages; of two that are as badly off the first chooses.
///
/// # Errors
/// As [`super::learn_byte_level`].
pub fn learn_parity(languages: Vec<WordCounts>, options: &ByteLevelOptions, monitor: &Monitor) -> Result<TrainedBpe> {
    let mut texts: Vec<String> = Vec::new();
    let mut ids: HashMap<String, u32> = HashMap::new();
    let (base, symbol_of_byte) = alphabet_of(&options.special_tokens);
    for text in base.into_iter().chain(options.given_tokens.iter().cloned()) {
        ids.entry(text).or_insert_with_key(|text| {
            texts.push(text.clone());
            texts.len() as u32 - 1
        });
    }
    if texts.len() > options.vocab_size {
        let detail = format!("vocab_size: {}; {} entries are given", options.vocab_size, texts.len());
        return Err(Error::argument(detail));
    }
    let given = given_merges(&options.given_tokens, |text| ids.get(text).copied());
    let longest = options.max_token_length.unwrap_or(usize::MAX);
    let mut known = Known { taken: texts.iter().cloned().collect(), texts, longest };
    let mut all = Vec::with_capacity(languages.len());
    for words in languages {
        all.push(language(words, &symbol_of_byte, &given, &known, monitor)?);
    }
    let mut merges: Vec<(u32, u32)> = given.iter().map(|&(left, right, _)| (left, right)).collect();
    merges.extend(merge(&mut all, &mut known, options, monitor)?);
    if known.texts.len() < options.vocab_size && !options.accept_fewer {
        return Err(too_small(options.vocab_size, known.texts.len(), options.min_frequency));
    }
    let pieces = known.texts.into_iter().enumerate().map(|(id, text)| {
        let kind = if id < options.special_tokens.len() { PieceKind::Special } else { PieceKind::Normal };
        Piece { text, score: 0.0, kind }
    });
    Ok(TrainedBpe { pieces: pieces.collect(), merges })
}

fn language(
    words: WordCounts,
    symbol_of_byte: &[u32; 256],
    given: &[(u32, u32, u32)],
    known: &Known,
    monitor: &Monitor,
) -> Result<Language> {
    let mut given = Given::new(given, known.texts.len());
    let mut language =
        Language { learner: Learner::following(known.texts.len()), tokens: 0, characters: 0, is_through: false };
    words.drain(monitor, |word, count| {
        let symbols = given.applied(word.iter().map(|&byte| symbol_of_byte[usize::from(byte)]));
        language.tokens += symbols.len() as i64 * count as i64;
        language.characters += word.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() as i64 * count as i64;
        language.learner.push_word(symbols.iter().copied(), count)
    })?;
    language.learner.count_pairs(known, monitor)?;
    Ok(language)
}

fn merge(
    all: &mut [Language],
    known: &mut Known,
    options: &ByteLevelOptions,
    monitor: &Monitor,
) -> Result<Vec<(u32, u32)>> {
    let wanted = options.vocab_size - known.texts.len();
    monitor.begin("learn merges", "merges", Some(wanted as u64));
    let mut merges = Vec::new();
    while known.texts.len() < options.vocab_size {
        let waiting = (0..all.len()).filter(|&at| !all[at].is_through);
        let Some(worst) = waiting.reduce(|a, b| if all[b].worse_off_than(&all[a]) { b } else { a }) else { break };
        let best = all[worst].learner.next(known);
        let Some((best, pair)) = best.filter(|(best, _)| best.count >= 1 && best.count as u64 >= options.min_frequency)
        else {
            all[worst].is_through = true;
            continue;
        };
        let text = known.joined(pair[0], pair[1]);
        if !known.taken.insert(text.clone()) {
            continue;
        }
        let symbol = known.texts.len() as u32;
        known.texts.push(text);
        merges.push((pair[0], pair[1]));
        for (at, language) in all.iter_mut().enumerate() {
            language.tokens -= if at == worst {
                language.learner.step(best, symbol, known, monitor)?
            } else {
                language.learner.follow(pair, symbol, known, monitor)?
            };
        }
        monitor.advance(1)?;
    }
    Ok(merges)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Words = Vec<(Vec<String>, i64)>;

    fn counts(words: &[(String, u64)]) -> WordCounts {
        let mut counts = WordCounts::default();
        words.iter().for_each(|(word, count)| counts.add(word.as_bytes(), 0, word.len(), *count));
        counts
    }

    /// `left` and `right` side by side become one, from the left.
    fn merge(word: &mut Vec<String>, left: &str, right: &str) {
        let mut at = 0;
        while at + 1 < word.len() {
            if word[at] == left && word[at + 1] == right {
                word[at] = [left, right].concat();
                word.remove(at + 1);
            }
            at += 1;
        }
    }

    /// Everything counted anew before every merge.
    fn naive(languages: &[Vec<(String, u64)>], size: usize, least: i64) -> Vec<String> {
        let (mut tokens, _) = alphabet_of(&[]);
        let ids = |tokens: &[String], text: &String| tokens.iter().position(|token| token == text).unwrap();
        let split = |word: &str| word.chars().map(String::from).collect::<Vec<_>>();
        let mut all: Vec<Words> = (languages.iter())
            .map(|words| words.iter().map(|(word, count)| (split(word), *count as i64)).collect())
            .collect();
        let mut through = vec![false; all.len()];
        while tokens.len() < size && through.contains(&false) {
            let rate = |at: usize| -> f64 {
                let tokens: i64 = all[at].iter().map(|(word, count)| word.len() as i64 * count).sum();
                let characters: i64 = all[at].iter().map(|(word, count)| word.concat().len() as i64 * count).sum();
                tokens as f64 / characters as f64
            };
            let waiting = (0..all.len()).filter(|&at| !through[at]);
            let worst = waiting.reduce(|a, b| if rate(b) > rate(a) + 1e-12 { b } else { a }).unwrap();
            let mut pairs: BTreeMap<(usize, usize), i64> = BTreeMap::new();
            for (word, count) in &all[worst] {
                for pair in word.windows(2) {
                    if !tokens.contains(&pair.concat()) {
                        *pairs.entry((ids(&tokens, &pair[0]), ids(&tokens, &pair[1]))).or_default() += count;
                    }
                }
            }
            let best = pairs.into_iter().max_by_key(|(pair, count)| (*count, std::cmp::Reverse(*pair)));
            let Some(((left, right), _)) = best.filter(|(_, count)| *count >= least) else {
                through[worst] = true;
                continue;
            };
            let (left, right) = (tokens[left].clone(), tokens[right].clone());
            tokens.push([left.as_str(), right.as_str()].concat());
            all.iter_mut().flatten().for_each(|(word, _)| merge(word, &left, &right));
        }
        tokens
    }

    fn words(letters: &'static str) -> impl Strategy<Value = Vec<(String, u64)>> {
        prop::collection::btree_map(letters, 1..9u64, 1..8).prop_map(|words| words.into_iter().collect())
    }

    proptest! {
        #[test]
        fn as_counted_anew(one in words("[ab]{1,7}"), other in words("[abc]{1,6}"), third in words("[cd]{1,4}"),
            more in 0..14usize, least in 1..4u64) {
            let languages = [one, other, third];
            let options = ByteLevelOptions { vocab_size: 256 + more, min_frequency: least, accept_fewer: true,
                ..ByteLevelOptions::default() };
            let counted = languages.iter().map(|words| counts(words)).collect();
            let learnt = learn_parity(counted, &options, &Monitor::default()).unwrap();
            let learnt: Vec<String> = learnt.pieces.into_iter().map(|piece| piece.text).collect();
            prop_assert_eq!(learnt, naive(&languages, 256 + more, least as i64));
        }
    }

    #[test]
    fn one_language_alone_is_plain() {
        let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)].map(|(word, n)| (word.to_owned(), n));
        let options = ByteLevelOptions { vocab_size: 270, accept_fewer: true, ..ByteLevelOptions::default() };
        let parity = learn_parity(vec![counts(&words)], &options, &Monitor::default()).unwrap();
        let plain = super::super::learn_byte_level(counts(&words), &options, &Monitor::default()).unwrap();
        assert_eq!(parity, plain);
    }
}
