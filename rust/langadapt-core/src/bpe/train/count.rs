//! Documents to word counts on several threads.

use super::sentence::{Omitted, Sentences};
use super::words::WordCounts;
use crate::bpe::normalize::{Form, apply_all};
use crate::corpus::{Inputs, ReadOptions, ReadReport, fold_documents};
use crate::pretokenize::Pattern;
use crate::{Monitor, Result, threads};

/// Documents above this many bytes are counted with looks at the monitor in between; smaller ones take 30 ms at most.
const LARGE: usize = 4 << 20;

/// How documents become words.
#[derive(Debug)]
pub enum Cutter {
    /// Byte-level style: the pieces of a regex.
    Regex {
        /// The regex.
        pattern: Pattern,
        /// Unicode normalization of each document.
        forms: Vec<Form>,
        /// Whether a document that does not begin with a space gets one.
        add_prefix_space: bool,
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
            Cutter::Regex { pattern, forms, add_prefix_space } => {
                let text = apply_all(forms, text);
                if *add_prefix_space && !text.is_empty() && !text.starts_with(' ') {
                    self.add_pieces(*pattern, &format!(" {text}"), monitor)
                } else {
                    self.add_pieces(*pattern, &text, monitor)
                }
            }
        }
    }

    fn add_pieces(&mut self, pattern: Pattern, text: &str, monitor: &Monitor) -> Result<()> {
        let bytes = text.as_bytes();
        let mut feeder = self.words.feed();
        if text.len() < LARGE {
            pattern.for_each_span(text, |start, end| feeder.add(bytes, start, end));
            return monitor.check();
        }
        // The same a little slower, but it can be stopped within a huge document.
        let (mut start, mut pieces) = (0, 0);
        while start < bytes.len() {
            let end = pattern.next(text, start);
            feeder.add(bytes, start, end);
            start = end;
            pieces += 1;
            if pieces % (1 << 16) == 0 {
                monitor.check()?;
            }
        }
        Ok(())
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
    Ok((all, report))
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
    Ok(all)
}
