//! The one way into long work.
//!
//! Every bound function that may take more than a few milliseconds goes through [`run`]: it detaches from Python, so
//! that other Python threads go on, and attaches again every [`POLL`] to ask for signals and to call the progress
//! callback. A Python callback is only ever called on the thread that called us; workers never attach, so no lock is
//! held while waiting for the interpreter.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use langadapt_core::progress::{Beside, watched};
use langadapt_core::{Monitor, Progress, Result};
use pyo3::prelude::*;

use crate::error::{panicked, to_python};

/// Ctrl-C is answered within this time plus the workers' longest stretch without a check.
pub const POLL: Duration = Duration::from_millis(40);

/// Runs `work` detached. `progress`, if any, is called as `progress(phase, done, total_or_None, unit)`; what it raises
/// stops the work and is raised from here.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
) -> PyResult<T> {
    run_fed(py, progress, |_| Ok(()), work)
}

/// Like [`run`]; meanwhile, before all else, `feed` is called, detached too, to give `work` what only Python can tell.
/// What it raises stops the work, too, and it may not leave `work` waiting then.
pub fn run_fed<T: Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    feed: impl FnOnce(&mut Watch<'_>) -> PyResult<()> + Send,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
) -> PyResult<T> {
    let raised = Mutex::new(None);
    let go_on = |answer: PyResult<()>| match answer {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            ControlFlow::Break(())
        }
    };
    let progress = progress.as_ref();
    let feed = |beside: &Beside<'_>| go_on(feed(&mut Watch { beside, progress, looked: Instant::now() }));
    let watched = || watched(POLL, feed, |reading| go_on(look(progress, reading)), work);
    // Nothing of what a panic left half done is used again.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| py.detach(watched)));
    match (raised.into_inner().unwrap_or_else(PoisonError::into_inner), outcome) {
        (Some(error), _) => Err(error),
        (None, Ok(Ok(value))) => Ok(value),
        (None, Ok(Err(error))) => Err(to_python(py, error)),
        (None, Err(payload)) => Err(panicked(payload.as_ref())),
    }
}

/// Asks for signals and reports.
fn look(progress: Option<&Py<PyAny>>, reading: Progress) -> PyResult<()> {
    Python::attach(|py| {
        py.check_signals()?;
        if let Some(callback) = progress {
            callback.call1(py, (reading.phase, reading.done, reading.total, reading.unit))?;
        }
        Ok(())
    })
}

/// How a feed that takes long does what [`run`] does without one.
pub struct Watch<'a> {
    beside: &'a Beside<'a>,
    progress: Option<&'a Py<PyAny>>,
    looked: Instant,
}

impl Watch<'_> {
    /// To be asked at least every few milliseconds: looks after the caller where that is due; false once the work has
    /// ended and nothing more need be fed.
    pub fn goes_on(&mut self) -> PyResult<bool> {
        if self.looked.elapsed() >= POLL {
            look(self.progress, self.beside.progress())?;
            self.looked = Instant::now();
        }
        Ok(!self.beside.is_over())
    }
}
