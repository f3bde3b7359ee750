//! The files of a corpus: frames of training text, and what was put aside until all is known.
//!
//! `train.jsonl.zst` is frames (see `frames.rs`) for each block of input files, then others with the documents that
//! were put aside but not chosen. A block's frames depend on it alone, so a corpus that was made in shards is put
//! together by copying.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::frames::{Frames, LEVEL, STEP, SplitCount};
use super::split::{Block, Choice, Held, Line, Rule, Way};
use crate::{Error, Monitor, Result};

const TRAIN: &str = "train.jsonl.zst";
const VALIDATION: &str = "validation.jsonl.zst";
const ASIDE: &str = "aside.jsonl.zst";
const ASIDE_KEYS: &str = "aside.bin";

/// Lines of a zstd file with what is known of each.
pub(super) struct Lines {
    path: PathBuf,
    lines: BufReader<Decoder<'static, BufReader<File>>>,
    numbers: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    pub fn open(folder: &Path, lines: &str, numbers: &str) -> Result<Self> {
        let path = folder.join(lines);
        let open = || -> io::Result<_> {
            let decoder = Decoder::new(File::open(&path)?)?;
            let numbers = File::open(folder.join(numbers))?;
            Ok((BufReader::with_capacity(1 << 20, decoder), BufReader::with_capacity(1 << 20, numbers)))
        };
        let (lines, numbers) = open().map_err(|error| Error::io(&path, error))?;
        Ok(Self { path, lines, numbers, line: Vec::new() })
    }

    /// The next line; `None` behind the last.
    pub fn next(&mut self) -> Result<Option<Line<'_>>> {
        let Some([key, bytes]) = read_numbers(&mut self.numbers).map_err(|error| Error::io(&self.path, error))? else {
            return Ok(None);
        };
        self.line.clear();
        self.lines.read_until(b'\n', &mut self.line).map_err(|error| Error::io(&self.path, error))?;
        if self.line.last() != Some(&b'\n') {
            return Err(Error::data(&self.path, "shorter than its list of documents: make this part again"));
        }
        Ok(Some(Line { key, bytes, line: &self.line }))
    }
}

/// The next `N` numbers; `None` at the end of the file.
pub(super) fn read_numbers<const N: usize>(file: &mut impl BufRead) -> io::Result<Option<[u64; N]>> {
    if file.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        file.read_exact(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
    }
    Ok(Some(numbers))
}

/// A file of numbers, little-endian.
pub(super) struct Numbers {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Numbers {
    pub fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file) })
    }

    pub fn put(&mut self, numbers: &[u64]) -> Result<()> {
        let mut write = || numbers.iter().try_for_each(|number| self.file.write_all(&number.to_le_bytes()));
        write().map_err(|error| Error::io(&self.path, error))
    }

    pub fn finish(mut self) -> Result<()> {
        self.file.flush().map_err(|error| Error::io(&self.path, error))
    }
}

/// Takes the documents of a corpus, block after block.
pub(super) struct Sink {
    folder: PathBuf,
    rule: Rule,
    block: Block,
    train: Frames,
    threads: usize,
    aside: Encoder<'static, File>,
    keys: Numbers,
    /// Documents taken.
    pub documents: u64,
    /// Folders of finished parts whose documents were put aside before those of this one.
    before: Vec<PathBuf>,
}

impl Sink {
    pub fn create(folder: &Path, rule: Rule, threads: usize) -> Result<Self> {
        let path = folder.join(ASIDE);
        let mut aside =
            File::create(&path).and_then(|file| Encoder::new(file, LEVEL)).map_err(|error| Error::io(&path, error))?;
        aside.include_checksum(true).map_err(|error| Error::io(&path, error))?;
        let train = Frames::create(folder.join(TRAIN), LEVEL, threads)?;
        Ok(Self {
            folder: folder.to_owned(),
            rule,
            block: Block::default(),
            train,
            threads,
            aside,
            keys: Numbers::create(folder.join(ASIDE_KEYS))?,
            documents: 0,
            before: Vec::new(),
        })
    }

    pub fn offer(&mut self, document: Line<'_>, monitor: &Monitor) -> Result<()> {
        self.documents += 1;
        let Self { block, rule, train, aside, keys, folder, .. } = self;
        block.offer(rule, document, |way, line| put(way, line, train, aside, keys, folder, monitor))
    }

    pub fn end_block(&mut self, monitor: &Monitor) -> Result<()> {
        let Self { block, train, aside, keys, folder, .. } = self;
        block.end(|way, line| put(way, line, train, aside, keys, folder, monitor))?;
        self.train.end(monitor)
    }

    /// Takes over the blocks of a finished part of `documents` documents.
    pub fn append(&mut self, part: &Path, train: SplitCount, documents: u64, monitor: &Monitor) -> Result<()> {
        self.train.append(&part.join(TRAIN), train, monitor)?;
        self.documents += documents;
        self.before.push(part.to_owned());
        Ok(())
    }

    /// Ends a part; what was put aside stays aside.
    pub fn finish_part(mut self, monitor: &Monitor) -> Result<SplitCount> {
        self.end_block(monitor)?;
        let path = self.folder.join(ASIDE);
        self.aside.finish().map_err(|error| Error::io(&path, error))?;
        self.keys.finish()?;
        self.train.finish_part(monitor)
    }

    /// Ends the corpus: chooses among what was put aside. Counts of training and validation text.
    pub fn finish(mut self, monitor: &Monitor) -> Result<(SplitCount, SplitCount)> {
        self.end_block(monitor)?;
        let Self { folder, rule, mut train, threads, aside, keys, documents, mut before, .. } = self;
        let fail = |error| Error::io(folder.join(ASIDE), error);
        aside.finish().map_err(fail)?;
        keys.finish()?;
        before.push(folder.clone());
        let mut choice = Choice::new(rule);
        for part in &before {
            let file = File::open(part.join(ASIDE_KEYS)).map_err(fail)?;
            let mut keys = BufReader::with_capacity(1 << 20, file);
            while let Some([key, bytes]) = read_numbers(&mut keys).map_err(fail)? {
                choice.note(key, bytes);
            }
        }
        let held = choice.finish(documents);
        let write = |to: &mut Frames, wanted: bool| {
            before.iter().try_for_each(|part| write_some(part, &rule, held, wanted, to, monitor))
        };
        write(&mut train, false)?;
        let trained = train.finish(monitor)?;
        let mut validation = Frames::create(folder.join(VALIDATION), LEVEL, threads)?;
        write(&mut validation, true)?;
        for name in [ASIDE, ASIDE_KEYS] {
            fs::remove_file(folder.join(name)).map_err(fail)?;
        }
        Ok((trained, validation.finish(monitor)?))
    }
}

fn put(
    way: Way,
    document: Line<'_>,
    train: &mut Frames,
    aside: &mut Encoder<'static, File>,
    keys: &mut Numbers,
    folder: &Path,
    monitor: &Monitor,
) -> Result<()> {
    if way == Way::Train {
        return train.put(document.bytes, document.line, monitor);
    }
    for part in document.line.chunks(STEP) {
        monitor.check()?;
        aside.write_all(part).map_err(|error| Error::io(folder.join(ASIDE), error))?;
    }
    keys.put(&[document.key, document.bytes])
}

/// The documents of a part that were put aside and are held, or those that are not.
fn write_some(part: &Path, rule: &Rule, held: Held, wanted: bool, to: &mut Frames, monitor: &Monitor) -> Result<()> {
    let mut lines = Lines::open(part, ASIDE, ASIDE_KEYS)?;
    while let Some(Line { key, bytes, line }) = lines.next()? {
        if held.holds(rule, key, bytes) == wanted {
            to.put(bytes, line, monitor)?;
        }
    }
    Ok(())
}
