//! A stretch of input and the documents found in it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::report::{Fault, Kind};
use super::{ReadOptions, Texts, json, line_ends};
use crate::memory::try_reserve;
use crate::{Error, Result};

/// Consecutive documents of one file. The text lies in one buffer that is used again for the next batch.
#[derive(Debug, Default)]
pub struct Batch {
    /// Read bytes are `buffer[..filled]`; what follows is left over from earlier batches.
    pub(super) buffer: Vec<u8>,
    pub(super) filled: usize,
    /// The documents. Each range of `buffer` is valid UTF-8.
    spans: Vec<Range<usize>>,
    pub(super) faults: Vec<(Option<u64>, Fault)>,
    pub(super) framing: Framing,
    /// 1-based number of the first line, or row, in the file.
    pub(super) first_line: u64,
    pub(super) path: Arc<PathBuf>,
    /// Place of the file among all.
    pub(super) source: usize,
}

/// How the bytes of a batch are cut into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Framing {
    /// One JSON object per line.
    #[default]
    JsonLines,
    /// One document per line.
    TextLines,
    /// One document.
    Whole,
    /// [`Batch::push`] was called for each document.
    Rows,
}

impl Batch {
    /// The documents, in order.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.spans.iter().map(|span| {
            // SAFETY: `spans` holds only what `add` or `parse_json` have checked and what `fill` took from a `String`;
            // nobody outside this module's parent can change `buffer` between parsing and here.
            unsafe { std::str::from_utf8_unchecked(&self.buffer[span.clone()]) }
        })
    }

    /// How many documents.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// UTF-8 bytes of all documents.
    pub fn text_bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.len() as u64).sum()
    }

    /// The file that the documents come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn start(&mut self, framing: Framing, path: &Arc<PathBuf>, first_line: u64) {
        self.filled = 0;
        self.spans.clear();
        self.faults.clear();
        self.framing = framing;
        self.first_line = first_line;
        self.path = Arc::clone(path);
    }

    /// `room` more writable bytes behind what is filled.
    pub(super) fn spare(&mut self, room: usize) -> Result<&mut [u8]> {
        if let Some(more) = (self.filled + room).checked_sub(self.buffer.len()) {
            try_reserve(&mut self.buffer, more).map_err(|_| Error::memory(self.path.as_path(), more))?;
            self.buffer.resize(self.filled + room, 0);
        }
        Ok(&mut self.buffer[self.filled..self.filled + room])
    }

    /// Copies `bytes` behind what is filled.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.spare(bytes.len())?.copy_from_slice(bytes);
        self.filled += bytes.len();
        Ok(())
    }

    /// Appends one document, or a fault at `line` if it is not UTF-8.
    pub(super) fn push(&mut self, bytes: &[u8], line: u64) -> Result<()> {
        let start = self.filled;
        self.append(bytes)?;
        self.add(start..self.filled, Some(line), false);
        Ok(())
    }

    /// Counts a line, or a file as a whole, that is longer than `max` bytes.
    pub(super) fn push_too_long(&mut self, line: Option<u64>, max: usize) {
        let reason = format!("longer than {max} bytes (`max_line_bytes`)");
        self.faults.push((line, Fault::new(Kind::TooLong, reason)));
    }

    /// Appends documents that are known to be text.
    pub(super) fn fill(&mut self, texts: &Texts) -> Result<()> {
        let mut start = self.filled;
        self.append(texts.text.as_bytes())?;
        for end in &texts.ends {
            self.spans.push(start..end + self.filled - texts.text.len());
            start = self.spans[self.spans.len() - 1].end;
        }
        Ok(())
    }

    /// Finds the documents in what is filled.
    pub(super) fn parse(&mut self, options: &ReadOptions) {
        let valid = || simdutf8::basic::from_utf8(&self.buffer[..self.filled]).is_ok();
        match self.framing {
            Framing::Rows => {}
            Framing::Whole if self.filled > options.max_line_bytes => self.push_too_long(None, options.max_line_bytes),
            Framing::Whole if self.filled == 0 => {}
            Framing::Whole => self.add(0..self.filled, None, false),
            Framing::JsonLines => {
                let valid = valid();
                self.for_each_line(options, |batch, span, line| {
                    batch.parse_json(span, line, valid, &options.text_field);
                });
            }
            Framing::TextLines => {
                let valid = valid();
                self.for_each_line(options, |batch, span, line| {
                    if options.keep_blank_lines || !batch.buffer[span.clone()].trim_ascii().is_empty() {
                        batch.add(span, Some(line), valid);
                    }
                });
            }
        }
    }

    fn for_each_line(&mut self, options: &ReadOptions, mut each: impl FnMut(&mut Self, Range<usize>, u64)) {
        let (mut at, mut line) = (0, self.first_line);
        while at < self.filled {
            let (length, whole) = line_ends::split(&self.buffer[at..self.filled]);
            if length > options.max_line_bytes {
                self.push_too_long(Some(line), options.max_line_bytes);
            } else {
                each(self, at..at + length, line);
            }
            at += whole;
            line += 1;
        }
    }

    fn parse_json(&mut self, span: Range<usize>, line: u64, valid: bool, field: &str) {
        let bytes = &mut self.buffer[span.clone()];
        if bytes.trim_ascii().is_empty() {
            return;
        }
        if !valid && let Err(fault) = check_utf8(bytes) {
            return self.faults.push((Some(line), fault));
        }
        match json::extract(bytes, field) {
            Ok(text) => self.spans.push(span.start + text.start..span.start + text.end),
            Err(fault) => self.faults.push((Some(line), fault)),
        }
    }

    /// Adds a document; `valid` says that its bytes are known to be UTF-8.
    fn add(&mut self, span: Range<usize>, line: Option<u64>, valid: bool) {
        match if valid { Ok(()) } else { check_utf8(&self.buffer[span.clone()]) } {
            Ok(()) => self.spans.push(span),
            Err(fault) => self.faults.push((line, fault)),
        }
    }
}

fn check_utf8(bytes: &[u8]) -> std::result::Result<(), Fault> {
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        return Ok(());
    }
    let at = std::str::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
    let what = format!("not UTF-8 at byte {} (0x{:02x})", at + 1, bytes[at]);
    Err(Fault::new(Kind::InvalidUtf8, format!("{what}; convert the file to UTF-8 or leave the line out")))
}
