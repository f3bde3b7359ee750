//! Token counts of corpora, for the statistics that Python makes of them.

use langadapt_core::corpus::ReadOptions;
use langadapt_core::fertility::{Contender, Surfaces, count};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::corpus::report;
use crate::feed::{self, Source};
use crate::tokenizer::PyTokenizer;

/// Counts one corpus for several tokenizers in one pass.
///
/// `aligned` keeps blank lines of text files and is strict, so that line n of one file stays line n.
#[pyfunction]
pub fn count_tokens<'py>(
    py: Python<'py>,
    source: Source,
    tokenizers: Vec<Py<PyTokenizer>>,
    text_field: String,
    aligned: bool,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = ReadOptions {
        text_field,
        strict: aligned,
        keep_blank_lines: aligned,
        phase: "count tokens",
        ..ReadOptions::default()
    };
    let (tally, read) = feed::run(py, progress, source, |monitor, inputs| {
        let surfaces: Vec<_> = tokenizers.iter().map(|one| Surfaces::of(&one.get().tokenizer)).collect();
        let contenders: Vec<_> = tokenizers
            .iter()
            .zip(&surfaces)
            .map(|(one, surfaces)| Contender { tokenizer: &one.get().tokenizer, surfaces })
            .collect();
        count(inputs, &options, &contenders, threads, monitor)
    })?;
    let found = PyList::empty(py);
    for one in tally.tokenizers {
        let words = (one.continued_words, one.torn_words, one.placed_words);
        found.append((one.counts.into_pyarray(py), words))?;
    }
    let all = PyDict::new(py);
    all.set_item("read", report(py, &read)?)?;
    all.set_item("characters", tally.characters)?;
    all.set_item("words", tally.words)?;
    all.set_item("unicode_words", tally.unicode_words)?;
    all.set_item("graphemes", tally.graphemes)?;
    all.set_item("tokenizers", found)?;
    Ok(all)
}

/// Characters of each id's text, and whether it is less than whole characters.
#[pyfunction]
pub fn token_surfaces<'py>(
    py: Python<'py>,
    tokenizer: &PyTokenizer,
) -> (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<bool>>) {
    let surfaces = py.detach(|| Surfaces::of(&tokenizer.tokenizer));
    (surfaces.characters.into_pyarray(py), surfaces.is_byte.into_pyarray(py))
}
