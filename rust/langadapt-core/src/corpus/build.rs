//! Files to one training and one validation file: filtered, without duplicates, split by hash.
//!
//! The files are the same bytes whatever the number of threads: workers judge the texts alone, one thread then takes
//! them in document order, and zstd cuts its jobs by size, not by worker.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

use super::duplicates::{Bands, MinHash, Seen};
use super::sift::{Dropped, Filters};
use super::split::{Candidate, Split};
use super::{Batch, Inputs, ReadOptions, ReadReport, json, map_documents};
use crate::{Error, Monitor, Result};

/// zstd's own default: 3 % larger than level 6 at three times its speed.
const LEVEL: i32 = 3;
/// Bytes that a compressing thread takes at a time. Jobs under way are finished even on a stop, so a job is short;
/// zstd's own size, four windows, takes 50 ms and more.
const JOB: u32 = 1 << 20;

/// What is left out and what is set aside.
#[derive(Debug, Clone, Default)]
pub struct BuildSettings {
    /// Texts left out.
    pub filters: Filters,
    /// Share of the documents set aside for validation, 0 to 1; above 0, at least one document is.
    pub validation_share: f64,
    /// At most so many UTF-8 bytes of text are set aside.
    pub validation_bytes: Option<u64>,
    /// At most so many documents are set aside.
    pub validation_documents: Option<u64>,
}

/// Documents and UTF-8 bytes of their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitCount {
    /// Documents.
    pub documents: u64,
    /// UTF-8 bytes of text.
    pub bytes: u64,
}

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
/// that fit the limits. Document order is kept within both files, except that documents which a limit pushed out of
/// the validation text follow at that point.
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
    let share = settings.validation_share;
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::argument(format!("validation_share: {share} is not in 0..=1")));
    }
    let hashes = settings.filters.near_duplicates.then(MinHash::new);
    let mut builder = Builder {
        exact: settings.filters.exact_duplicates,
        seen: Seen::default(),
        split: Split::new(share, settings.validation_bytes, settings.validation_documents),
        dropped: Dropped::default(),
        documents: 0,
        train: LineWriter::create(folder.join("train.jsonl.zst"), threads)?,
    };
    let sift = |(): &mut (), batch: &Batch| sift_batch(&settings.filters, hashes.as_ref(), batch, monitor);
    let read = map_documents(inputs, options, threads, monitor, || (), sift, |sifted| builder.take(&sifted, monitor))?;
    builder.finish(read, || LineWriter::create(folder.join("validation.jsonl.zst"), threads), monitor)
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

struct Builder {
    exact: bool,
    seen: Seen,
    split: Split,
    dropped: Dropped,
    documents: u64,
    train: LineWriter,
}

impl Builder {
    fn take(&mut self, sifted: &Sifted, monitor: &Monitor) -> Result<()> {
        self.dropped.add(&sifted.dropped);
        let mut start = 0;
        for text in &sifted.passed {
            let line = &sifted.lines[start..text.end];
            start = text.end;
            if self.exact && self.seen.is_repeat(text.hash) {
                self.dropped.exact_duplicate += 1;
                continue;
            }
            if text.bands.as_ref().is_some_and(|bands| self.seen.resembles(bands)) {
                self.dropped.near_duplicate += 1;
                continue;
            }
            self.documents += 1;
            let document =
                Candidate { key: text.hash as u64, number: self.documents, bytes: text.bytes, line: line.to_vec() };
            self.split.offer(document, |document| self.train.put(&document, monitor))?;
        }
        Ok(())
    }

    fn finish(
        mut self,
        read: ReadReport,
        validation: impl FnOnce() -> Result<LineWriter>,
        monitor: &Monitor,
    ) -> Result<BuildReport> {
        if self.documents == 0 {
            let (all, why) = (read.documents, self.dropped.describe());
            return Err(Error::argument(format!(
                "no document left: the filters dropped all {all} ({why}); loosen them"
            )));
        }
        let (held, left) = self.split.finish();
        left.iter().try_for_each(|document| self.train.put(document, monitor))?;
        let train = self.train.finish()?;
        // Only now, as both files' compressing threads together may be more than the system gives.
        let mut validation = validation()?;
        held.iter().try_for_each(|document| validation.put(document, monitor))?;
        Ok(BuildReport { read, dropped: self.dropped, train, validation: validation.finish()? })
    }
}

/// A zstd file of lines.
struct LineWriter {
    path: PathBuf,
    encoder: Encoder<'static, File>,
    count: SplitCount,
}

impl LineWriter {
    fn create(path: PathBuf, threads: usize) -> Result<Self> {
        let fail = |error| Error::io(&path, error);
        let start = |workers: u32| {
            let mut encoder = Encoder::new(File::create(&path)?, LEVEL)?;
            encoder.include_checksum(true)?;
            encoder.multithread(workers)?;
            encoder.set_parameter(CParameter::JobSize(JOB))?;
            // Starts the workers now, while threads may still be had.
            encoder.write(&[]).map(|_| encoder)
        };
        // Never zero: without workers zstd makes other bytes than with any number of them.
        let mut workers = u32::try_from(threads.max(1)).unwrap_or(1);
        let encoder = loop {
            match start(workers) {
                Err(error) if workers == 1 || error.raw_os_error().is_some() => return Err(fail(error)),
                Err(_) => workers /= 2,
                Ok(encoder) => break encoder,
            }
        };
        Ok(Self { path, encoder, count: SplitCount::default() })
    }

    fn put(&mut self, document: &Candidate, monitor: &Monitor) -> Result<()> {
        self.count.documents += 1;
        self.count.bytes += document.bytes;
        for part in document.line.chunks(JOB as usize) {
            monitor.check()?;
            self.encoder.write_all(part).map_err(|error| Error::io(&self.path, error))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<SplitCount> {
        self.encoder.finish().map_err(|error| Error::io(&self.path, error))?;
        Ok(self.count)
    }
}
