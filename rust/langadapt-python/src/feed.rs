//! Work on documents that come as names of files or out of a Python iterator.
//!
//! An iterator is read in bounded refills on the calling thread, the only one that runs Python; the workers read from
//! a bounded queue and never wait for the interpreter.

use std::sync::Arc;
use std::time::Duration;

use langadapt_core::corpus::{Feed, Inputs, Texts};
use langadapt_core::{Monitor, Result};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyString};

use crate::gate::{self, Watch};

/// Text taken from the iterator at a time.
const REFILL_BYTES: usize = 512 << 10;
/// How long a full queue is waited for at a time.
const PATIENCE: Duration = Duration::from_millis(20);

/// Where documents come from.
#[derive(FromPyObject)]
pub enum Source {
    /// Files, folders, patterns.
    Names(Vec<String>),
    /// An iterator of strings.
    Documents(Py<PyAny>),
}

/// As [`gate::run`], for work that reads documents.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    source: Source,
    work: impl FnOnce(&Monitor, &Inputs) -> Result<T> + Send,
) -> PyResult<T> {
    match source {
        Source::Names(names) => gate::run(py, progress, |monitor| work(monitor, &Inputs::expand(&names)?)),
        Source::Documents(documents) => {
            let documents = documents.bind(py).try_iter()?.unbind();
            let feed = Arc::new(Feed::default());
            let inputs = Inputs::from_feed(Arc::clone(&feed));
            let push = |watch: &mut Watch<'_>| push_all(&feed, &documents, watch);
            gate::run_fed(py, progress, push, |monitor| work(monitor, &inputs))
        }
    }
}

/// Pushes all documents; returns early once nobody reads any more.
fn push_all(feed: &Feed, documents: &Py<PyIterator>, watch: &mut Watch<'_>) -> PyResult<()> {
    let mut at_end = false;
    while !at_end {
        let mut texts;
        (texts, at_end) = pull(documents)?;
        while !texts.is_empty()
            && let Err(back) = feed.push(std::mem::take(&mut texts), PATIENCE)
        {
            texts = back;
            if !watch.goes_on()? {
                return Ok(());
            }
        }
        if !watch.goes_on()? {
            return Ok(());
        }
    }
    feed.close();
    Ok(())
}

/// A refill, and whether it is the last.
fn pull(documents: &Py<PyIterator>) -> PyResult<(Texts, bool)> {
    Python::attach(|py| {
        let mut iterator = documents.bind(py).clone();
        let mut texts = Texts::default();
        while texts.text.len() < REFILL_BYTES {
            let Some(document) = iterator.next() else { return Ok((texts, true)) };
            texts.push(document?.cast::<PyString>()?.to_str()?);
        }
        Ok((texts, false))
    })
}
