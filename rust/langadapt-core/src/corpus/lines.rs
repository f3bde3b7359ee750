//! A file as batches that end at line ends.

use std::path::PathBuf;
use std::sync::Arc;

use super::batch::{Batch, Framing};
use super::decode::Decoded;
use super::inputs::{Format, Source};
use super::{ReadOptions, TextUnit};
use crate::{Monitor, Result};

/// Bytes between two looks at the monitor: below 50 ms of decompression.
const LONGEST_STEP: usize = 8 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads one JSON Lines or text file.
pub(super) struct LineReader {
    input: Decoded,
    path: Arc<PathBuf>,
    framing: Option<Framing>,
    /// A byte order mark has been looked for: only the first one is a mark.
    begun: bool,
    /// The start of a line whose end has not been read yet.
    carry: Vec<u8>,
    line: u64,
    at_end: bool,
    batch_bytes: usize,
    text_unit: TextUnit,
}

impl LineReader {
    pub fn open(source: &Source, options: &ReadOptions, monitor: &Monitor) -> Result<Self> {
        let framing = match source.format {
            Format::JsonLines => Some(Framing::JsonLines),
            Format::Text => Some(text_framing(options.text_unit)),
            _ => None,
        };
        Ok(Self {
            input: Decoded::open(&source.path, source.codec, monitor)?,
            path: Arc::new(source.path.clone()),
            framing,
            begun: false,
            carry: Vec::new(),
            line: 1,
            at_end: false,
            // The first step has to hold the whole mark.
            batch_bytes: options.batch_bytes.max(BYTE_ORDER_MARK.len()),
            text_unit: options.text_unit,
        })
    }

    /// Fills `batch` with whole lines, at least one; false at the end of the file.
    pub fn read(&mut self, batch: &mut Batch, monitor: &Monitor) -> Result<bool> {
        batch.start(self.framing.unwrap_or_default(), &self.path, self.line);
        if self.at_end {
            return Ok(false);
        }
        batch.append(&self.carry);
        self.carry.clear();
        loop {
            let before = batch.filled;
            // A line longer than a batch would otherwise be searched again and again in small steps.
            let room = self.batch_bytes.max((before / 2).min(LONGEST_STEP));
            let got = self.input.fill(&self.path, batch.spare(room), monitor)?;
            batch.filled += got;
            monitor.advance(self.input.take_consumed())?;
            self.at_end = got < room;
            if before == 0 {
                self.look_at_start(batch);
            }
            if self.at_end {
                break;
            }
            if self.framing != Some(Framing::Whole)
                && let Some(end) = memchr::memrchr(b'\n', &batch.buffer[before..batch.filled])
            {
                self.carry.extend_from_slice(&batch.buffer[before + end + 1..batch.filled]);
                batch.filled = before + end + 1;
                break;
            }
        }
        self.line += memchr::memchr_iter(b'\n', &batch.buffer[..batch.filled]).count() as u64;
        Ok(batch.filled > 0)
    }

    /// Drops a byte order mark, and tells the format of a pipe.
    fn look_at_start(&mut self, batch: &mut Batch) {
        if !std::mem::replace(&mut self.begun, true) && batch.buffer[..batch.filled].starts_with(BYTE_ORDER_MARK) {
            batch.buffer.copy_within(BYTE_ORDER_MARK.len()..batch.filled, 0);
            batch.filled -= BYTE_ORDER_MARK.len();
        }
        if batch.filled == 0 && !self.at_end {
            return;
        }
        let first = batch.buffer[..batch.filled].trim_ascii_start().first();
        let framing = *self.framing.get_or_insert(match first {
            Some(b'{') => Framing::JsonLines,
            _ => text_framing(self.text_unit),
        });
        batch.framing = framing;
    }
}

fn text_framing(unit: TextUnit) -> Framing {
    match unit {
        TextUnit::Line => Framing::TextLines,
        TextUnit::File => Framing::Whole,
    }
}
