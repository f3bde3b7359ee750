//! The text column of Parquet files, one row group at a time.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};

use parquet::basic::Type;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;

use super::ReadOptions;
use super::arriving::{Arrived, wait_for};
use super::batch::{Batch, Framing};
use super::encoding::{MARK, other_kind};
use super::inputs::{Source, State};
use super::report::{Fault, Kind};
use crate::memory::try_reserve;
use crate::{Error, Monitor, Result};

/// Rows decoded at a time: few enough that rows of a megabyte do not fill the memory.
const ROWS: usize = 32;

/// A Parquet file whose row groups are read by several threads.
pub(super) struct ParquetFile {
    /// What it is called, and where it lies.
    path: Arc<PathBuf>,
    place: PathBuf,
    column: usize,
    /// Rows of each row group.
    rows: Vec<u64>,
    state: State,
    held: Mutex<Held>,
}

/// Kept open only from the first row group that is read to the last: a corpus may have more files than a process may
/// open, and reading a footer again for each of thousands of row groups takes longer than the text.
struct Held {
    reader: Option<Arc<SerializedFileReader<Shared>>>,
    groups_left: usize,
}

impl ParquetFile {
    /// Reads a file's footer and finds the column `field`, a name or a dotted path.
    pub fn open(source: &Source, field: &str) -> Result<Self> {
        let (path, place) = (source.path.as_path(), source.file());
        let reader = Arc::new(open(path, place)?);
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let columns = || schema.columns().iter().map(|column| column.path().string());
        let mut named = columns().enumerate().filter(|(_, name)| name == field).map(|(at, _)| at);
        let Some(column) = named.next() else {
            let list = columns().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::data(
                path,
                format!(
                    "no column `{field}` (columns: {list}); name the one with the text with `text_field` (`--text-field`)"
                ),
            ));
        };
        if named.next().is_some() {
            return Err(Error::data(path, format!("several columns are called `{field}`: rename all but one")));
        }
        let about = schema.column(column);
        if about.physical_type() != Type::BYTE_ARRAY || about.max_rep_level() > 0 {
            let kind = about.physical_type();
            return Err(Error::data(path, format!("column `{field}` holds no plain strings (it is {kind} or a list)")));
        }
        let rows: Vec<u64> =
            metadata.row_groups().iter().map(|group| group.num_rows().max(0).cast_unsigned()).collect();
        let state = state(path, place)?;
        let held = Mutex::new(Held { reader: None, groups_left: rows.len() });
        Ok(Self { path: Arc::new(path.to_owned()), place: place.to_owned(), column, rows, state, held })
    }

    /// How many row groups the file has.
    pub fn row_groups(&self) -> usize {
        self.rows.len()
    }

    /// Starts to read a row group.
    pub fn read_group(self: &Arc<Self>, group: usize) -> Result<RowGroupReader> {
        let file = self.shared()?;
        let fail = |error| explain(&self.path, error);
        let reader = guarded(|| file.get_row_group(group)).map_err(fail)?;
        let about = reader.metadata().column(self.column);
        let compression = about.compression();
        let column = guarded(|| reader.get_column_reader(self.column)).map_err(|error| match error {
            ParquetError::NYI(_) => Error::data(
                self.path.as_path(),
                format!("compression {compression} is not read here; write the file with zstd or snappy"),
            ),
            other => explain(&self.path, other),
        })?;
        Ok(RowGroupReader {
            max_def_level: about.column_descr().max_def_level(),
            column: get_typed_column_reader::<ByteArrayType>(column),
            _open: Arc::clone(&file),
            row: 1 + self.rows[..group].iter().sum::<u64>(),
            rows: self.rows[group],
            left: self.rows[group],
            bytes: self.state.bytes / self.rows.len().max(1) as u64,
            file: Arc::clone(self),
            failed: None,
        })
    }

    /// The open file, for one row group.
    fn shared(&self) -> Result<Arc<SerializedFileReader<Shared>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match held.reader.take() {
            Some(reader) => reader,
            None => Arc::new(open(&self.path, &self.place)?),
        };
        if state(&self.path, &self.place)? != self.state {
            return Err(State::changed(&self.path));
        }
        held.groups_left = held.groups_left.saturating_sub(1);
        held.reader = (held.groups_left > 0).then(|| Arc::clone(&reader));
        Ok(reader)
    }
}

fn state(path: &Path, place: &Path) -> Result<State> {
    Ok(State::of(&std::fs::metadata(place).map_err(|error| Error::io(path, error))?))
}

fn open(path: &Path, place: &Path) -> Result<SerializedFileReader<Shared>> {
    let file = File::open(place).map_err(|error| Error::io(path, error))?;
    let bytes = file.metadata().map_err(|error| Error::io(path, error))?.len();
    let mut head = [0; MARK];
    let got = file.read_at(&mut head, 0).map_err(|error| Error::io(path, error))?;
    let shared = Shared { path: Arc::new(path.to_owned()), file: Arc::new(file), bytes };
    guarded(|| SerializedFileReader::new(shared)).map_err(|error| match other_kind(&head[..got]) {
        Some(kind) if !head.starts_with(b"PAR1") => Error::data(path, format!("no Parquet data but {kind}")),
        _ => explain(path, error),
    })
}

/// Runs code of the `parquet` crate, which panics on some damaged files. Such a panic is an error, and silent.
fn guarded<T>(work: impl FnOnce() -> parquet::errors::Result<T>) -> parquet::errors::Result<T> {
    thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                others(panic);
            }
        }));
    });
    GUARDED.set(true);
    // Whatever the panic leaves half done is not used again: the error ends the reading of the file.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    outcome.unwrap_or_else(|_| Err(ParquetError::General("its parts do not fit together".into())))
}

fn explain(path: &Path, error: ParquetError) -> Error {
    let said = error.to_string();
    match error {
        ParquetError::External(source) if source.is::<Error>() => match source.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::data(path, other.to_string()),
        },
        ParquetError::NYI(_) => Error::data(path, format!("a kind of Parquet that is not read here ({said})")),
        _ if said.contains("ncrypt") => Error::data(path, "an encrypted Parquet file, which is not read here"),
        // A column that is encrypted under a plain footer looks like one that is damaged.
        _ => Error::data(
            path,
            format!(
                "damaged or truncated Parquet file, or one with an encrypted column ({said}): copy or download it \
                 again, or write it without encryption"
            ),
        ),
    }
}

/// One row group's text column.
pub(super) struct RowGroupReader {
    file: Arc<ParquetFile>,
    column: ColumnReaderImpl<ByteArrayType>,
    max_def_level: i16,
    row: u64,
    rows: u64,
    left: u64,
    bytes: u64,
    /// What ended the reading, kept until the rows before it were given.
    failed: Option<Error>,
    _open: Arc<SerializedFileReader<Shared>>,
}

impl RowGroupReader {
    /// Fills `batch` with documents; false at the end of the row group. Rows before a damaged page are given first, so
    /// that of two faults the earlier one is named however large a batch is.
    pub fn read(&mut self, batch: &mut Batch, options: &ReadOptions, monitor: &Monitor) -> Result<bool> {
        batch.start(Framing::Rows, &self.file.path, self.row);
        match self.failed.take().map_or_else(|| self.fill(batch, options, monitor), Err) {
            Err(error @ Error::Data { .. }) if self.row > batch.first_line => self.failed = Some(error),
            other => other?,
        }
        Ok(self.row > batch.first_line)
    }

    fn fill(&mut self, batch: &mut Batch, options: &ReadOptions, monitor: &Monitor) -> Result<()> {
        let (mut levels, mut values) = (Vec::<i16>::with_capacity(ROWS), Vec::<ByteArray>::with_capacity(ROWS));
        while self.left > 0 && batch.filled < options.batch_bytes {
            levels.clear();
            values.clear();
            let max = ROWS.min(usize::try_from(self.left).unwrap_or(ROWS));
            let (rows, _, _) = guarded(|| self.column.read_records(max, Some(&mut levels), None, &mut values))
                .map_err(|error| explain(&self.file.path, error))?;
            if rows == 0 {
                let text = format!("row {} is missing although the footer promises it", self.row);
                return Err(explain(&self.file.path, ParquetError::EOF(text)));
            }
            self.push(batch, rows, &levels, &values, options.max_line_bytes)?;
            self.left -= rows as u64;
            monitor.advance(self.bytes * rows as u64 / self.rows)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        batch: &mut Batch,
        rows: usize,
        levels: &[i16],
        values: &[ByteArray],
        max_bytes: usize,
    ) -> Result<()> {
        let mut values = values.iter();
        for n in 0..rows {
            let is_null = self.max_def_level > 0 && levels.get(n).is_none_or(|&level| level < self.max_def_level);
            match if is_null { None } else { values.next() } {
                Some(value) if value.len() > max_bytes => batch.push_too_long(Some(self.row), max_bytes),
                Some(value) => batch.push(value.data(), self.row)?,
                None => batch.faults.push((Some(self.row), Fault::new(Kind::MissingText, "the text is null"))),
            }
            self.row += 1;
        }
        Ok(())
    }
}

/// The row groups of a file that is fetched, one after the other: it is not there before its turn, and goes afterwards.
pub(super) struct FetchedGroups {
    file: Arc<ParquetFile>,
    reader: Option<RowGroupReader>,
    next: usize,
    _arrived: Option<Arrived>,
}

impl FetchedGroups {
    /// Waits for the file and opens it.
    pub fn open(source: &Source, options: &ReadOptions, monitor: &Monitor) -> Result<Self> {
        let _arrived = wait_for(source.place.as_ref(), &source.path, monitor)?;
        let file = Arc::new(ParquetFile::open(source, &options.text_field)?);
        Ok(Self { file, reader: None, next: 0, _arrived })
    }

    /// Fills `batch` with documents of one row group; false at the end of the file.
    pub fn read(&mut self, batch: &mut Batch, options: &ReadOptions, monitor: &Monitor) -> Result<bool> {
        loop {
            if let Some(reader) = &mut self.reader
                && reader.read(batch, options, monitor)?
            {
                return Ok(true);
            }
            if self.next == self.file.row_groups() {
                return Ok(false);
            }
            self.reader = Some(self.file.read_group(self.next)?);
            self.next += 1;
        }
    }
}

/// A file read at offsets: `File` itself has one position, which threads would pull away from one another.
struct Shared {
    path: Arc<PathBuf>,
    file: Arc<File>,
    bytes: u64,
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Shared {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(At { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<bytes::Bytes> {
        // What a damaged footer names is not reserved unless the file can hold it.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} in a file of {}", self.bytes)));
        }
        let mut buffer = Vec::new();
        let refused = |_| ParquetError::External(Box::new(Error::memory(self.path.as_path(), length)));
        try_reserve(&mut buffer, length).map_err(refused)?;
        buffer.resize(length, 0);
        self.file.read_exact_at(&mut buffer, start).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(buffer.into())
    }
}

/// A place in a file.
struct At {
    file: Arc<File>,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
