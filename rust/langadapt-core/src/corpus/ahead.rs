//! A zstd file of several frames, decompressed by several threads: whoever is idle takes the next group of frames.
//!
//! The bytes come out in the order of the file. A group that cannot be decompressed at once is given to the streaming
//! decoder, so that what is read of a damaged file, and what is said of it, does not depend on who helped.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Cursor, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zstd::bulk::Decompressor;
use zstd::stream::read::Decoder;

use super::groups::{Group, next_group};
use crate::memory::try_reserve;

/// How long the reader waits for another thread before it may be stopped.
const PATIENCE: Duration = Duration::from_millis(20);
/// zstd's largest window: files made with `zstd --long=31` are read too.
pub(super) const WINDOW_LOG_MAX: u32 = 31;

/// A file between the threads that decompress it and the one that reads what they made.
pub(super) struct Ahead {
    state: Mutex<State>,
    changed: Condvar,
    waiting: AtomicUsize,
    is_over: AtomicBool,
}

struct State {
    /// `None` behind the last group.
    input: Option<Box<dyn BufRead + Send>>,
    /// Groups taken from the file, and those of them that the reader has.
    taken: u64,
    read: u64,
    ready: BTreeMap<u64, io::Result<Piece>>,
    /// Buffers to be used again: the system would have to clear new ones.
    spare: Vec<Vec<u8>>,
}

enum Piece {
    Bytes(Vec<u8>),
    /// This and all that follows.
    Stream(Box<dyn Read + Send>),
}

/// Whole frames to be decompressed: their number, bytes, how many they hold at most, and where to.
type Task = (u64, Vec<u8>, usize, Vec<u8>);

impl Ahead {
    pub fn new(input: impl BufRead + Send + 'static) -> Arc<Self> {
        let input: Option<Box<dyn BufRead + Send>> = Some(Box::new(input));
        let state = State { input, taken: 0, read: 0, ready: BTreeMap::new(), spare: Vec::new() };
        let (waiting, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new(), waiting, is_over })
    }

    /// How many groups wait for the reader, those that are being decompressed among them.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether all is taken.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Decompresses the next group, if there is one.
    pub fn help(&self) {
        let task = self.take(&mut self.lock());
        if let Some((number, frames, most, buffer)) = task {
            let piece = decompressed(frames, most, buffer);
            self.lock().ready.insert(number, piece);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next group from the file; `None` where there is none, or none to be decompressed at once.
    fn take(&self, state: &mut State) -> Option<Task> {
        let found = next_group(state.input.as_mut()?, state.taken == 0);
        let number = state.taken;
        let task = match found {
            Ok(Group::Frames(frames, most)) => Some((number, frames, most, state.spare.pop().unwrap_or_default())),
            Ok(Group::Stream(begun)) => {
                let rest = state.input.take()?;
                state.ready.insert(number, streaming(Cursor::new(begun).chain(rest)).map(Piece::Stream));
                None
            }
            Ok(Group::End) => {
                state.input = None;
                self.is_over.store(true, Ordering::Relaxed);
                return None;
            }
            Err(error) => {
                state.input = None;
                state.ready.insert(number, Err(error));
                None
            }
        };
        state.taken += 1;
        self.is_over.store(state.input.is_none(), Ordering::Relaxed);
        self.waiting.store((state.taken - state.read) as usize, Ordering::Relaxed);
        task
    }

    /// The next piece, `None` behind the last; [`io::ErrorKind::WouldBlock`] while another thread makes it.
    fn next(&self) -> io::Result<Option<Piece>> {
        let mut state = self.lock();
        let task = if state.read == state.taken { self.take(&mut state) } else { None };
        if state.read == state.taken {
            return Ok(None);
        }
        if task.is_none() && !state.ready.contains_key(&state.read) {
            state = self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = state.read;
        let made = state.ready.remove(&number);
        if task.is_none() && made.is_none() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.read += 1;
        self.waiting.store((state.taken - state.read) as usize, Ordering::Relaxed);
        drop(state);
        match (task, made) {
            (Some((_, frames, most, buffer)), _) => decompressed(frames, most, buffer).map(Some),
            (_, made) => made.transpose(),
        }
    }
}

/// The bytes of a file, in order.
pub(super) struct InOrder {
    ahead: Arc<Ahead>,
    piece: Piece,
    /// Bytes of the piece that were read.
    at: usize,
}

impl InOrder {
    pub fn new(ahead: Arc<Ahead>) -> Self {
        Self { ahead, piece: Piece::Bytes(Vec::new()), at: 0 }
    }
}

impl Read for InOrder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = match &mut self.piece {
                Piece::Bytes(bytes) => (&bytes[self.at..]).read(out)?,
                Piece::Stream(stream) => stream.read(out)?,
            };
            self.at += n;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let Some(next) = self.ahead.next()? else { return Ok(0) };
            if let Piece::Bytes(buffer) = std::mem::replace(&mut self.piece, next) {
                self.ahead.lock().spare.push(buffer);
            }
            self.at = 0;
        }
    }
}

fn decompressed(frames: Vec<u8>, most: usize, mut buffer: Vec<u8>) -> io::Result<Piece> {
    buffer.clear();
    let done = try_reserve(&mut buffer, most).is_ok()
        && Decompressor::new().and_then(|mut zstd| zstd.decompress_to_buffer(&frames, &mut buffer)).is_ok();
    if done { Ok(Piece::Bytes(buffer)) } else { streaming(Cursor::new(frames)).map(Piece::Stream) }
}

/// All bytes of all frames, one after the other.
pub(super) fn streaming(input: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = Decoder::with_buffer(input)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(Box::new(decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file holds, read by one thread while others help; and how it ends.
    fn read(file: &[u8], helpers: usize) -> (Vec<u8>, Option<String>) {
        let ahead = Ahead::new(Cursor::new(file.to_vec()));
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|| {
                    while !ahead.is_over() && !is_done.load(Ordering::Relaxed) {
                        if ahead.waiting() < 4 { ahead.help() } else { std::thread::yield_now() }
                    }
                });
            }
            let (mut stream, mut found, mut buffer) = (InOrder::new(Arc::clone(&ahead)), Vec::new(), vec![0; 77_777]);
            let end = loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break None,
                    Ok(n) => found.extend_from_slice(&buffer[..n]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => break Some(error.to_string()),
                }
            };
            is_done.store(true, Ordering::Relaxed);
            (found, end)
        })
    }

    fn file(sizes: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let content: Vec<Vec<u8>> =
            (sizes.iter().zip(0u8..)).map(|(&size, seed)| (0..size).map(|n| (n / 7) as u8 ^ seed).collect()).collect();
        let frame = |part: &Vec<u8>| {
            let mut zstd = zstd::bulk::Compressor::new(1).unwrap();
            zstd.include_checksum(true).unwrap();
            zstd.compress(part).unwrap()
        };
        (content.concat(), content.iter().flat_map(frame).collect())
    }

    #[test]
    fn helpers_change_nothing() {
        let (content, frames) = file(&[3_000_000, 0, 10, 2_000_000, 1_100_000, 500_000, 700_000, 4_000_000, 1]);
        for helpers in [0, 1, 4] {
            assert!(read(&frames, helpers) == (content.clone(), None));
        }
        assert!(read(&[], 1) == (Vec::new(), None));
    }

    #[test]
    fn damage_is_found_in_its_place() {
        let (content, frames) = file(&[2_000_000, 1_500_000, 1_800_000, 2_000_000]);
        for at in [frames.len() / 3, frames.len() / 2, frames.len() - 5] {
            let mut damaged = frames.clone();
            damaged[at..at + 4].copy_from_slice(&[0xff; 4]);
            for (file, is_cut) in [(&damaged[..], false), (&frames[..at], true)] {
                let (found, end) = read(file, 0);
                assert!(end.is_some() && (!is_cut || content.starts_with(&found)));
                let mut streamed = Vec::new();
                let error = streaming(Cursor::new(file.to_vec())).unwrap().read_to_end(&mut streamed).unwrap_err();
                assert_eq!(end, Some(error.to_string()));
                assert!(read(file, 3) == (found, end));
            }
        }
    }
}
