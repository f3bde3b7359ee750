//! Pre-tokenizing and tokenizer training.

use langadapt_core::pretokenize::Pattern;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The pieces of `text` under a regex that has a scanner.
#[pyfunction]
pub fn pretokenize<'t>(text: &'t str, regex: &str) -> PyResult<Vec<&'t str>> {
    let pattern = Pattern::from_regex(regex)
        .ok_or_else(|| PyValueError::new_err(format!("no scanner for this regex: `{regex}`")))?;
    let mut pieces = Vec::new();
    pattern.for_each(text, |piece| pieces.push(piece));
    Ok(pieces)
}

/// The regexes that [`pretokenize`] has a scanner for, by name.
#[pyfunction]
pub fn pretokenize_patterns() -> Vec<(&'static str, &'static str)> {
    let name = |pattern| match pattern {
        Pattern::Gpt2 => "gpt2",
        Pattern::Gpt4 => "gpt4",
        Pattern::Llama3 => "llama3",
        Pattern::Qwen2 => "qwen2",
        Pattern::O200k => "o200k",
    };
    Pattern::ALL.map(|pattern| (name(pattern), pattern.regex())).to_vec()
}
