//! What reading found: counts, and the first lines that held no document.

use std::path::PathBuf;

/// How many problems are remembered with their place.
pub(super) const REMEMBERED: usize = 10;

/// A line, row or file that holds no document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// 1-based line, or row of a Parquet file; `None` for a file as a whole.
    pub line: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// Lines without a document, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Skipped {
    /// Not a JSON object.
    pub malformed_json: u64,
    /// The text field is absent, null or no string.
    pub missing_text: u64,
    /// Not UTF-8.
    pub invalid_utf8: u64,
    /// Longer than a line may be.
    pub too_long: u64,
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.malformed_json + self.missing_text + self.invalid_utf8 + self.too_long
    }

    pub(super) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::MalformedJson => self.malformed_json += 1,
            Kind::MissingText => self.missing_text += 1,
            Kind::InvalidUtf8 => self.invalid_utf8 += 1,
            Kind::TooLong => self.too_long += 1,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadReport {
    /// Files opened.
    pub files: u64,
    /// Documents handed on.
    pub documents: u64,
    /// Their text in UTF-8 bytes.
    pub bytes: u64,
    /// Lines that held no document; blank lines are not counted.
    pub skipped: Skipped,
    /// The first ten of those, in document order.
    pub first_problems: Vec<Problem>,
}

impl ReadReport {
    /// Why there is no document at all.
    pub(super) fn why_nothing(&self) -> String {
        let Some(problem) = self.first_problems.first() else { return "no document: the input is empty".to_owned() };
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        let (skipped, place, reason) = (self.skipped.total(), problem.path.display(), &problem.reason);
        format!("no document, {skipped} lines skipped; the first: {place}{line}: {reason}")
    }
}

/// Why a line holds no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    MalformedJson,
    MissingText,
    InvalidUtf8,
    TooLong,
}

/// A problem at a place inside a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub kind: Kind,
    pub reason: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}
