//! Compressed files to bytes.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::ahead::{Ahead, InOrder, WINDOW_LOG_MAX, streaming};
use super::encoding::{MARK, other_kind};
use super::gzip::Members;
use super::inputs::{Codec, Source, State};
use crate::{Error, Monitor, Result};

const BUFFER: usize = 256 << 10;

/// Decompressed bytes of one file.
pub(super) struct Decoded {
    stream: Box<dyn Read + Send>,
    /// What other threads can help with.
    ahead: Option<Arc<Ahead>>,
    /// Bytes taken from the file so far, as they lie on the disk.
    consumed: Arc<AtomicU64>,
    /// Bytes of `consumed` that [`Self::take_consumed`] has told.
    told: u64,
    /// Where the file lies and what it was when it was opened; nothing for a pipe.
    opened: Option<(PathBuf, State)>,
    name: &'static str,
}

impl Decoded {
    /// Opens a file, `-` for the standard input.
    pub fn open(source: &Source, monitor: &Monitor) -> Result<Self> {
        let (path, codec) = (source.path.as_path(), source.codec);
        let fail = |error| Error::io(path, error);
        let mut opened = None;
        let file: Box<dyn Read + Send> = if path.as_os_str() == "-" {
            Box::new(Pipe::new(io::stdin()).map_err(fail)?)
        } else {
            let file = File::open(source.file()).map_err(fail)?;
            let about = file.metadata().map_err(fail)?;
            if about.is_file() {
                opened = Some((source.file().to_owned(), State::of(&about)));
                Box::new(file)
            } else {
                Box::new(Pipe::new(file).map_err(fail)?)
            }
        };
        let consumed = Arc::new(AtomicU64::new(0));
        let mut reader = BufReader::with_capacity(BUFFER, Counted { file, consumed: Arc::clone(&consumed) });
        let magic = magic(&mut reader, path, monitor)?;
        let actual = codec_of(magic.get_ref());
        check(path, codec, actual, magic.get_ref())?;
        let input = magic.chain(reader);
        let mut ahead = None;
        let (stream, name): (Box<dyn Read + Send>, _) = match actual {
            Codec::Gzip => (Box::new(Members::new(input)), "gzip"),
            // A frame is not taken whole from what may stay silent in the midst of it.
            Codec::Zstd if opened.is_none() => (streaming(input).map_err(fail)?, "zstd"),
            Codec::Zstd => (Box::new(InOrder::new(Arc::clone(ahead.insert(Ahead::new(input))))), "zstd"),
            _ => (Box::new(input), ""),
        };
        Ok(Self { stream, ahead, consumed, told: 0, opened, name })
    }

    /// What other threads can help with.
    pub fn ahead(&self) -> Option<&Arc<Ahead>> {
        self.ahead.as_ref()
    }

    /// Bytes taken from the disk since the last call.
    pub fn take_consumed(&mut self) -> u64 {
        let consumed = self.consumed.load(Ordering::Relaxed);
        let news = consumed - self.told;
        self.told = consumed;
        news
    }

    /// Fills `out` as far as the file goes; fewer bytes than `out.len()` only at its end.
    pub fn fill(&mut self, path: &Path, out: &mut [u8], monitor: &Monitor) -> Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.stream.read(&mut out[filled..]) {
                Ok(0) => {
                    self.check_unchanged(path)?;
                    break;
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => monitor.check()?,
                Err(error) => return Err(self.explain(path, error)),
            }
        }
        Ok(filled)
    }

    /// At the end of the file: whether anybody wrote to it meanwhile, so that parts of two states were read.
    fn check_unchanged(&self, path: &Path) -> Result<()> {
        let Some((place, opened)) = &self.opened else { return Ok(()) };
        if self.consumed.load(Ordering::Relaxed) < opened.bytes {
            return Err(Error::data(path, "became shorter while it was read: read it again once it is whole"));
        }
        match fs::metadata(place).map(|about| State::of(&about)) {
            Ok(now) if now.file == opened.file && now != *opened => Err(State::changed(path)),
            _ => Ok(()),
        }
    }

    fn explain(&self, path: &Path, error: io::Error) -> Error {
        if error.raw_os_error().is_some() {
            return Error::io(path, error);
        }
        let name = self.name;
        let text = error.to_string();
        // zstd says what is wrong in words alone.
        let detail = match text.as_str() {
            _ if error.kind() == io::ErrorKind::UnexpectedEof => {
                format!("truncated {name} stream: the file is incomplete, copy or download it again")
            }
            said if said.contains("not enough memory") => {
                let detail = "the system refuses the memory of its window: free some or compress it without `--long`";
                return Error::Memory { path: path.into(), detail: detail.into() };
            }
            said if said.contains("ictionary") => "compressed with a dictionary, which is not read here".to_owned(),
            said if said.contains("too much memory") => {
                format!("compressed with a window of more than 2^{WINDOW_LOG_MAX} bytes, which is not read here")
            }
            said => format!("damaged {name} stream ({said}): copy or download the file again"),
        };
        Error::data(path, detail)
    }
}

/// The first bytes: a pipe may deliver fewer at a time, so they are read apart and chained in front.
fn magic(reader: &mut impl Read, path: &Path, monitor: &Monitor) -> Result<Cursor<Vec<u8>>> {
    let (mut magic, mut filled) = (vec![0; MARK], 0);
    while filled < magic.len() {
        match reader.read(&mut magic[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => monitor.check()?,
            Err(error) => return Err(Error::io(path, error)),
        }
    }
    magic.truncate(filled);
    Ok(Cursor::new(magic))
}

/// How long a reader of a silent pipe waits before it may be stopped.
const PATIENCE: Duration = Duration::from_millis(50);

/// Something that may stay silent for ever, read by a thread of its own so that nobody is caught in the wait: a read
/// without news fails with [`io::ErrorKind::WouldBlock`] and may be tried again. The thread of an abandoned pipe ends
/// with its next block, or with the process.
struct Pipe {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Cursor<Vec<u8>>,
}

impl Pipe {
    fn new(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, blocks) = sync_channel(4);
        std::thread::Builder::new().spawn(move || {
            loop {
                let mut block = vec![0; BUFFER];
                let news = match source.read(&mut block) {
                    Ok(0) => break,
                    Ok(n) => {
                        block.truncate(n);
                        Ok(block)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                if sender.send(news).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { blocks, block: Cursor::default() })
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.block.read(buffer)? {
                0 if !buffer.is_empty() => match self.blocks.recv_timeout(PATIENCE) {
                    Ok(news) => self.block = Cursor::new(news?),
                    Err(RecvTimeoutError::Timeout) => return Err(io::ErrorKind::WouldBlock.into()),
                    Err(RecvTimeoutError::Disconnected) => return Ok(0),
                },
                n => return Ok(n),
            }
        }
    }
}

fn codec_of(magic: &[u8]) -> Codec {
    match magic {
        [0x1f, 0x8b, ..] => Codec::Gzip,
        // A frame, or a frame to be skipped such as those that pzstd writes.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
        _ => Codec::Plain,
    }
}

fn check(path: &Path, wanted: Codec, actual: Codec, magic: &[u8]) -> Result<()> {
    let detail = match (wanted, actual) {
        (Codec::Sniff, _) => return Ok(()),
        (wanted, actual) if wanted == actual => return Ok(()),
        (Codec::Gzip | Codec::Zstd, _) if magic.is_empty() => "empty, not even a compressed stream".to_owned(),
        (Codec::Plain, actual) => {
            let (name, ending) = if actual == Codec::Gzip { ("gzip", ".gz") } else { ("zstd", ".zst") };
            format!("holds {name} data although its name does not say so; let the name end in `{ending}`")
        }
        (wanted, actual) => {
            let (name, ending) = if wanted == Codec::Gzip { ("gzip", ".gz") } else { ("zstd", ".zst") };
            match other_kind(magic) {
                Some(kind) if actual == Codec::Plain => format!("no {name} data but {kind}"),
                _ => format!("no {name} data although its name ends in `{ending}`; rename it or compress it"),
            }
        }
    };
    Err(Error::data(path, detail))
}

struct Counted {
    file: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
