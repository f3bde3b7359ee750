//! Word counts as a file: zstd, words in ascending order of their bytes, so that equal counts are equal files.
//!
//! Each entry is the word's length (`u32`), its count (`u64`), both little-endian, and its bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::WordCounts;
use crate::{Error, Monitor, Result};

const LEVEL: i32 = 3;
/// Longer words are damage: no document is.
const LONGEST: u32 = 1 << 30;
/// Entries between two looks at the monitor.
const CHECK_EVERY: u64 = 1 << 16;

struct Writer {
    path: PathBuf,
    file: Encoder<'static, io::BufWriter<File>>,
}

impl Writer {
    fn create(path: &Path) -> Result<Self> {
        let open = || {
            let mut file = Encoder::new(io::BufWriter::with_capacity(1 << 20, File::create(path)?), LEVEL)?;
            file.include_checksum(true).map(|()| file)
        };
        Ok(Self { path: path.to_owned(), file: open().map_err(|error| Error::io(path, error))? })
    }

    fn put(&mut self, word: &[u8], count: u64) -> Result<()> {
        let length = (word.len() as u32).to_le_bytes();
        let mut write =
            || [&length, &count.to_le_bytes()[..], word].iter().try_for_each(|part| self.file.write_all(part));
        write().map_err(|error| Error::io(&self.path, error))
    }

    fn finish(self) -> Result<()> {
        let finish = |file: Encoder<'static, io::BufWriter<File>>| file.finish()?.flush();
        finish(self.file).map_err(|error| Error::io(&self.path, error))
    }
}

struct Reader {
    path: PathBuf,
    file: BufReader<Decoder<'static, BufReader<File>>>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let open = || File::open(path).and_then(Decoder::new).map(|file| BufReader::with_capacity(1 << 20, file));
        Ok(Self { path: path.to_owned(), file: open().map_err(|error| Error::io(path, error))? })
    }

    /// The next word goes to `word`; its count, none at the end.
    fn next(&mut self, word: &mut Vec<u8>) -> Result<Option<u64>> {
        let damaged = |path: &Path| Error::data(path, "damaged word counts: count the words again");
        let mut head = [0; 12];
        let first = self.file.read(&mut head[..1]).map_err(|_| damaged(&self.path))?;
        if first == 0 {
            return Ok(None);
        }
        self.file.read_exact(&mut head[1..]).map_err(|_| damaged(&self.path))?;
        let [a, b, c, d, count @ ..] = head;
        let (length, count) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(count));
        if length == 0 || length > LONGEST || count == 0 {
            return Err(damaged(&self.path));
        }
        word.clear();
        let taken = (&mut self.file).take(u64::from(length)).read_to_end(word);
        if taken.ok() != Some(length as usize) {
            return Err(damaged(&self.path));
        }
        Ok(Some(count))
    }
}

/// Writes counts to a file.
///
/// # Errors
/// [`Error::Io`], [`Error::Interrupted`].
pub fn write_counts(words: &WordCounts, path: &Path, monitor: &Monitor) -> Result<()> {
    let (mut bytes, mut entries) = (Vec::with_capacity(words.total_bytes()), Vec::with_capacity(words.len()));
    words.for_each(|word, count| {
        entries.push((bytes.len(), word.len(), count));
        bytes.extend_from_slice(word);
    });
    let word = |&(start, length, _): &(usize, usize, u64)| &bytes[start..start + length];
    entries.sort_unstable_by(|a, b| word(a).cmp(word(b)));
    let mut writer = Writer::create(path)?;
    for (entry, number) in entries.iter().zip(0u64..) {
        if number % CHECK_EVERY == 0 {
            monitor.check()?;
        }
        writer.put(word(entry), entry.2)?;
    }
    writer.finish()
}

/// Adds the counts in a file to `words`.
///
/// # Errors
/// [`Error::Io`], [`Error::Data`] for a damaged file, [`Error::Interrupted`].
pub fn read_counts(path: &Path, words: &mut WordCounts, monitor: &Monitor) -> Result<()> {
    let (mut reader, mut word, mut number) = (Reader::open(path)?, Vec::new(), 0u64);
    while let Some(count) = reader.next(&mut word)? {
        words.add(&word, 0, word.len(), count);
        number += 1;
        if number.is_multiple_of(CHECK_EVERY) {
            monitor.check()?;
        }
    }
    Ok(())
}

/// Adds up files of counts into another, a word at a time. Different words in all.
///
/// # Errors
/// As [`read_counts`].
pub fn merge_counts(paths: &[PathBuf], out: &Path, monitor: &Monitor) -> Result<u64> {
    let mut readers = paths.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>>>()?;
    let (mut heap, mut writer, mut words) = (BinaryHeap::new(), Writer::create(out)?, 0u64);
    let mut refill = |heap: &mut BinaryHeap<_>, at: usize, mut word: Vec<u8>| -> Result<()> {
        if let Some(count) = readers[at].next(&mut word)? {
            heap.push(Reverse((word, at, count)));
        }
        Ok(())
    };
    (0..paths.len()).try_for_each(|at| refill(&mut heap, at, Vec::new()))?;
    while let Some(Reverse((word, at, mut count))) = heap.pop() {
        refill(&mut heap, at, Vec::new())?;
        while let Some(Reverse((next, _, _))) = heap.peek()
            && *next == word
            && let Some(Reverse((next, at, more))) = heap.pop()
        {
            count += more;
            refill(&mut heap, at, next)?;
        }
        writer.put(&word, count)?;
        words += 1;
        if words.is_multiple_of(CHECK_EVERY) {
            monitor.check()?;
        }
    }
    writer.finish()?;
    Ok(words)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn counts(words: &[Vec<u8>]) -> WordCounts {
        let mut counts = WordCounts::default();
        words.iter().for_each(|word| counts.add(word, 0, word.len(), 3));
        counts
    }

    proptest! {
        #[test]
        fn files_of_parts_add_up_to_the_file_of_all(
            words in prop::collection::vec(prop::collection::vec(0u8..4, 1..24), 0..200), cut in 0usize..200) {
            let monitor = Monitor::default();
            let folder = std::env::temp_dir().join(format!("langadapt-counts-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let cut = cut.min(words.len());
            let paths = ["left", "right", "all", "merged"].map(|name| folder.join(name));
            for (part, path) in [&words[..cut], &words[cut..], &words[..]].into_iter().zip(&paths) {
                write_counts(&counts(part), path, &monitor).unwrap();
            }
            let different = merge_counts(&paths[..2], &paths[3], &monitor).unwrap();
            let bytes = |path| std::fs::read(path).unwrap();
            prop_assert_eq!(bytes(&paths[2]), bytes(&paths[3]));
            let (mut read, mut found) = (WordCounts::default(), BTreeMap::new());
            read_counts(&paths[3], &mut read, &monitor).unwrap();
            read.for_each(|word, count| { found.insert(word.to_vec(), count); });
            let mut expected = BTreeMap::new();
            words.iter().for_each(|word| *expected.entry(word.clone()).or_insert(0) += 3);
            prop_assert_eq!(different, expected.len() as u64);
            prop_assert_eq!(found, expected);
            // Cut off or altered, it is refused.
            let whole = bytes(&paths[3]);
            std::fs::write(&paths[3], &whole[..whole.len() - 1]).unwrap();
            prop_assert!(read_counts(&paths[3], &mut WordCounts::default(), &monitor).is_err());
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}
