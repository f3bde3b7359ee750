//! The token store: ids of a corpus on disk, read through a memory map.
//!
//! Two files: `tokens.bin` holds the ids of all documents in a row, `uint16` where the vocabulary has at most 65,536
//! entries and `uint32` otherwise; `offsets.bin` holds one more `uint64` than there are documents, document `i` being
//! the ids `offsets[i]..offsets[i + 1]`. Both are little-endian. Documents stand without special tokens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::bpe::{CachePool, NativeTokenizer};
use crate::corpus::{Inputs, ReadOptions, ReadReport, map_documents};
use crate::{Error, Monitor, Result};

#[cfg(target_endian = "big")]
compile_error!("stores are mapped as little-endian arrays");

/// Name of the file of ids.
pub const TOKENS: &str = "tokens.bin";
/// Name of the file of document borders.
pub const OFFSETS: &str = "offsets.bin";
/// Vocabularies up to this size are stored as `uint16`.
pub const NARROW_LIMIT: usize = 1 << 16;

/// Writes a store, document after document.
#[derive(Debug)]
pub struct StoreWriter {
    folder: PathBuf,
    tokens: BufWriter<File>,
    offsets: BufWriter<File>,
    narrow: bool,
    written: u64,
    documents: u64,
}

/// Ids in the width of the store, ready to be written.
///
/// Made by workers, so that the thread that writes has nothing left to do but to write.
#[derive(Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    lengths: Vec<u64>,
}

impl Packed {
    /// Packs the ids of some documents; `lengths` counts the ids of each.
    ///
    /// # Errors
    /// [`Error::Argument`] where an id is not below `vocab_size`, or where the lengths do not add up.
    pub fn new(ids: &[u32], lengths: Vec<u64>, vocab_size: usize) -> Result<Self> {
        let largest = ids.iter().copied().max().unwrap_or(0) as usize;
        if largest >= vocab_size && !ids.is_empty() {
            return Err(Error::argument(format!("token id {largest} in a store for {vocab_size} entries")));
        }
        if lengths.iter().fold(0u64, |sum, length| sum.wrapping_add(*length)) != ids.len() as u64 {
            return Err(Error::argument(format!("document lengths do not add up to {} ids", ids.len())));
        }
        let mut bytes;
        if vocab_size <= NARROW_LIMIT {
            bytes = vec![0; ids.len() * 2];
            bytes.chunks_exact_mut(2).zip(ids).for_each(|(to, id)| to.copy_from_slice(&(*id as u16).to_le_bytes()));
        } else {
            bytes = vec![0; ids.len() * 4];
            bytes.chunks_exact_mut(4).zip(ids).for_each(|(to, id)| to.copy_from_slice(&id.to_le_bytes()));
        }
        Ok(Self { bytes, lengths })
    }
}

impl StoreWriter {
    /// Starts a store in `folder`, which must exist, for ids below `vocab_size`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path, vocab_size: usize) -> Result<Self> {
        let create = |name: &str| {
            let path = folder.join(name);
            File::create(&path)
                .map_err(|source| Error::io(path, source))
                .map(|file| BufWriter::with_capacity(1 << 20, file))
        };
        let mut writer = Self {
            folder: folder.into(),
            tokens: create(TOKENS)?,
            offsets: create(OFFSETS)?,
            narrow: vocab_size <= NARROW_LIMIT,
            written: 0,
            documents: 0,
        };
        writer.write_offset()?;
        Ok(writer)
    }

    /// Appends documents.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&mut self, packed: &Packed) -> Result<()> {
        self.tokens.write_all(&packed.bytes).map_err(|source| Error::io(self.folder.join(TOKENS), source))?;
        for length in &packed.lengths {
            self.written += length;
            self.documents += 1;
            self.write_offset()?;
        }
        Ok(())
    }

    fn write_offset(&mut self) -> Result<()> {
        let offset = self.written.to_le_bytes();
        self.offsets.write_all(&offset).map_err(|source| Error::io(self.folder.join(OFFSETS), source))
    }

    /// Flushes and tells (documents, tokens).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<(u64, u64)> {
        self.tokens.flush().map_err(|source| Error::io(self.folder.join(TOKENS), source))?;
        self.offsets.flush().map_err(|source| Error::io(self.folder.join(OFFSETS), source))?;
        Ok((self.documents, self.written))
    }

    /// Whether ids are stored in two bytes.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }
}

/// Tokenizes all documents of `inputs` into `writer`, in document order whatever the number of threads.
///
/// # Errors
/// Those of [`map_documents`], and [`Error::Io`] where the store cannot be written.
pub fn tokenize_files(
    tokenizer: &NativeTokenizer,
    pool: &CachePool,
    inputs: &Inputs,
    options: &ReadOptions,
    threads: usize,
    writer: &mut StoreWriter,
    monitor: &Monitor,
) -> Result<ReadReport> {
    let vocab_size = tokenizer.vocab_size();
    map_documents(
        inputs,
        options,
        threads,
        monitor,
        || {
            let mut cache = pool.lend(monitor);
            // Compressed files hold some times more text than this.
            cache.expect(inputs.total_bytes().unwrap_or(0) / threads.max(1) as u64);
            (cache, Vec::new())
        },
        |(cache, ids), batch| {
            ids.clear();
            let mut lengths = Vec::with_capacity(batch.len());
            for text in batch.texts() {
                let before = ids.len();
                tokenizer.encode_into(text, cache, ids);
                lengths.push((ids.len() - before) as u64);
            }
            monitor.check()?;
            Packed::new(ids, lengths, vocab_size)
        },
        |packed| writer.append(&packed),
    )
}

/// Ids as they stand in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens<'a> {
    /// Ids of a vocabulary of at most [`NARROW_LIMIT`] entries.
    Narrow(&'a [u16]),
    /// Ids of a larger one.
    Wide(&'a [u32]),
}

impl<'a> Tokens<'a> {
    /// Number of ids.
    pub fn len(&self) -> usize {
        match self {
            Self::Narrow(ids) => ids.len(),
            Self::Wide(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id at a place.
    ///
    /// # Panics
    /// Where `at` is out of range.
    #[inline]
    pub fn get(&self, at: usize) -> u32 {
        match self {
            Self::Narrow(ids) => u32::from(ids[at]),
            Self::Wide(ids) => ids[at],
        }
    }

    /// Some of the ids.
    ///
    /// # Panics
    /// Where the range is out of range.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Tokens<'a> {
        match self {
            Self::Narrow(ids) => Tokens::Narrow(&ids[range]),
            Self::Wide(ids) => Tokens::Wide(&ids[range]),
        }
    }

    /// All ids in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + 'a {
        let (narrow, wide): (&[u16], &[u32]) = match self {
            Self::Narrow(ids) => (ids, &[]),
            Self::Wide(ids) => (&[], ids),
        };
        narrow.iter().map(|id| u32::from(*id)).chain(wide.iter().copied())
    }
}

/// A store, mapped into memory.
#[derive(Debug)]
pub struct StoreReader {
    tokens: Mmap,
    offsets: Mmap,
    narrow: bool,
}

impl StoreReader {
    /// Opens the store in `folder`. The width of the ids is told by the sizes of the files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] where the files do not fit together.
    pub fn open(folder: &Path) -> Result<Self> {
        let (tokens, offsets) = (map(&folder.join(TOKENS))?, map(&folder.join(OFFSETS))?);
        let damaged =
            |detail: &str| Error::data(folder, format!("damaged token store: {detail}; tokenize the corpus again"));
        let last = match bytemuck::try_cast_slice::<u8, u64>(&offsets) {
            // Below 2^60 the sizes in bytes are numbers, too.
            Ok([first, .., last]) if *first == 0 && *last < 1 << 60 => *last as usize,
            _ => return Err(damaged("offsets.bin does not hold two or more uint64, the first of them 0")),
        };
        let narrow = tokens.len() == last * 2;
        if !narrow && tokens.len() != last * 4 {
            return Err(damaged("the size of tokens.bin is not what offsets.bin says"));
        }
        let reader = Self { tokens, offsets, narrow };
        if reader.offsets().windows(2).any(|pair| pair[0] > pair[1]) {
            return Err(damaged("offsets.bin does not rise"));
        }
        Ok(reader)
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.offsets().len() - 1
    }

    /// Borders of documents, one more than there are documents.
    pub fn offsets(&self) -> &[u64] {
        bytemuck::cast_slice(&self.offsets)
    }

    /// Ids of all documents.
    pub fn tokens(&self) -> Tokens<'_> {
        if self.narrow {
            Tokens::Narrow(bytemuck::cast_slice(&self.tokens))
        } else {
            Tokens::Wide(bytemuck::cast_slice(&self.tokens))
        }
    }

    /// Ids of one document.
    ///
    /// # Panics
    /// Where there is no such document.
    pub fn document(&self, at: usize) -> Tokens<'_> {
        let offsets = self.offsets();
        self.tokens().slice(offsets[at] as usize..offsets[at + 1] as usize)
    }
}

fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    // SAFETY: a file that is changed while it is mapped is undefined behaviour. Stores are written into a folder of
    // another name and renamed when whole; nothing in this project writes to them afterwards.
    unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("langadapt-store-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn written_and_read_in_both_widths() {
        for vocab_size in [1000, NARROW_LIMIT, NARROW_LIMIT + 1] {
            let folder = folder(&vocab_size.to_string());
            let mut writer = StoreWriter::create(&folder, vocab_size).unwrap();
            assert_eq!(writer.is_narrow(), vocab_size <= NARROW_LIMIT);
            writer.append(&Packed::new(&[1, 2, 3, 999], vec![3, 0, 1], vocab_size).unwrap()).unwrap();
            writer.append(&Packed::new(&[7], vec![1], vocab_size).unwrap()).unwrap();
            assert_eq!(writer.finish().unwrap(), (4, 5));
            let reader = StoreReader::open(&folder).unwrap();
            assert_eq!(reader.documents(), 4);
            assert_eq!(reader.offsets(), [0, 3, 3, 4, 5]);
            assert_eq!(reader.tokens().iter().collect::<Vec<_>>(), [1, 2, 3, 999, 7]);
            assert_eq!(reader.document(2).get(0), 999);
            assert!(reader.document(1).is_empty());
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn files_that_do_not_fit_together_are_refused() {
        let folder = folder("damaged");
        let mut writer = StoreWriter::create(&folder, 10).unwrap();
        writer.append(&Packed::new(&[1, 2, 3], vec![3], 10).unwrap()).unwrap();
        writer.finish().unwrap();
        std::fs::write(folder.join(TOKENS), [0; 5]).unwrap();
        assert!(StoreReader::open(&folder).unwrap_err().to_string().contains("size of tokens.bin"));
        std::fs::write(folder.join(OFFSETS), [0; 12]).unwrap();
        assert!(StoreReader::open(&folder).unwrap_err().to_string().contains("offsets.bin"));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
