//! Work on documents that come as names of files or out of a Python iterator.
//!
//! An iterator is read in bounded refills on the calling thread, the only one that runs Python; the workers read from
//! a bounded queue and never wait for the interpreter.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use langadapt_core::corpus::{Feed, Inputs, Texts};
use langadapt_core::progress::{Progress, watched};
use langadapt_core::{Monitor, Result};
use pyo3::prelude::*;
use pyo3::types::{PyIterator, PyString};

use crate::error::to_python;
use crate::gate::{self, POLL};

/// Text taken from the iterator at a time.
const REFILL_BYTES: usize = 512 << 10;
/// How soon the calling thread comes back to refill.
const SOON: Duration = Duration::from_millis(1);

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
            run_fed(py, progress, documents, work)
        }
    }
}

fn run_fed<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    documents: Py<PyIterator>,
    work: impl FnOnce(&Monitor, &Inputs) -> Result<T> + Send,
) -> PyResult<T> {
    let mut feeder = Feeder {
        feed: Arc::new(Feed::default()),
        documents: Some(documents),
        unsent: None,
        progress,
        polled: Instant::now(),
        raised: None,
    };
    let inputs = Inputs::from_feed(Arc::clone(&feeder.feed));
    let outcome = py.detach(|| watched(SOON, |reading| feeder.watch(reading), |monitor| work(monitor, &inputs)));
    match (feeder.raised, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(value)) => Ok(value),
        (None, Err(error)) => Err(to_python(py, error)),
    }
}

struct Feeder {
    feed: Arc<Feed>,
    documents: Option<Py<PyIterator>>,
    unsent: Option<Texts>,
    progress: Option<Py<PyAny>>,
    polled: Instant,
    raised: Option<PyErr>,
}

impl Feeder {
    fn watch(&mut self, reading: Progress) -> ControlFlow<()> {
        match self.refill().and_then(|()| self.poll(reading)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.raised = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Pushes until the queue is full, the iterator at its end or a poll due.
    fn refill(&mut self) -> PyResult<()> {
        while self.polled.elapsed() < POLL {
            let texts = match self.unsent.take() {
                Some(texts) => texts,
                None => match self.pull()? {
                    Some(texts) => texts,
                    None => break,
                },
            };
            if let Err(texts) = self.feed.push(texts, POLL / 2) {
                self.unsent = Some(texts);
                break;
            }
        }
        Ok(())
    }

    fn pull(&mut self) -> PyResult<Option<Texts>> {
        let Some(documents) = &self.documents else { return Ok(None) };
        let (texts, at_end) = Python::attach(|py| -> PyResult<_> {
            let mut iterator = documents.bind(py).clone();
            let mut texts = Texts::default();
            while texts.text.len() < REFILL_BYTES {
                let Some(document) = iterator.next() else { return Ok((texts, true)) };
                texts.push(document?.cast::<PyString>()?.to_str()?);
            }
            Ok((texts, false))
        })?;
        if at_end {
            self.documents = None;
            if !texts.is_empty() {
                // Close only after these are in the queue.
                self.push_last(texts)?;
            }
            self.feed.close();
            return Ok(None);
        }
        Ok(Some(texts))
    }

    fn push_last(&mut self, mut texts: Texts) -> PyResult<()> {
        while let Err(back) = self.feed.push(texts, POLL) {
            Python::attach(|py| py.check_signals())?;
            texts = back;
        }
        Ok(())
    }

    fn poll(&mut self, reading: Progress) -> PyResult<()> {
        if self.polled.elapsed() < POLL {
            return Ok(());
        }
        self.polled = Instant::now();
        Python::attach(|py| {
            py.check_signals()?;
            if let Some(callback) = &self.progress {
                callback.call1(py, (reading.phase, reading.done, reading.total, reading.unit))?;
            }
            Ok(())
        })
    }
}
