//! Core errors to Python exceptions, keeping their kind.
//!
//! A missing file is `FileNotFoundError`, a bad argument `ValueError`, a stop `KeyboardInterrupt`; bad data is
//! `langadapt.errors.DataError`, which lives in Python so that the whole tree is documented in one place.

use std::any::Any;
use std::panic;
use std::sync::{Mutex, PoisonError};

use langadapt_core::Error;
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Turns a core error into the Python exception that a caller would expect.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Io { path, source } if source.raw_os_error().is_some() => {
            // `OSError(errno, text, file)` picks the right subclass by itself.
            let text = source.to_string();
            // Rust repeats the number that Python shows as `errno`.
            let text = text.split(" (os error").next().unwrap_or_default().to_owned();
            PyOSError::new_err((source.raw_os_error(), text, path))
        }
        Error::Argument(text) => PyValueError::new_err(text),
        Error::Memory { .. } => PyMemoryError::new_err(error.to_string()),
        Error::Interrupted => PyKeyboardInterrupt::new_err("interrupted"),
        other => data_error(py, other.to_string()),
    }
}

/// Where the last panic happened; the error of [`panicked`] tells it.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Keeps panics from printing lines of their own: whoever called gets an error of one line. With `RUST_BACKTRACE` they
/// print as ever.
pub fn quiet_panics() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        let place = about.location().map(ToString::to_string).unwrap_or_default();
        *PLACE.lock().unwrap_or_else(PoisonError::into_inner) = place;
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            others(about);
        }
    }));
}

/// The error for what [`panic::catch_unwind`] caught.
pub fn panicked(payload: &(dyn Any + Send)) -> PyErr {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default().replace('\n', " ");
    let place = PLACE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    PyRuntimeError::new_err(format!("panic at {place}: {text}"))
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
