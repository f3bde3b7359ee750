//! A zstd file of lines in frames of some 8 MB, each whole lines and with its size in its header, so that whoever reads
//! the file can decompress many at a time.
//!
//! A frame is compressed by one thread, several frames side by side; its bytes depend on its lines alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use zstd::stream::write::Encoder;

use crate::progress::Stop;
use crate::{Error, Monitor, Result};

/// A frame ends with the line that fills it. German text in one frame would be 0.2 % smaller, in frames of 1 MB 1.6 %
/// larger.
const FRAME: usize = 8 << 20;
/// zstd's own default: 3 % larger than level 6 at three times its speed.
pub(super) const LEVEL: i32 = 3;
/// For files that are read once and deleted.
pub(super) const PASSING: i32 = 1;
/// Bytes compressed between two looks at whether to stop.
pub(super) const STEP: usize = 1 << 20;

/// Documents and UTF-8 bytes of their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitCount {
    /// Documents.
    pub documents: u64,
    /// UTF-8 bytes of text.
    pub bytes: u64,
}

/// A frame that is being compressed.
type Under = JoinHandle<io::Result<Vec<u8>>>;

/// A zstd file of lines, in frames.
pub(super) struct Frames {
    path: PathBuf,
    file: File,
    /// Lines of the frame that is open.
    lines: Vec<u8>,
    /// Frames that are being compressed, in their order.
    under: VecDeque<Under>,
    level: i32,
    threads: usize,
    pub count: SplitCount,
}

impl Frames {
    /// `threads`: frames that are compressed side by side.
    pub fn create(path: PathBuf, level: i32, threads: usize) -> Result<Self> {
        let file = File::create(&path).map_err(|error| Error::io(&path, error))?;
        let (lines, under, count) = (Vec::new(), VecDeque::new(), SplitCount::default());
        Ok(Self { path, file, lines, under, level, threads: threads.max(1), count })
    }

    pub fn put(&mut self, bytes: u64, line: &[u8], monitor: &Monitor) -> Result<()> {
        monitor.check()?;
        self.count.documents += 1;
        self.count.bytes += bytes;
        self.lines.extend_from_slice(line);
        if self.lines.len() >= FRAME { self.seal(monitor) } else { Ok(()) }
    }

    /// Ends the frame, if one is open, and has it compressed.
    pub fn end(&mut self, monitor: &Monitor) -> Result<()> {
        if self.lines.is_empty() { Ok(()) } else { self.seal(monitor) }
    }

    fn seal(&mut self, monitor: &Monitor) -> Result<()> {
        while self.under.len() >= self.threads {
            self.write_first()?;
        }
        let lines = Arc::new(std::mem::take(&mut self.lines));
        let (copy, level, stop) = (Arc::clone(&lines), self.level, monitor.stop_sign());
        match Builder::new().spawn(move || compressed(&copy, level, &stop)) {
            Ok(thread) => self.under.push_back(thread),
            // The system gives no more threads.
            Err(_) => {
                self.write_all()?;
                let frame = compressed(&lines, level, &monitor.stop_sign());
                self.write(frame)?;
            }
        }
        monitor.check()
    }

    /// Waits for the frame that was begun first and writes it.
    fn write_first(&mut self) -> Result<()> {
        let Some(thread) = self.under.pop_front() else { return Ok(()) };
        let frame = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.write(frame)
    }

    fn write(&mut self, frame: io::Result<Vec<u8>>) -> Result<()> {
        let written = frame.and_then(|frame| self.file.write_all(&frame));
        written.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Error::Interrupted,
            _ => Error::io(&self.path, error),
        })
    }

    fn write_all(&mut self) -> Result<()> {
        while !self.under.is_empty() {
            self.write_first()?;
        }
        Ok(())
    }

    /// Copies whole frames.
    pub fn append(&mut self, path: &Path, count: SplitCount, monitor: &Monitor) -> Result<()> {
        self.end(monitor)?;
        self.write_all()?;
        let from = File::open(path).map_err(|error| Error::io(path, error))?;
        loop {
            monitor.check()?;
            let copied =
                io::copy(&mut (&from).take(64 << 20), &mut self.file).map_err(|error| Error::io(path, error))?;
            if copied == 0 {
                break;
            }
            monitor.advance(copied)?;
        }
        self.count.documents += count.documents;
        self.count.bytes += count.bytes;
        Ok(())
    }

    /// Writes all that is open: of a part, which may be empty.
    pub fn finish_part(&mut self, monitor: &Monitor) -> Result<SplitCount> {
        self.end(monitor)?;
        self.write_all()?;
        Ok(self.count)
    }

    /// Writes all that is open, or a frame that is empty if there is no other.
    pub fn finish(&mut self, monitor: &Monitor) -> Result<SplitCount> {
        if self.count.documents == 0 {
            self.seal(monitor)?;
        }
        self.finish_part(monitor)
    }
}

/// A frame of its own; [`io::ErrorKind::Interrupted`] on a stop.
fn compressed(lines: &[u8], level: i32, stop: &Stop) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::new(Vec::with_capacity(lines.len() / 2), level)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.set_pledged_src_size(Some(lines.len() as u64))?;
    for part in lines.chunks(STEP) {
        if stop.is_asked() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        encoder.write_all(part)?;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, lines: &[Vec<u8>], threads: usize) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("langadapt-frames-{name}-{threads}-{}", std::process::id()));
        let (monitor, mut frames) = (Monitor::default(), Frames::create(path.clone(), LEVEL, threads).unwrap());
        for line in lines {
            frames.put(line.len() as u64, line, &monitor).unwrap();
        }
        assert_eq!(frames.finish(&monitor).unwrap().documents, lines.len() as u64);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        bytes
    }

    #[test]
    fn frames_are_whole_lines_with_their_sizes() {
        let line = |n: usize| [n.to_string().repeat(1 + n % 20_000).into_bytes(), b"\n".to_vec()].concat();
        let lines: Vec<Vec<u8>> = (0..600).map(|n| line(n * 7919)).collect();
        let bytes = written("lines", &lines, 1);
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), lines.concat());
        let (mut rest, mut sizes) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let frame = &rest[..zstd::zstd_safe::find_frame_compressed_size(rest).unwrap()];
            let content = zstd::decode_all(frame).unwrap();
            assert_eq!(content.last(), Some(&b'\n'));
            assert_eq!(zstd::zstd_safe::get_frame_content_size(frame).unwrap(), Some(content.len() as u64));
            sizes.push(content.len());
            rest = &rest[frame.len()..];
        }
        let (last, others) = sizes.split_last().unwrap();
        assert!(others.len() > 1 && *last > 0, "{sizes:?}");
        assert!(others.iter().all(|size| (FRAME..FRAME + 200_000).contains(size)), "{sizes:?}");
        for threads in [2, 5] {
            assert_eq!(written("lines", &lines, threads), bytes);
        }
    }

    #[test]
    fn nothing_is_a_frame_too() {
        let bytes = written("nothing", &[], 2);
        assert!(!bytes.is_empty());
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap(), b"");
    }

    #[test]
    fn a_stop_ends_it() {
        let path = std::env::temp_dir().join(format!("langadapt-frames-stop-{}", std::process::id()));
        let (monitor, mut frames) = (Monitor::default(), Frames::create(path.clone(), LEVEL, 2).unwrap());
        frames.put(0, &vec![b'a'; FRAME - 1], &monitor).unwrap();
        monitor.stop();
        assert!(matches!(frames.end(&monitor), Err(Error::Interrupted)));
        assert!(matches!(frames.write_all(), Err(Error::Interrupted)));
        std::fs::remove_file(path).unwrap();
    }
}
