//! Writing token stores.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use langadapt_core::Error;
use langadapt_core::corpus::Inputs;
use langadapt_core::store::{Packed, StoreWriter, tokenize_files};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::corpus::{Reading, report};
use crate::error::to_python;
use crate::gate;
use crate::tokenizer::PyTokenizer;

/// A store that is being written; of no use after `finish`.
#[pyclass(frozen, name = "StoreWriter", module = "langadapt._core")]
pub struct PyStoreWriter {
    writer: Mutex<Option<StoreWriter>>,
    vocab_size: usize,
}

impl PyStoreWriter {
    fn with<T>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut StoreWriter) -> langadapt_core::Result<T> + Send,
    ) -> PyResult<T>
    where
        T: Send,
    {
        py.detach(|| match self.writer.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(writer) => work(writer),
            None => Err(Error::argument("this store is finished")),
        })
        .map_err(|error| to_python(py, error))
    }
}

#[pymethods]
impl PyStoreWriter {
    #[new]
    fn new(py: Python<'_>, folder: PathBuf, vocab_size: usize) -> PyResult<Self> {
        let writer = StoreWriter::create(&folder, vocab_size).map_err(|error| to_python(py, error))?;
        Ok(Self { writer: Mutex::new(Some(writer)), vocab_size })
    }

    /// Appends documents: flat ids and their offsets.
    fn append(
        &self,
        py: Python<'_>,
        ids: PyReadonlyArray1<'_, u32>,
        offsets: PyReadonlyArray1<'_, u64>,
    ) -> PyResult<()> {
        let (ids, offsets) = (ids.as_slice()?, offsets.as_slice()?);
        self.with(py, |writer| {
            let lengths = offsets.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
            writer.append(&Packed::new(ids, lengths, self.vocab_size)?)
        })
    }

    /// Tokenizes files and appends their documents; returns the report of what was read.
    fn tokenize_files<'py>(
        &self,
        py: Python<'py>,
        tokenizer: &PyTokenizer,
        names: Vec<String>,
        reading: Reading,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut options = reading.options()?;
        options.phase = "tokenize";
        let read = gate::run(py, progress, |monitor| {
            let inputs = Inputs::expand(&names)?;
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let writer = writer.as_mut().ok_or_else(|| Error::argument("this store is finished"))?;
            tokenize_files(&tokenizer.tokenizer, &tokenizer.pool, &inputs, &options, threads, writer, monitor)
        })?;
        report(py, &read)
    }

    /// Ends the store and tells (documents, tokens).
    fn finish(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writer = writer.ok_or_else(|| to_python(py, Error::argument("this store is finished")))?;
        py.detach(|| writer.finish()).map_err(|error| to_python(py, error))
    }
}
