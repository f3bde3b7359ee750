//! A file as batches that end at line ends: LF, CR LF or CR, as Python's text files have them.

use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use super::ahead::Ahead;
use super::arriving::{Arrived, wait_for};
use super::batch::{Batch, Framing};
use super::decode::Decoded;
use super::encoding::{self, HEAD, Utf16};
use super::inputs::{Format, Source};
use super::{ReadOptions, TextUnit, line_ends};
use crate::memory::try_reserve;
use crate::{Error, Monitor, Result};

/// Bytes between two looks at the monitor: below 50 ms of decompression.
const LONGEST_STEP: usize = 8 << 20;

/// Reads one JSON Lines or text file.
pub(super) struct LineReader {
    input: Decoded,
    path: Arc<PathBuf>,
    format: Format,
    framing: Framing,
    /// The first bytes, which tell what the file is; not read yet where there is none.
    head: Option<Cursor<Vec<u8>>>,
    utf16: Option<Utf16>,
    /// The start of a line whose end has not been read yet.
    carry: Vec<u8>,
    line: u64,
    at_end: bool,
    batch_bytes: usize,
    max_line_bytes: usize,
    text_unit: TextUnit,
    _arrived: Option<Arrived>,
}

impl LineReader {
    pub fn open(source: &Source, options: &ReadOptions, monitor: &Monitor) -> Result<Self> {
        let _arrived = wait_for(source.place.as_ref(), &source.path, monitor)?;
        Ok(Self {
            input: Decoded::open(source, monitor)?,
            path: Arc::new(source.path.clone()),
            format: source.format,
            framing: Framing::JsonLines,
            head: None,
            utf16: None,
            carry: Vec::new(),
            line: 1,
            at_end: false,
            batch_bytes: options.batch_bytes.max(1),
            max_line_bytes: options.max_line_bytes,
            text_unit: options.text_unit,
            _arrived,
        })
    }

    /// What other threads can help with.
    pub fn ahead(&self) -> Option<&Arc<Ahead>> {
        self.input.ahead()
    }

    /// Fills `batch` with whole lines, at least one; false at the end of the file. Lines that are too long are faults.
    pub fn read(&mut self, batch: &mut Batch, monitor: &Monitor) -> Result<bool> {
        if self.head.is_none() {
            self.begin(monitor)?;
        }
        batch.start(self.framing, &self.path, self.line);
        if self.at_end {
            return Ok(false);
        }
        batch.append(&self.carry)?;
        self.carry.clear();
        let mut searched = batch.filled;
        while !self.at_end {
            // A line longer than a batch would otherwise be searched again and again in small steps.
            let room = self.batch_bytes.max((batch.filled / 2).min(LONGEST_STEP));
            self.fill(batch, room, monitor)?;
            if self.at_end || self.cut(batch, searched)? {
                break;
            }
            searched = batch.filled;
            // A CR may turn out to be its end.
            let may_end = batch.buffer[..batch.filled].ends_with(b"\r");
            if batch.filled - usize::from(may_end) > self.max_line_bytes {
                self.skip_line(batch, monitor)?;
                searched = 0;
            }
        }
        self.line += line_ends::count(&batch.buffer[..batch.filled]);
        Ok(batch.filled > 0 || !batch.faults.is_empty())
    }

    /// Looks at the first bytes: mark, encoding, and the format of a pipe.
    fn begin(&mut self, monitor: &Monitor) -> Result<()> {
        let mut head = vec![0; HEAD];
        let got = self.input.fill(&self.path, &mut head, monitor)?;
        head.truncate(got);
        let (utf16, mark) = encoding::detect(&head, got < HEAD)
            .map_err(|(line, reason)| Error::data_at(self.path.as_path(), line, reason))?;
        head.drain(..mark);
        self.utf16 = utf16;
        if let Some(utf16) = &mut self.utf16 {
            let mut text = Vec::new();
            utf16.push(&head, &mut text);
            head = text;
        }
        let first = head.trim_ascii_start().first();
        self.framing = match (self.format, self.text_unit) {
            (Format::JsonLines, _) => Framing::JsonLines,
            (Format::Sniff, _) if first == Some(&b'{') => Framing::JsonLines,
            (_, TextUnit::Line) => Framing::TextLines,
            (_, TextUnit::File) => Framing::Whole,
        };
        if self.framing == Framing::JsonLines
            && let Some(detail) = no_json_lines(&head)
        {
            return Err(Error::data_at(self.path.as_path(), 1, detail));
        }
        self.head = Some(Cursor::new(head));
        Ok(())
    }

    /// Reads `room` bytes of the file, fewer at its end.
    fn fill(&mut self, batch: &mut Batch, mut room: usize, monitor: &Monitor) -> Result<()> {
        if let Some(head) = &mut self.head {
            let got = head.read(batch.spare(room)?).unwrap_or(0);
            batch.filled += got;
            room -= got;
        }
        if room > 0 {
            let got = self.input.fill(&self.path, batch.spare(room)?, monitor)?;
            self.at_end = got < room;
            if let Some(utf16) = &mut self.utf16 {
                let mut text = Vec::new();
                utf16.push(&batch.buffer[batch.filled..batch.filled + got], &mut text);
                if self.at_end {
                    utf16.finish(&mut text);
                }
                batch.append(&text)?;
            } else {
                batch.filled += got;
            }
        }
        monitor.advance(self.input.take_consumed())
    }

    /// Keeps what follows the last line end for the next batch; false where there is none behind `searched`.
    fn cut(&mut self, batch: &mut Batch, searched: usize) -> Result<bool> {
        if self.framing == Framing::Whole {
            return Ok(false);
        }
        // What was searched may end in a CR, of which it is known only now whether an LF follows.
        let from = searched.saturating_sub(1);
        let Some(end) = line_ends::last(&batch.buffer[from..batch.filled]) else { return Ok(false) };
        let rest = &batch.buffer[from + end..batch.filled];
        try_reserve(&mut self.carry, rest.len()).map_err(|_| Error::memory(self.path.as_path(), rest.len()))?;
        self.carry.extend_from_slice(rest);
        batch.filled = from + end;
        Ok(true)
    }

    /// Drops the line that fills `batch` and goes on; what follows it begins the batch.
    fn skip_line(&mut self, batch: &mut Batch, monitor: &Monitor) -> Result<()> {
        let is_whole = self.framing == Framing::Whole;
        batch.push_too_long((!is_whole).then_some(self.line), self.max_line_bytes);
        while !self.at_end {
            let begins_cr = batch.buffer[..batch.filled].last() == Some(&b'\r');
            batch.filled = 0;
            batch.append(if begins_cr { b"\r" } else { b"" })?;
            self.fill(batch, self.batch_bytes, monitor)?;
            if !is_whole && let Some(end) = line_ends::first(&batch.buffer[..batch.filled], self.at_end) {
                batch.buffer.copy_within(end..batch.filled, 0);
                batch.filled -= end;
                self.line += 1;
                batch.first_line = self.line;
                return Ok(());
            }
        }
        batch.filled = 0;
        Ok(())
    }
}

/// What a file that begins with `head` is where its objects do not stand in lines of their own, with the way out. An
/// array in one line before lines of objects is one bad line; so is a `{` before them.
fn no_json_lines(head: &[u8]) -> Option<&'static str> {
    let text = head.trim_ascii_start();
    let (first, rest) = text.split_at(line_ends::split(text).0);
    let (first, before_lines) = (first.trim_ascii_end(), rest.trim_ascii_start().starts_with(b"{"));
    if text.starts_with(b"[") && !(first.ends_with(b"]") && before_lines) {
        return Some(
            "a JSON array, where every line should be an object of its own (JSON Lines); \
             `jq -c '.[]' ARRAY.json > LINES.jsonl` makes it so",
        );
    }
    (first == b"{" && !rest.is_empty() && !before_lines).then_some(
        "a JSON object over several lines, where every line should be an object of its own (JSON Lines); \
         `jq -c . OBJECTS.json > LINES.jsonl` makes it so",
    )
}
