//! Fingerprints of files and bytes.

use std::path::PathBuf;

use langadapt_core::hash;
use pyo3::prelude::*;

use crate::gate;

/// XXH3-128 of a file as 32 hex digits.
#[pyfunction]
pub fn hash_file(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    gate::run(py, None, |monitor| hash::hash_file(&path, monitor)).map(|digest| format!("{digest:032x}"))
}

/// XXH3-128 of bytes as 32 hex digits.
#[pyfunction]
pub fn hash_bytes(data: &[u8]) -> String {
    format!("{:032x}", hash::hash_bytes(data))
}
