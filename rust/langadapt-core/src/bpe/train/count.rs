//! Documents to word counts on several threads.

use super::sentence::{Omitted, Sentences};
use super::words::WordCounts;
use crate::bpe::cutting::Cutting;
use crate::bpe::normalize::{Step, apply_all};
use crate::corpus::{Inputs, ReadOptions, ReadReport, fold_documents};
use crate::pretokenize::{Cuts, Steps};
use crate::{Monitor, Result, threads};

/// Bytes of a document between two looks at the monitor: 30 ms at most.
const CHECK_EVERY: usize = 4 << 20;

/// How documents become words.
#[derive(Debug)]
pub enum Cutter {
    /// Byte-level style.
    ByteLevel {
        /// What is done to each document first.
        normal: Vec<Step>,
        /// How it is cut.
        cutting: Cutting,
    },
    /// SentencePiece style.
    Sentences(Sentences),
}

/// Counts of one thread, then of all.
#[derive(Debug, Default)]
pub struct Counted {
    /// How often each word was seen.
    pub words: WordCounts,
    /// Documents seen.
    pub documents: u64,
    /// UTF-8 bytes of text seen.
    pub bytes: u64,
    /// Lines left out.
    pub omitted: Omitted,
    /// Times rare words were forgotten to stay below `max_words`.
    pub prunings: u64,
}

impl Counted {
    /// Counts the words of a document.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub fn add(&mut self, cutter: &Cutter, text: &str, monitor: &Monitor) -> Result<()> {
        self.documents += 1;
        self.bytes += text.len() as u64;
        match cutter {
            Cutter::Sentences(sentences) => sentences.count(text, &mut self.words, &mut self.omitted, monitor),
            Cutter::ByteLevel { normal, cutting } => {
                let mut outcome = Ok(());
                cutting.each_section(&apply_all(normal, text), |section| {
                    if outcome.is_ok() {
                        outcome = self.add_words(cutting.words(), section.as_bytes(), monitor);
                    }
                });
                outcome
            }
        }
    }

    fn add_words(&mut self, words: &Steps, text: &[u8], monitor: &Monitor) -> Result<()> {
        let (mut feeder, mut cuts) = (self.words.feed(), Cuts::new(words, text));
        let (mut start, mut soon) = (0, CHECK_EVERY);
        while let Some((from, to)) = cuts.next(start) {
            feeder.add(text, from, to);
            start = to;
            if start > soon {
                monitor.check()?;
                soon = start + CHECK_EVERY;
            }
        }
        monitor.check()
    }

    /// Cuts the counted words further, where the cutter does so.
    fn refine(self, cutter: &Cutter) -> Self {
        let Cutter::ByteLevel { cutting, .. } = cutter else { return self };
        if cutting.within().0.is_empty() {
            return self;
        }
        let mut words = WordCounts::default();
        self.words.for_each(|word, count| cutting.within().for_each(word, |from, to| words.add(word, from, to, count)));
        Self { words, ..self }
    }

    /// Forgets the rarest words until at most `max_words` are left. This changes what is learnt: counts of words that
    /// come back later are too low.
    fn limit(&mut self, max_words: Option<usize>) {
        let Some(max_words) = max_words else { return };
        let mut least = 2;
        while self.words.len() > max_words {
            self.words.prune(least);
            least += 1;
            self.prunings += 1;
        }
    }

    /// Adds the counts of `other`.
    pub fn absorb(&mut self, other: Self) {
        self.words.absorb(other.words);
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.omitted.too_long += other.omitted.too_long;
        self.omitted.reserved += other.omitted.reserved;
        self.prunings += other.prunings;
    }
}

/// Counts the words of a corpus.
///
/// With `max_words` each thread forgets its rarest words whenever it holds more; memory is then bounded whatever the
/// corpus, but the counts are lower bounds and depend on how the documents fell to the threads. Without it the counts
/// are exact.
///
/// # Errors
/// Those of [`fold_documents`].
pub fn count_corpus(
    inputs: &Inputs,
    options: &ReadOptions,
    cutter: &Cutter,
    max_words: Option<usize>,
    threads: usize,
    monitor: &Monitor,
) -> Result<(Counted, ReadReport)> {
    let options = ReadOptions { phase: "count words", ..options.clone() };
    let fold = |counted: &mut Counted, batch: &crate::corpus::Batch| {
        for text in batch.texts() {
            counted.add(cutter, text, monitor)?;
        }
        counted.limit(max_words);
        Ok(())
    };
    let (states, report) = fold_documents(inputs, &options, threads, monitor, Counted::default, fold)?;
    let mut all = Counted::default();
    for state in states {
        all.absorb(state);
    }
    Ok((all.refine(cutter), report))
}

/// Counts the words of texts in memory; `max_words` as in [`count_corpus`].
///
/// # Errors
/// [`crate::Error::Interrupted`].
pub fn count_texts<T: AsRef<str> + Sync>(
    texts: &[T],
    cutter: &Cutter,
    max_words: Option<usize>,
    threads: usize,
    monitor: &Monitor,
) -> Result<Counted> {
    let count = |texts: &[T]| -> Result<Counted> {
        let mut counted = Counted::default();
        for text in texts {
            counted.add(cutter, text.as_ref(), monitor)?;
            monitor.advance(1)?;
        }
        counted.limit(max_words);
        Ok(counted)
    };
    let share = texts.len().div_ceil(threads.max(1)).max(1);
    let states = threads::each(texts.chunks(share), count);
    let mut all = Counted::default();
    for state in states {
        all.absorb(state?);
    }
    Ok(all.refine(cutter))
}
