//! A corpus in shards: parts that know nothing of each other, and one step that makes of them what one machine makes.
//!
//! A part whose documents cannot be duplicates of earlier ones is finished at once: frames of training text, to be
//! copied, and what was put aside. That is every part where no duplicates are looked for, and the first part always.
//! Any other part keeps its documents in order until it is known which were seen before: `undecided.jsonl.zst`,
//! `undecided.bin` (key and bytes of each), `blocks.bin` (documents of each block).
//!
//! Who was seen before is found by shuffles. A part leaves its hashes sorted: `exact.bin` (hash, document) and
//! `bands.bin` (band, document). [`join`] takes a range of hashes from all parts at a time; documents alone in theirs,
//! nearly all, need no further look. Of equal texts the first stays. Texts that share a band are gone through in
//! document order, and one is dropped when an earlier one that was kept is in a group with it: what
//! [`super::build`] does, without its tables.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::duplicates::Bands;
use super::frames::{Frames, PASSING, SplitCount};
use super::settings::{BuildSettings, rule_of};
use super::sift::Dropped;
use super::sink::{Lines, Numbers, Sink, read_numbers};
use super::split::Line;
use crate::{Error, Monitor, Result, threads};

const UNDECIDED: &str = "undecided.jsonl.zst";
const UNDECIDED_KEYS: &str = "undecided.bin";
const BLOCKS: &str = "blocks.bin";
const EXACT: &str = "exact.bin";
const BANDS: &str = "bands.bin";
/// Ranges of hashes, by their first byte: memory is that of one range for each thread.
const RANGES: usize = 256;

/// A part of a corpus.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its folder.
    pub folder: PathBuf,
    /// What its training text holds, if it is finished.
    pub train: SplitCount,
    /// Documents that passed its filters.
    pub documents: u64,
}

/// What became of the documents of all parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Duplicates of documents in other parts.
    pub dropped: Dropped,
    /// What went to `train.jsonl.zst`.
    pub train: SplitCount,
    /// What went to `validation.jsonl.zst`.
    pub validation: SplitCount,
}

/// Documents that wait for what other parts hold.
pub(super) struct Undecided {
    lines: Frames,
    keys: Numbers,
    blocks: Numbers,
    in_block: u64,
}

impl Undecided {
    pub fn create(folder: &Path, threads: usize) -> Result<Self> {
        Ok(Self {
            lines: Frames::create(folder.join(UNDECIDED), PASSING, threads)?,
            keys: Numbers::create(folder.join(UNDECIDED_KEYS))?,
            blocks: Numbers::create(folder.join(BLOCKS))?,
            in_block: 0,
        })
    }

    pub fn put(&mut self, document: Line<'_>, monitor: &Monitor) -> Result<()> {
        self.in_block += 1;
        self.keys.put(&[document.key, document.bytes])?;
        self.lines.put(document.bytes, document.line, monitor)
    }

    pub fn end_block(&mut self) -> Result<()> {
        self.blocks.put(&[std::mem::take(&mut self.in_block)])
    }

    pub fn finish(mut self, monitor: &Monitor) -> Result<()> {
        self.lines.finish_part(monitor)?;
        self.end_block()?;
        self.keys.finish()?;
        self.blocks.finish()
    }
}

/// Hashes of a part's documents, for the other parts.
#[derive(Default)]
pub(super) struct Hashes {
    exact: Vec<[u64; 3]>,
    bands: Vec<[u64; 2]>,
}

impl Hashes {
    /// Notes a text by its hash, if wanted, and its bands; one that is left out already has no place.
    pub fn note(&mut self, hash: Option<u128>, bands: Option<&Bands>, place: Option<u64>) {
        self.exact.extend(hash.map(|hash| [(hash >> 64) as u64, hash as u64, place.unwrap_or(u64::MAX)]));
        if let (Some(bands), Some(place)) = (bands, place) {
            self.bands.extend(bands.iter().map(|&band| [band, place]));
        }
    }

    pub fn write(self, folder: &Path) -> Result<()> {
        write_sorted(folder.join(EXACT), self.exact)?;
        write_sorted(folder.join(BANDS), self.bands)
    }
}

fn write_sorted<const N: usize>(path: PathBuf, mut entries: Vec<[u64; N]>) -> Result<()> {
    entries.sort_unstable();
    let mut file = Numbers::create(path)?;
    entries.iter().try_for_each(|entry| file.put(entry))?;
    file.finish()
}

/// Sorted entries of a part, mapped into memory.
struct Sorted<const N: usize> {
    map: Option<Mmap>,
}

impl<const N: usize> Sorted<N> {
    fn open(path: &Path) -> Result<Self> {
        let fail = |error| Error::io(path, error);
        let file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if !size.is_multiple_of(8 * N as u64) {
            return Err(Error::data(path, "damaged: make this part again"));
        }
        // SAFETY: parts are written into a folder of another name and renamed when whole; nothing writes to them after.
        let map = if size == 0 { None } else { Some(unsafe { Mmap::map(&file) }.map_err(fail)?) };
        Ok(Self { map })
    }

    fn entries(&self) -> &[[u64; N]] {
        self.map.as_deref().map_or(&[], |bytes| bytemuck::cast_slice::<u8, u64>(bytes).as_chunks().0)
    }

    /// Those whose hash begins with a byte.
    fn range(&self, first: usize) -> &[[u64; N]] {
        let entries = self.entries();
        let place = |first: usize| entries.partition_point(|entry| ((entry[0] >> 56) as usize) < first);
        &entries[place(first)..place(first + 1)]
    }
}

/// A document: its part, its place there.
type Place = (u32, u64);

/// Calls `group` with the documents of each hash that several have, in document order; what it returns of each range.
fn groups<const N: usize, T: Send>(
    parts: &[Sorted<N>],
    threads: usize,
    monitor: &Monitor,
    group: impl Fn(&mut Vec<T>, usize, &[([u64; N], u32)]) + Sync,
) -> Result<Vec<T>> {
    let share = RANGES.div_ceil(threads.clamp(1, RANGES));
    let ranges: Vec<usize> = (0..RANGES).collect();
    let found = threads::each(ranges.chunks(share), |ranges| -> Result<Vec<T>> {
        let mut found = Vec::new();
        for &range in ranges {
            monitor.check()?;
            let all = parts.iter().zip(0u32..);
            let mut entries: Vec<([u64; N], u32)> =
                all.flat_map(|(part, at)| part.range(range).iter().map(move |&entry| (entry, at))).collect();
            let hash = |entry: &([u64; N], u32)| -> [u64; N] {
                std::array::from_fn(|n| if n + 1 < N { entry.0[n] } else { 0 })
            };
            entries.sort_unstable_by_key(|entry| (hash(entry), entry.1, entry.0[N - 1]));
            entries.dedup();
            for (number, same) in entries.chunk_by(|a, b| hash(a) == hash(b)).filter(|same| same.len() > 1).enumerate()
            {
                group(&mut found, range << 48 | number, same);
            }
        }
        Ok(found)
    });
    found.into_iter().collect::<Result<Vec<_>>>().map(|found| found.into_iter().flatten().collect())
}

/// The documents that were seen in earlier parts, sorted; and how many by which rule.
fn duplicates(
    parts: &[Part],
    settings: &BuildSettings,
    threads: usize,
    monitor: &Monitor,
) -> Result<(Vec<Place>, Dropped)> {
    let mut dropped = Dropped::default();
    let mut gone: Vec<Place> = Vec::new();
    if settings.filters.exact_duplicates {
        let open = |part: &Part| Sorted::<3>::open(&part.folder.join(EXACT));
        let sorted = parts.iter().map(open).collect::<Result<Vec<_>>>()?;
        gone = groups(&sorted, threads, monitor, |found, _, same| {
            found.extend(same[1..].iter().map(|&(entry, part)| (part, entry[2])));
        })?;
        gone.sort_unstable();
        dropped.exact_duplicate = gone.len() as u64;
    }
    if settings.filters.near_duplicates {
        let open = |part: &Part| Sorted::<2>::open(&part.folder.join(BANDS));
        let sorted = parts.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut shared: Vec<(Place, usize)> = groups(&sorted, threads, monitor, |found, number, same| {
            found.extend(same.iter().map(|&(entry, part)| ((part, entry[1]), number)));
        })?;
        shared.sort_unstable();
        let (mut taken, mut near) = (HashSet::new(), Vec::new());
        for document in shared.chunk_by(|a, b| a.0 == b.0) {
            let place = document[0].0;
            if gone.binary_search(&place).is_ok() {
                continue;
            }
            if document.iter().any(|(_, group)| taken.contains(group)) {
                near.push(place);
            } else {
                taken.extend(document.iter().map(|&(_, group)| group));
            }
        }
        dropped.near_duplicate = near.len() as u64;
        gone.extend(near);
        gone.sort_unstable();
    }
    Ok((gone, dropped))
}

/// Writes the files of [`super::build`] from the parts of all its shards, in order, byte for byte.
///
/// # Errors
/// [`Error::Argument`] if no document is left; [`Error::Io`], [`Error::Data`] for a part that is not whole.
pub fn join(
    parts: &[Part],
    settings: &BuildSettings,
    folder: &Path,
    threads: usize,
    monitor: &Monitor,
) -> Result<Joined> {
    let filters = &settings.filters;
    let deduplicates = parts.len() > 1 && (filters.exact_duplicates || filters.near_duplicates);
    let (gone, dropped) =
        if deduplicates { duplicates(parts, settings, threads, monitor)? } else { Default::default() };
    monitor.begin("merge", "bytes", None);
    let mut sink = Sink::create(folder, rule_of(settings)?, threads)?;
    for (part, number) in parts.iter().zip(0u32..) {
        if deduplicates && number > 0 {
            let from = gone.partition_point(|place| place.0 < number);
            let to = gone.partition_point(|place| place.0 <= number);
            settle(part, &gone[from..to], &mut sink, monitor)?;
        } else {
            sink.append(&part.folder, part.train, part.documents, monitor)?;
        }
    }
    if sink.documents == 0 {
        return Err(Error::argument("no document left: the filters dropped all of all parts; loosen them"));
    }
    let (train, validation) = sink.finish(monitor)?;
    Ok(Joined { dropped, train, validation })
}

/// Hands on the documents of a part but those that are gone.
fn settle(part: &Part, gone: &[Place], sink: &mut Sink, monitor: &Monitor) -> Result<()> {
    let path = part.folder.join(BLOCKS);
    let fail = |error| Error::io(&path, error);
    let mut blocks = BufReader::new(File::open(&path).map_err(fail)?);
    let mut lines = Lines::open(&part.folder, UNDECIDED, UNDECIDED_KEYS)?;
    let (mut gone, mut place) = (gone.iter().map(|place| place.1).peekable(), 0);
    while let Some([documents]) = read_numbers(&mut blocks).map_err(fail)? {
        for _ in 0..documents {
            let Some(document) = lines.next()? else {
                return Err(Error::data(&path, "lists more documents than there are: make this part again"));
            };
            monitor.advance(document.line.len() as u64)?;
            if gone.next_if_eq(&place).is_none() {
                sink.offer(document, monitor)?;
            }
            place += 1;
        }
        sink.end_block(monitor)?;
    }
    Ok(())
}
