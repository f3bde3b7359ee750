//! Files to documents, in bounded memory.
//!
//! [`Inputs::expand`] turns paths, folders, globs and `-` into a list of files; [`fold_documents`] and
//! [`map_documents`] run a closure over all documents on several threads. A document is one line of a JSON Lines or
//! text file, one whole text file ([`TextUnit::File`]) or one row of a Parquet file.
//!
//! **Promises.** Memory is bounded by a few [`ReadOptions::batch_bytes`] per thread, two groups of frames of at most
//! 17 MiB per thread where zstd files have several, and the longest document, of at most
//! [`ReadOptions::max_line_bytes`]. Results and the first error do not depend on the number of threads. Nothing is lost
//! silently: a truncated or damaged compressed stream is an error, a line that holds no document is counted and the
//! first ten are named.
//!
//! **Cost.** One copy from the page cache or the decompressor, one UTF-8 check (SIMD), one scan of each line; escapes
//! are undone in place, text without escapes is never copied. Only the text field is kept, the other fields are
//! skipped over, though checked to be JSON.

mod ahead;
mod arriving;
mod batch;
mod build;
mod decode;
mod duplicates;
mod encoding;
mod feed;
mod frames;
mod groups;
mod gzip;
mod inputs;
mod json;
mod language;
mod line_ends;
mod lines;
mod ngrams;
mod parquet;
mod parts;
mod repetition;
mod report;
mod run;
mod settings;
mod sift;
mod sink;
mod split;
mod units;

pub use batch::Batch;
pub use build::{BuildReport, build, build_part};
pub use feed::{Feed, Texts};
pub use frames::SplitCount;
pub use inputs::Inputs;
pub use language::{Judged, Language};
pub use parts::{Joined, Part, join};
pub use repetition::RepetitionLimits;
pub use report::{Problem, ReadReport, Skipped};
pub use run::{fold_documents, map_documents};
pub use settings::BuildSettings;
pub use sift::{Dropped, Filters};

/// What one document is in a `.txt` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextUnit {
    /// Every line that is not blank.
    #[default]
    Line,
    /// The whole file.
    File,
}

/// How to read documents.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// JSON key, or dotted path of the Parquet column, that holds the text.
    pub text_field: String,
    /// Whether the first line without a document is an error; otherwise such lines are counted and skipped.
    pub strict: bool,
    /// What one document is in a `.txt` file.
    pub text_unit: TextUnit,
    /// Whether blank lines of `.txt` files are (empty) documents: keeps line-aligned files aligned.
    pub keep_blank_lines: bool,
    /// Whether no document at all is a result; otherwise it is an error.
    pub allow_empty: bool,
    /// Bytes of input that make one [`Batch`].
    pub batch_bytes: usize,
    /// Longer lines, whole files and rows hold no document: they are counted and skipped.
    pub max_line_bytes: usize,
    /// Name of the phase that the monitor reports.
    pub phase: &'static str,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            text_field: "text".to_owned(),
            strict: false,
            text_unit: TextUnit::Line,
            keep_blank_lines: false,
            allow_empty: false,
            // Half a MiB stays in a core's second-level cache from decompression to the last use.
            batch_bytes: 512 << 10,
            max_line_bytes: 64 << 20,
            phase: "read",
        }
    }
}
