//! Core errors to Python exceptions, keeping their kind.
//!
//! A missing file is `FileNotFoundError`, a bad argument `ValueError`, a stop `KeyboardInterrupt`; bad data is
//! `langadapt.errors.DataError`, which lives in Python so that the whole tree is documented in one place.

use langadapt_core::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;

/// Turns a core error into the Python exception that a caller would expect.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Io { path, source } => {
            // `OSError(errno, text, file)` picks the right subclass by itself.
            let text = source.to_string();
            // Rust repeats the number that Python shows as `errno`.
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            match source.raw_os_error() {
                Some(code) => PyOSError::new_err((code, text, path)),
                None => data_error(py, format!("{}: {text}", path.display())),
            }
        }
        Error::Argument(text) => PyValueError::new_err(text),
        Error::Interrupted => PyKeyboardInterrupt::new_err("interrupted"),
        other => data_error(py, other.to_string()),
    }
}

fn data_error(py: Python<'_>, text: String) -> PyErr {
    let built = py
        .import("langadapt.errors")
        .and_then(|module| module.getattr("DataError"))
        .and_then(|class| class.call1((text,)));
    match built {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
