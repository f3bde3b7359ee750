//! Files to one training and one validation file: filtered, without duplicates, split by hash.
//!
//! The files are the same bytes whatever the number of threads: workers judge the texts alone, one thread then takes
//! them in document order, and frames are cut by size, not by worker. They are the same bytes whatever the number
//! of shards, too: see `parts.rs`.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use super::duplicates::{Bands, MinHash, Seen};
use super::frames::SplitCount;
use super::parts::{Hashes, Undecided};
use super::settings::{BuildSettings, rule_of};
use super::sift::{Dropped, Filters};
use super::sink::Sink;
use super::split::Line;
use super::{Batch, Inputs, ReadOptions, ReadReport, json, map_documents};
use crate::{Error, Monitor, Result};

/// What became of the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildReport {
    /// What was read, before any filter.
    pub read: ReadReport,
    /// What the filters left out.
    pub dropped: Dropped,
    /// What went to `train.jsonl.zst`.
    pub train: SplitCount,
    /// What went to `validation.jsonl.zst`.
    pub validation: SplitCount,
}

/// A text that passed the filters of [`Filters::sift`].
struct Passed {
    hash: u128,
    bytes: u64,
    bands: Option<Bands>,
    /// End of its line in [`Sifted::lines`].
    end: usize,
}

#[derive(Default)]
struct Sifted {
    lines: Vec<u8>,
    passed: Vec<Passed>,
    dropped: Dropped,
}

/// Writes `train.jsonl.zst` and `validation.jsonl.zst`, one line `{"text": ...}` per document, into `folder`.
///
/// A document is set aside if the lower half of its XXH3-128 is below `validation_share` of 2^64 and among the smallest
/// that fit the limits. Document order is kept within both files, except that documents which a limit kept out of
/// the validation text stand at the end of the training text.
///
/// # Errors
/// Those of [`map_documents`]; [`Error::Argument`] for a share outside `0.0..=1.0` and if the filters leave
/// nothing; [`Error::Io`] on writing.
pub fn build(
    inputs: &Inputs,
    options: &ReadOptions,
    settings: &BuildSettings,
    folder: &Path,
    threads: usize,
    monitor: &Monitor,
) -> Result<BuildReport> {
    let sink = Sink::create(folder, rule_of(settings)?, threads)?;
    let (read, builder) = run(inputs, options, settings, threads, Builder::new(settings, sink, None), monitor)?;
    let dropped = builder.dropped;
    match builder.out {
        Out::Decided(sink, _) if sink.documents > 0 => {
            let (train, validation) = sink.finish(monitor)?;
            Ok(BuildReport { read, dropped, train, validation })
        }
        _ => {
            let (all, why) = (read.documents, dropped.describe());
            Err(Error::argument(format!("no document left: the filters dropped all {all} ({why}); loosen them")))
        }
    }
}

/// A shard's part of what [`build`] writes, to be put together by [`super::join`]; `first` says that no shard is before
/// it. Returns what was read and left out, the training text that is finished, and how many documents passed.
///
/// # Errors
/// As [`build`], but a part may be empty.
pub fn build_part(
    inputs: &Inputs,
    options: &ReadOptions,
    settings: &BuildSettings,
    folder: &Path,
    first: bool,
    threads: usize,
    monitor: &Monitor,
) -> Result<(ReadReport, Dropped, SplitCount, u64)> {
    let rule = rule_of(settings)?;
    let filters = &settings.filters;
    let deduplicates = filters.exact_duplicates || filters.near_duplicates;
    let hashes = deduplicates.then(Hashes::default);
    let builder = if first || !deduplicates {
        Builder::new(settings, Sink::create(folder, rule, threads)?, hashes)
    } else {
        Builder {
            out: Out::Undecided(Undecided::create(folder, threads)?, Hashes::default()),
            ..Builder::without(settings)
        }
    };
    let options = ReadOptions { allow_empty: true, ..options.clone() };
    let (read, builder) = run(inputs, &options, settings, threads, builder, monitor)?;
    let (dropped, documents) = (builder.dropped, builder.documents);
    let train = match builder.out {
        Out::Decided(sink, hashes) => {
            hashes.map(|hashes| hashes.write(folder)).transpose()?;
            sink.finish_part(monitor)?
        }
        Out::Undecided(undecided, hashes) => {
            hashes.write(folder)?;
            undecided.finish(monitor)?;
            SplitCount::default()
        }
        Out::Nowhere => SplitCount::default(),
    };
    Ok((read, dropped, train, documents))
}

fn run(
    inputs: &Inputs,
    options: &ReadOptions,
    settings: &BuildSettings,
    threads: usize,
    mut builder: Builder,
    monitor: &Monitor,
) -> Result<(ReadReport, Builder)> {
    let hashes = settings.filters.near_duplicates.then(MinHash::new);
    let blocks = inputs.blocks(settings.block_bytes);
    let sift = |(): &mut (), batch: &Batch| {
        let block = blocks.get(batch.source).copied().unwrap_or(0);
        sift_batch(&settings.filters, hashes.as_ref(), batch, monitor).map(|sifted| (block, sifted))
    };
    let emit = |(block, sifted): (usize, Sifted)| builder.take(block, &sifted, monitor);
    let read = map_documents(inputs, options, threads, monitor, || (), sift, emit)?;
    Ok((read, builder))
}

fn sift_batch(filters: &Filters, hashes: Option<&MinHash>, batch: &Batch, monitor: &Monitor) -> Result<Sifted> {
    let mut sifted = Sifted::default();
    for text in batch.texts() {
        monitor.check()?;
        if let Some(words) = filters.sift(text, &mut sifted.dropped, monitor)? {
            json::write_line(text, &mut sifted.lines);
            sifted.passed.push(Passed {
                hash: xxh3_128(text.as_bytes()),
                bytes: text.len() as u64,
                bands: hashes.map(|hashes| hashes.bands(&words, monitor)).transpose()?.flatten(),
                end: sifted.lines.len(),
            });
        }
    }
    Ok(sifted)
}

/// Where documents go.
enum Out {
    /// To the corpus, or to a part of it that no other can change; with their hashes where other parts ask for them.
    Decided(Sink, Option<Hashes>),
    /// To a part that waits for others.
    Undecided(Undecided, Hashes),
    Nowhere,
}

struct Builder {
    exact: bool,
    seen: Seen,
    dropped: Dropped,
    /// Documents that passed.
    documents: u64,
    block: usize,
    out: Out,
}

impl Builder {
    fn new(settings: &BuildSettings, sink: Sink, hashes: Option<Hashes>) -> Self {
        Self { out: Out::Decided(sink, hashes), ..Self::without(settings) }
    }

    fn without(settings: &BuildSettings) -> Self {
        Self {
            exact: settings.filters.exact_duplicates,
            seen: Seen::default(),
            dropped: Dropped::default(),
            documents: 0,
            block: 0,
            out: Out::Nowhere,
        }
    }

    fn take(&mut self, block: usize, sifted: &Sifted, monitor: &Monitor) -> Result<()> {
        // Also those without a document: blocks are counted.
        while self.block < block {
            self.block += 1;
            match &mut self.out {
                Out::Decided(sink, _) => sink.end_block(monitor)?,
                Out::Undecided(undecided, _) => undecided.end_block()?,
                Out::Nowhere => {}
            }
        }
        self.dropped.add(&sifted.dropped);
        let mut start = 0;
        for text in &sifted.passed {
            let document = Line { key: text.hash as u64, bytes: text.bytes, line: &sifted.lines[start..text.end] };
            start = text.end;
            if self.exact && self.seen.is_repeat(text.hash) {
                self.dropped.exact_duplicate += 1;
                continue;
            }
            self.pass(text, document, monitor)?;
        }
        Ok(())
    }

    /// A text that is no repeat of another in this part.
    fn pass(&mut self, text: &Passed, document: Line<'_>, monitor: &Monitor) -> Result<()> {
        let place = self.documents;
        match &mut self.out {
            Out::Decided(sink, hashes) => {
                let resembles = text.bands.as_ref().is_some_and(|bands| self.seen.resembles(bands));
                if let Some(hashes) = hashes {
                    hashes.note(self.exact.then_some(text.hash), text.bands.as_ref(), (!resembles).then_some(place));
                }
                if resembles {
                    self.dropped.near_duplicate += 1;
                    return Ok(());
                }
                sink.offer(document, monitor)?;
            }
            Out::Undecided(undecided, hashes) => {
                hashes.note(self.exact.then_some(text.hash), text.bands.as_ref(), Some(place));
                undecided.put(document, monitor)?;
            }
            Out::Nowhere => {}
        }
        self.documents += 1;
        Ok(())
    }
}
