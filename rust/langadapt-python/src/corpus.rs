//! Documents for Python: a background reader behind an iterator, and reports as plain values.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use langadapt_core::corpus::{
    Batch, BuildSettings, Dropped, Filters, Inputs, Part, ReadOptions, ReadReport, RepetitionLimits, SplitCount,
    TextUnit, Texts, build, build_part as build_shard, join, map_documents,
};
use langadapt_core::{Error, Monitor, Result};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use crate::error::{panicked, to_python};
use crate::feed::{self, Source};
use crate::gate::{self, POLL};
use crate::language::PyLanguage;

/// Batches that wait for Python; two keep the reader busy.
const WAITING: usize = 2;
/// Python cannot take text faster than two threads parse it.
const THREADS: usize = 2;

/// How to read documents, by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Reading {
    text_field: String,
    strict: bool,
    text_unit: String,
    #[pyo3(default)]
    max_line_bytes: Option<usize>,
    /// Whether a shard without a document is one.
    #[pyo3(default)]
    allow_empty: bool,
}

impl Reading {
    pub fn options(self) -> PyResult<ReadOptions> {
        let text_unit = match self.text_unit.as_str() {
            "line" => TextUnit::Line,
            "file" => TextUnit::File,
            other => {
                let text = format!("text_unit: {other:?}; it is \"line\" or \"file\"");
                return Err(pyo3::exceptions::PyValueError::new_err(text));
            }
        };
        let Self { text_field, strict, max_line_bytes, allow_empty, .. } = self;
        let usual = ReadOptions::default();
        let max_line_bytes = max_line_bytes.unwrap_or(usual.max_line_bytes);
        Ok(ReadOptions { text_field, strict, text_unit, max_line_bytes, allow_empty, ..usual })
    }
}

/// A report as nested dicts and lists.
pub fn report<'py>(py: Python<'py>, report: &ReadReport) -> PyResult<Bound<'py, PyDict>> {
    let skipped = PyDict::new(py);
    skipped.set_item("malformed_json", report.skipped.malformed_json)?;
    skipped.set_item("missing_text", report.skipped.missing_text)?;
    skipped.set_item("invalid_utf8", report.skipped.invalid_utf8)?;
    skipped.set_item("too_long", report.skipped.too_long)?;
    let problems = PyList::empty(py);
    for problem in &report.first_problems {
        let entry = PyDict::new(py);
        entry.set_item("path", problem.path.to_string_lossy())?;
        entry.set_item("line", problem.line)?;
        entry.set_item("reason", &problem.reason)?;
        problems.append(entry)?;
    }
    let all = PyDict::new(py);
    all.set_item("files", report.files)?;
    all.set_item("documents", report.documents)?;
    all.set_item("bytes", report.bytes)?;
    all.set_item("skipped", skipped)?;
    all.set_item("first_problems", problems)?;
    Ok(all)
}

/// The files that names, folders and patterns stand for.
#[pyfunction]
pub fn expand_inputs(py: Python<'_>, names: Vec<String>) -> PyResult<Vec<PathBuf>> {
    let inputs = py.detach(|| Inputs::expand(&names)).map_err(|error| to_python(py, error))?;
    Ok(inputs.paths().map(PathBuf::from).collect())
}

/// A copy of a batch's texts that outlives it.
fn texts_of(batch: &Batch) -> Texts {
    let mut texts = Texts::default();
    batch.texts().for_each(|text| texts.push(text));
    texts
}

enum Message {
    Texts(Texts),
    /// The report, or an error; instead of both, a panic.
    End(PyResult<Result<ReadReport>>),
}

/// Reads documents on threads of its own; an iterator of lists of texts.
#[pyclass(module = "langadapt._core", frozen)]
pub struct DocumentReader {
    messages: Mutex<Receiver<Message>>,
    monitor: Arc<Monitor>,
    report: Mutex<Option<ReadReport>>,
}

#[pymethods]
impl DocumentReader {
    #[new]
    fn new(py: Python<'_>, names: Vec<String>, reading: Reading) -> PyResult<Self> {
        let options = reading.options()?;
        let inputs = py.detach(|| Inputs::expand(&names)).map_err(|error| to_python(py, error))?;
        let monitor = Arc::new(Monitor::default());
        let (sender, messages) = sync_channel(WAITING);
        let watch = Arc::clone(&monitor);
        let reader = std::thread::Builder::new().spawn(move || {
            let map = |(): &mut (), batch: &Batch| Ok(texts_of(batch));
            // The receiver is gone once Python has dropped the iterator.
            let emit = |texts| sender.send(Message::Texts(texts)).map_err(|_| Error::Interrupted);
            let read = || map_documents(&inputs, &options, THREADS, &watch, || (), map, emit);
            // Nothing of what a panic left half done is used again.
            let end = catch_unwind(AssertUnwindSafe(read)).map_err(|payload| panicked(payload.as_ref()));
            let _ = sender.send(Message::End(end));
        });
        reader.map_err(|error| to_python(py, Error::io("a thread of this process", error)))?;
        Ok(Self { messages: Mutex::new(messages), monitor, report: Mutex::new(None) })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        let lock = |mutex| Mutex::lock(mutex).unwrap_or_else(PoisonError::into_inner);
        if self.report.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(None);
        }
        loop {
            match py.detach(|| lock(&self.messages).recv_timeout(POLL)) {
                Ok(Message::Texts(texts)) => return to_list(py, &texts).map(Some),
                Ok(Message::End(Ok(Ok(report)))) => {
                    *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
                    return Ok(None);
                }
                Ok(Message::End(Ok(Err(error)))) => return Err(to_python(py, error)),
                Ok(Message::End(Err(panic))) => return Err(panic),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Counts and problems as a dict; `None` before the end.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let found = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().map(|found| report(py, found)).transpose()
    }
}

impl Drop for DocumentReader {
    fn drop(&mut self) {
        self.monitor.stop();
    }
}

fn to_list<'py>(py: Python<'py>, texts: &Texts) -> PyResult<Bound<'py, PyList>> {
    let mut start = 0;
    let parts = texts.ends.iter().map(|&end| {
        let part = PyString::new(py, &texts.text[start..end]);
        start = end;
        part
    });
    PyList::new(py, parts)
}

/// Filters and split of [`build_corpus`], by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct BuildOptions {
    min_chars: Option<u64>,
    max_chars: Option<u64>,
    keep_pattern: Option<String>,
    drop_pattern: Option<String>,
    language: Option<Py<PyLanguage>>,
    repetition: bool,
    exact_duplicates: bool,
    near_duplicates: bool,
    validation_share: f64,
    validation_bytes: Option<u64>,
    validation_documents: Option<u64>,
    block_bytes: u64,
    threads: usize,
}

impl BuildOptions {
    fn settings(&self) -> Result<BuildSettings> {
        let pattern = |text: &Option<String>| text.as_deref().map(Filters::pattern).transpose();
        Ok(BuildSettings {
            filters: Filters {
                min_chars: self.min_chars,
                max_chars: self.max_chars,
                keep_pattern: pattern(&self.keep_pattern)?,
                drop_pattern: pattern(&self.drop_pattern)?,
                language: self.language.as_ref().map(|language| Arc::clone(&language.get().0)),
                repetition: self.repetition.then(RepetitionLimits::default),
                exact_duplicates: self.exact_duplicates,
                near_duplicates: self.near_duplicates,
            },
            validation_share: self.validation_share,
            validation_bytes: self.validation_bytes,
            validation_documents: self.validation_documents,
            block_bytes: self.block_bytes,
        })
    }
}

/// Filters, deduplicates and splits; writes `train.jsonl.zst` and `validation.jsonl.zst` into `folder`.
#[pyfunction]
pub fn build_corpus<'py>(
    py: Python<'py>,
    source: Source,
    folder: PathBuf,
    settings: &Bound<'py, PyDict>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = settings.extract::<Reading>()?.options()?;
    let settings: BuildOptions = settings.extract()?;
    let built = settings.settings().map_err(|error| to_python(py, error))?;
    let threads = settings.threads;
    let found =
        feed::run(py, progress, source, |monitor, inputs| build(inputs, &options, &built, &folder, threads, monitor))?;
    let all = PyDict::new(py);
    all.set_item("read", report(py, &found.read)?)?;
    all.set_item("dropped", dropped_of(py, &found.dropped)?)?;
    all.set_item("train", split_of(py, found.train)?)?;
    all.set_item("validation", split_of(py, found.validation)?)?;
    Ok(all)
}

fn split_of(py: Python<'_>, count: SplitCount) -> PyResult<Bound<'_, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item("documents", count.documents)?;
    entry.set_item("bytes", count.bytes)?;
    Ok(entry)
}

fn dropped_of<'py>(py: Python<'py>, dropped: &Dropped) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    for (name, count) in dropped.by_name() {
        entry.set_item(name, count)?;
    }
    Ok(entry)
}

/// A shard's part of [`build_corpus`], of whole blocks of files; it may be empty.
#[pyfunction]
pub fn build_part<'py>(
    py: Python<'py>,
    names: Vec<String>,
    folder: PathBuf,
    settings: &Bound<'py, PyDict>,
    first: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = settings.extract::<Reading>()?.options()?;
    let settings: BuildOptions = settings.extract()?;
    let built = settings.settings().map_err(|error| to_python(py, error))?;
    let (read, dropped, train, documents) = gate::run(py, progress, |monitor| {
        let inputs = if names.is_empty() { Inputs::default() } else { Inputs::expand(&names)? };
        build_shard(&inputs, &options, &built, &folder, first, settings.threads, monitor)
    })?;
    let all = PyDict::new(py);
    all.set_item("read", report(py, &read)?)?;
    all.set_item("dropped", dropped_of(py, &dropped)?)?;
    all.set_item("train", split_of(py, train)?)?;
    all.set_item("passed", documents)?;
    Ok(all)
}

/// Puts parts together: each a folder, documents and bytes of its finished training text, and how many passed.
#[pyfunction]
pub fn join_corpus<'py>(
    py: Python<'py>,
    parts: Vec<(PathBuf, u64, u64, u64)>,
    folder: PathBuf,
    settings: &Bound<'py, PyDict>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let settings: BuildOptions = settings.extract()?;
    let built = settings.settings().map_err(|error| to_python(py, error))?;
    let part =
        |(folder, train, bytes, documents)| Part { folder, train: SplitCount { documents: train, bytes }, documents };
    let parts: Vec<Part> = parts.into_iter().map(part).collect();
    let found = gate::run(py, progress, |monitor| join(&parts, &built, &folder, settings.threads, monitor))?;
    let all = PyDict::new(py);
    all.set_item("dropped", dropped_of(py, &found.dropped)?)?;
    all.set_item("train", split_of(py, found.train)?)?;
    all.set_item("validation", split_of(py, found.validation)?)?;
    Ok(all)
}
