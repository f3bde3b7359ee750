//! Text to words, and files of their counts.

use std::path::PathBuf;

use langadapt_core::bpe::train::merge_counts as merge_files;
use langadapt_core::pretokenize::{Pattern, Scanner};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate;

/// The matches of a regex in `text`.
///
/// # Errors
/// `ValueError`: what in it is outside the subset that is compiled.
#[pyfunction]
pub fn pretokenize<'t>(text: &'t str, regex: &str) -> PyResult<Vec<&'t str>> {
    let scanner = Scanner::new(regex).map_err(|outside| PyValueError::new_err(outside.to_string()))?;
    let mut pieces = Vec::new();
    scanner.for_each(text.as_bytes(), |start, end| pieces.push(&text[start..end]));
    Ok(pieces)
}

/// Regexes of well-known tokenizers, by name.
#[pyfunction]
pub fn pretokenize_patterns() -> Vec<(&'static str, &'static str)> {
    Pattern::ALL.map(|pattern| (pattern.name(), pattern.regex())).to_vec()
}

/// Adds up files of word counts into another; how many different words there are.
#[pyfunction]
pub fn merge_counts(py: Python<'_>, paths: Vec<PathBuf>, out: PathBuf) -> PyResult<u64> {
    gate::run(py, None, |monitor| merge_files(&paths, &out, monitor))
}
