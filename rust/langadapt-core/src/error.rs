//! One error type for the crate: what is wrong, where, and what to do about it.

use std::fmt::Display;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, with the datum a user needs to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}", printable(path.display()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what its name or format promises.
    #[error("{}{}: {}", printable(path.display()), line.map(|n| format!(":{n}")).unwrap_or_default(), printable(detail))]
    Data {
        /// The file.
        path: PathBuf,
        /// 1-based line, where the format has lines.
        line: Option<u64>,
        /// What is wrong and what to do.
        detail: String,
    },
    /// An argument is out of range or does not fit another one.
    #[error("{0}")]
    Argument(String),
    /// The operating system refused memory.
    #[error("{}: {detail}", printable(path.display()))]
    Memory {
        /// The file that asks for it.
        path: PathBuf,
        /// How much it would have been, and what to do.
        detail: String,
    },
    /// The caller's watch answered "stop" (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An [`Error::Io`] at `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// An [`Error::Data`] for the whole file at `path`.
    pub fn data(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Data { path: path.into(), line: None, detail: detail.into() }
    }

    /// An [`Error::Data`] at a 1-based line of `path`.
    pub fn data_at(path: impl Into<PathBuf>, line: u64, detail: impl Into<String>) -> Self {
        Self::Data { path: path.into(), line: Some(line), detail: detail.into() }
    }

    /// An [`Error::Memory`] for `bytes` more bytes of the file at `path`.
    pub fn memory(path: impl Into<PathBuf>, bytes: usize) -> Self {
        let detail = format!("the system refuses {bytes} more bytes of memory: free some or use fewer threads");
        Self::Memory { path: path.into(), detail }
    }

    /// An [`Error::Argument`].
    pub fn argument(detail: impl Into<String>) -> Self {
        Self::Argument(detail.into())
    }
}

/// `text` on one line that a terminal shows and does not obey: names of files and columns are the user's, and damaged
/// ones anybody's.
fn printable(text: impl Display) -> String {
    let mut shown = String::new();
    for character in text.to_string().chars() {
        if character.is_control() {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn messages_have_one_line() {
        let error = Error::data_at("a\nb.parquet", 3, "no column `\u{1b}[31m`\n");
        assert_eq!(error.to_string(), "a\\nb.parquet:3: no column `\\u{1b}[31m`\\n");
    }
}
