//! How tokenizers cut text: counts that add up over threads and files, for any number of tokenizers in one pass.
//!
//! Only counts are made here; ratios and entropies are for the caller. Per text: documents, UTF-8 bytes, characters
//! (code points), words. Per tokenizer: how often each id occurs, and how many white-space words more than one token
//! has a part in. No special tokens are added.
//!
//! **Cost.** One encoding per tokenizer plus about a tenth of that for words and counting.

mod surface;

pub use surface::Surfaces;

use crate::bpe::{Cache, NativeTokenizer};
use crate::corpus::{Batch, Inputs, ReadOptions, ReadReport, fold_documents};
use crate::{Monitor, Result, words};

/// A tokenizer to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Contender<'a> {
    /// Encodes.
    pub tokenizer: &'a NativeTokenizer,
    /// What its ids stand for.
    pub surfaces: &'a Surfaces,
}

/// What was found in one corpus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Code points.
    pub characters: u64,
    /// Longest stretches without Unicode white space.
    pub words: u64,
    /// Extended grapheme clusters of Unicode UAX #29: what readers take for characters.
    pub graphemes: u64,
    /// Words of Unicode UAX #29: stretches between word boundaries that hold a letter, a digit or an ideograph.
    pub unicode_words: u64,
    /// In the order of the contenders.
    pub tokenizers: Vec<TokenTally>,
}

/// What one tokenizer made of one corpus.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenTally {
    /// Occurrences of each id.
    pub counts: Vec<u64>,
    /// White-space words that more than one token has a part in.
    pub continued_words: u64,
    /// White-space words with a border between tokens inside a grapheme: before a vowel sign or an accent, or within a
    /// character.
    pub torn_words: u64,
    /// White-space words that were looked at for that: those of documents whose tokens add up to their text.
    pub placed_words: u64,
}

impl Tally {
    fn new(contenders: &[Contender<'_>]) -> Self {
        let empty = |contender: &Contender<'_>| TokenTally {
            counts: vec![0; contender.tokenizer.vocab_size()],
            ..TokenTally::default()
        };
        Self { tokenizers: contenders.iter().map(empty).collect(), ..Self::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.characters += other.characters;
        self.words += other.words;
        self.unicode_words += other.unicode_words;
        self.graphemes += other.graphemes;
        for (mine, others) in self.tokenizers.iter_mut().zip(&other.tokenizers) {
            mine.continued_words += others.continued_words;
            mine.torn_words += others.torn_words;
            mine.placed_words += others.placed_words;
            for (count, more) in mine.counts.iter_mut().zip(&others.counts) {
                *count += more;
            }
        }
    }
}

/// Counts all documents of `inputs` for all `contenders`; the result does not depend on the number of threads.
///
/// # Errors
/// Those of [`fold_documents`].
pub fn count(
    inputs: &Inputs,
    options: &ReadOptions,
    contenders: &[Contender<'_>],
    threads: usize,
    monitor: &Monitor,
) -> Result<(Tally, ReadReport)> {
    let make = || Worker {
        tally: Tally::new(contenders),
        caches: contenders.iter().map(|_| watched_cache(monitor)).collect(),
        ids: Vec::new(),
        words: Vec::new(),
        ends: Vec::new(),
    };
    let fold = |worker: &mut Worker, batch: &Batch| worker.add(batch, contenders, monitor);
    let (workers, report) = fold_documents(inputs, options, threads, monitor, make, fold)?;
    let mut total = Tally::new(contenders);
    workers.iter().for_each(|worker| total.merge(&worker.tally));
    Ok((total, report))
}

fn watched_cache(monitor: &Monitor) -> Cache {
    let mut cache = Cache::default();
    cache.watch(monitor);
    cache
}

struct Worker {
    tally: Tally,
    caches: Vec<Cache>,
    ids: Vec<u32>,
    /// White-space words of all texts of a batch, and where each text's words end.
    words: Vec<(usize, usize)>,
    ends: Vec<usize>,
}

impl Worker {
    fn add(&mut self, batch: &Batch, contenders: &[Contender<'_>], monitor: &Monitor) -> Result<()> {
        self.words.clear();
        self.ends.clear();
        for text in batch.texts() {
            for (start, section) in words::sections(text) {
                monitor.check()?;
                let before = self.words.len();
                words::split(section, &mut self.words);
                self.words[before..].iter_mut().for_each(|word| *word = (word.0 + start, word.1 + start));
                self.tally.characters += section.chars().count() as u64;
                self.tally.unicode_words += words::count_unicode(section);
                self.tally.graphemes += words::count_graphemes(section);
            }
            self.ends.push(self.words.len());
        }
        self.tally.words += self.words.len() as u64;
        // A tokenizer's memory of pieces fills the core's own cache: each works through the batch before the next.
        for (n, contender) in contenders.iter().enumerate() {
            let mut start = 0;
            for (text, &end) in batch.texts().zip(&self.ends) {
                monitor.check()?;
                let words = &self.words[start..end];
                start = end;
                let tally = &mut self.tally.tokenizers[n];
                self.ids.clear();
                contender.tokenizer.encode_into(text, &mut self.caches[n], &mut self.ids);
                for &id in &self.ids {
                    tally.counts[id as usize] += 1;
                }
                monitor.check()?;
                if let Some((continued, torn)) = contender.surfaces.cut_words(&self.ids, text, words) {
                    tally.continued_words += continued;
                    tally.torn_words += torn;
                    tally.placed_words += words.len() as u64;
                } else {
                    tally.continued_words +=
                        continued_alone(text, words, contender, &mut self.caches[n], &mut self.ids);
                }
            }
        }
        Ok(())
    }
}

/// Continued words where tokens and text cannot be laid side by side: each word is encoded as after a space.
fn continued_alone(
    text: &str,
    words: &[(usize, usize)],
    contender: &Contender<'_>,
    cache: &mut Cache,
    ids: &mut Vec<u32>,
) -> u64 {
    let space = if contender.tokenizer.is_byte_level() { " " } else { "" };
    let mut spaced = String::new();
    let mut continued = 0;
    for &(start, end) in words {
        spaced.clear();
        spaced.push_str(space);
        spaced.push_str(&text[start..end]);
        ids.clear();
        contender.tokenizer.encode_into(&spaced, cache, ids);
        continued += u64::from(ids.len() > 1);
    }
    continued
}
