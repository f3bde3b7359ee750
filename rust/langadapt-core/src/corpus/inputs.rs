//! Which files, in which order, and what their names say about them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Feed;
use super::arriving::{self, Place};
use crate::{Error, Result};

const ENDINGS: &str = ".jsonl, .ndjson, .json, .txt (each also with .gz or .zst) and .parquet";

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    JsonLines,
    Text,
    Parquet,
    /// JSON Lines where the first byte that is no white space is `{`, otherwise text. For pipes, which have no name.
    Sniff,
}

/// What a file is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Plain,
    Gzip,
    Zstd,
    /// By the first bytes.
    Sniff,
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// `-` stands for the standard input. Of a file that is fetched the name elsewhere.
    pub path: PathBuf,
    pub format: Format,
    pub codec: Codec,
    /// Of a file that is fetched.
    pub place: Option<Place>,
}

impl Source {
    /// Where its bytes are read.
    pub fn file(&self) -> &Path {
        self.place.as_ref().map_or(&self.path, |place| &place.path)
    }

    /// How many they are; `None` for a pipe, or where there is no file.
    fn bytes(&self) -> Option<u64> {
        let on_disk = || Some(fs::metadata(&self.path).ok().filter(fs::Metadata::is_file)?.len());
        self.place.as_ref().map_or_else(on_disk, |place| Some(place.bytes))
    }
}

/// What tells whether a file was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Device and inode: a file that was replaced under its name is another one, and stays whole for whoever reads it.
    pub file: (u64, u64),
    pub bytes: u64,
    changed: (i64, i64),
}

impl State {
    pub fn of(about: &fs::Metadata) -> Self {
        let file = (about.dev(), about.ino());
        Self { file, bytes: about.len(), changed: (about.mtime(), about.mtime_nsec()) }
    }

    /// Says that `path` is not what it was.
    pub fn changed(path: &Path) -> Error {
        Error::data(path, "changed while it was read: read it again once it is whole")
    }
}

/// Files in document order, or one feed.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub(super) sources: Vec<Source>,
    pub(super) feed: Option<Arc<Feed>>,
}

impl Inputs {
    /// Finds the files that `names` stand for.
    ///
    /// A name is a file; a folder, which stands for all files below it with a known ending, hidden ones left out,
    /// sorted by path; a pattern with `*`, `**`, `?` or `[...]`, sorted too; or `-`, the standard input. The order of
    /// `names` is kept. A folder written by `corpus build` stands for its training split alone.
    ///
    /// Endings: `.jsonl`, `.ndjson`, `.json` (JSON Lines) and `.txt`, each also with `.gz` or `.zst`, and `.parquet`.
    /// A pipe has no ending: it is gzip, zstd or plain by its first bytes, and JSON Lines if its first character is
    /// `{`, otherwise text. A list of files that are fetched meanwhile ends in `.arriving`.
    ///
    /// # Errors
    /// [`Error::Io`] for a name that does not exist, [`Error::Data`] for an unknown ending and for a folder or pattern
    /// without files, [`Error::Argument`] for no name at all, a broken pattern and a second `-`.
    pub fn expand(names: &[impl AsRef<str>]) -> Result<Self> {
        let mut sources = Vec::new();
        for name in names {
            expand_one(name.as_ref(), &mut sources)?;
        }
        if sources.is_empty() {
            return Err(Error::argument("no input: name at least one file, folder or pattern"));
        }
        if sources.iter().filter(|source| source.path.as_os_str() == "-").count() > 1 {
            return Err(Error::argument("`-` (standard input) can be read only once"));
        }
        Ok(Self { sources, feed: None })
    }

    /// Documents that the caller pushes.
    pub fn from_feed(feed: Arc<Feed>) -> Self {
        Self { sources: Vec::new(), feed: Some(feed) }
    }

    /// The files, `-` for the standard input.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.sources.iter().map(|source| source.path.as_path())
    }

    /// The files in blocks of consecutive ones, of `bytes` on the disk or more each but for the last: the number of
    /// each file's block. It depends on the files alone, so that whoever reads whole blocks finds the same ones.
    pub fn blocks(&self, bytes: u64) -> Vec<usize> {
        let (mut block, mut filled) = (0, 0);
        let number = |source: &Source| {
            if filled >= bytes.max(1) {
                (block, filled) = (block + 1, 0);
            }
            filled += source.bytes().unwrap_or(0);
            block
        };
        self.sources.iter().map(number).collect()
    }

    /// Bytes of all files as they lie on the disk; `None` if a pipe is among them, or for a feed.
    pub fn total_bytes(&self) -> Option<u64> {
        if self.feed.is_some() {
            return None;
        }
        self.sources.iter().try_fold(0, |sum, source| Some(sum + source.bytes()?))
    }
}

fn expand_one(name: &str, sources: &mut Vec<Source>) -> Result<()> {
    let path = Path::new(name);
    if name == "-" {
        sources.push(Source { path: path.to_owned(), format: Format::Sniff, codec: Codec::Sniff, place: None });
        return Ok(());
    }
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => expand_folder(path, sources),
        Ok(_) if name.ends_with(arriving::ENDING) => expand_list(path, sources),
        Ok(about) => {
            sources.push(source_of(path.to_owned(), about.is_file())?);
            Ok(())
        }
        Err(_) if name.contains(['*', '?', '[']) => expand_pattern(name, sources),
        Err(error) => Err(Error::io(path, error)),
    }
}

fn expand_list(path: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for (name, place) in arriving::read_list(path)? {
        sources.push(Source { place: Some(place), ..source_of(name, true)? });
    }
    Ok(())
}

fn expand_pattern(pattern: &str, sources: &mut Vec<Source>) -> Result<()> {
    let found = glob::glob(pattern).map_err(|error| Error::argument(format!("pattern `{pattern}`: {error}")))?;
    let before = sources.len();
    for path in found {
        let path = path.map_err(|error| Error::io(error.path().to_owned(), std::io::Error::from(error)))?;
        // A link to nothing is no file that may be missing from the text without a word.
        if fs::metadata(&path).map_err(|error| Error::io(&path, error))?.is_file() {
            sources.push(source_of(path, true)?);
        }
    }
    if sources.len() == before {
        return Err(Error::data(pattern, "no file matches this pattern"));
    }
    sources[before..].sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

fn expand_folder(folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let training = folder.join("train.jsonl.zst");
    if folder.join("manifest.json").is_file() && training.is_file() {
        sources.push(source_of(training, true)?);
        return Ok(());
    }
    let mut found = Vec::new();
    walk(folder, &mut found)?;
    if found.is_empty() {
        return Err(Error::data(folder, format!("no file with a known ending below this folder: {ENDINGS}")));
    }
    found.sort();
    // An uncompressed `.json` in a folder of data is nearly always a description of that data.
    sources.extend(found.into_iter().filter_map(|path| source_of(path, true).ok()));
    Ok(())
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let about = fs::metadata(&path).map_err(|error| Error::io(&path, error))?;
        if about.is_dir() {
            walk(&path, found)?;
        } else if about.is_file() && !name.ends_with(".json") && source_of(path.clone(), true).is_ok() {
            found.push(path);
        }
    }
    Ok(())
}

fn source_of(path: PathBuf, is_regular: bool) -> Result<Source> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let (stem, codec) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Codec::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Codec::Zstd)
    } else {
        (name.as_str(), Codec::Plain)
    };
    let format = match stem.rsplit_once('.').map(|(_, ending)| ending) {
        Some("jsonl" | "ndjson" | "json") => Format::JsonLines,
        Some("txt") => Format::Text,
        Some("parquet") if codec == Codec::Plain => Format::Parquet,
        _ if !is_regular => return Ok(Source { path, format: Format::Sniff, codec: Codec::Sniff, place: None }),
        other => {
            let hint = hint(other.unwrap_or_default());
            return Err(Error::data(path, format!("unknown ending; known are {ENDINGS}{hint}")));
        }
    };
    Ok(Source { path, format, codec, place: None })
}

/// How to read what is not read here.
fn hint(ending: &str) -> &'static str {
    match ending {
        "xz" => "; unpack it, or pipe it: `xzcat FILE | langadapt ... -`",
        "bz2" => "; unpack it, or pipe it: `bzcat FILE | langadapt ... -`",
        "zip" | "tar" | "tgz" | "7z" => "; unpack it and name the files in it",
        "csv" | "tsv" | "arrow" | "feather" => {
            "; save it as Parquet, with pandas or `datasets`, and name its text column"
        }
        _ => "",
    }
}
