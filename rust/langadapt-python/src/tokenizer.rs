//! The native tokenizer.

use std::path::PathBuf;

use langadapt_core::Monitor;
use langadapt_core::bpe::{CachePool, Encoded, Late, Load, NativeTokenizer, Shares, Text};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyString;

use crate::error::to_python;
use crate::gate::{self, Watch};

/// Bytes of a text that takes milliseconds to encode.
const LONG_TEXT: usize = 1 << 20;

/// Characters that are brought in milliseconds.
const CHECK_EVERY: usize = 4 << 20;

/// Ids and offsets, as NumPy arrays.
type Arrays<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u64>>);

/// An exact encoder of one `tokenizer.json`, and the caches that its calls leave behind.
#[pyclass(frozen, name = "NativeTokenizer", module = "langadapt._core")]
pub struct PyTokenizer {
    pub(crate) tokenizer: NativeTokenizer,
    pub(crate) pool: CachePool,
}

#[pymethods]
impl PyTokenizer {
    /// The tokenizer of `json`, read from `path`, or the reason why it is none of the native families.
    #[staticmethod]
    fn load(py: Python<'_>, json: &[u8], path: PathBuf) -> PyResult<(Option<Self>, Option<String>)> {
        // The first array imports NumPy and asks for its version, in Python; a Ctrl-C at that moment would be a panic.
        py.import("numpy")?;
        py.check_signals()?;
        PyArray1::<u32>::zeros(py, 0, false);
        let loaded = py.detach(|| NativeTokenizer::load(json, &path)).map_err(|error| to_python(py, error))?;
        Ok(match loaded {
            Load::Native(tokenizer) => (Some(Self { tokenizer: *tokenizer, pool: CachePool::default() }), None),
            Load::Foreign(reason) => (None, Some(reason)),
        })
    }

    #[getter]
    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    #[getter]
    fn is_byte_level(&self) -> bool {
        self.tokenizer.is_byte_level()
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        add_special_tokens: bool,
    ) -> PyResult<Bound<'py, PyArray1<u32>>> {
        let encode = |monitor: &Monitor| {
            let mut cache = self.pool.lend(monitor);
            let mut ids = Vec::with_capacity(text.len() / 3 + 8);
            if add_special_tokens {
                self.tokenizer.encode_with_template(text, &mut cache, &mut ids);
            } else {
                self.tokenizer.encode_into(text, &mut cache, &mut ids);
            }
            monitor.check().map(|()| ids)
        };
        // Watching costs a thread, tens of microseconds: too much for a sentence.
        let ids = if text.len() < LONG_TEXT {
            py.detach(|| encode(&Monitor::default())).map_err(|error| to_python(py, error))?
        } else {
            gate::run(py, None, encode)?
        };
        Ok(ids.into_pyarray(py))
    }

    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Py<PyString>>,
        add_special_tokens: bool,
        threads: usize,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Arrays<'py>> {
        let late: Vec<Late<PyBackedStr>> =
            texts.iter().map(|text| text.bind(py).len().map(Late::new)).collect::<PyResult<_>>()?;
        let shares = Shares::new(&late, threads);
        // Text that is not ASCII becomes UTF-8 here, on one thread: a sixth of the time of encoding it on two.
        let feed = |_: &mut Watch<'_>| Python::attach(|py| bring_all(py, &texts, &late, shares.order()));
        let encode = |monitor: &Monitor| {
            monitor.begin("tokenize", "characters", Some(shares.size()));
            self.tokenizer.encode_batch(&late, &shares, add_special_tokens, &self.pool, monitor)
        };
        let Encoded { ids, offsets } = gate::run_fed(py, progress, feed, encode)?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    fn decode(&self, ids: PyReadonlyArray1<'_, u32>, skip_special_tokens: bool) -> PyResult<String> {
        Ok(self.tokenizer.decode(ids.as_slice()?, skip_special_tokens))
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<&str> {
        self.tokenizer.id_to_token(id)
    }

    /// (id, content, special, normalized) of all added tokens.
    fn added_tokens(&self) -> Vec<(u32, String, bool, bool)> {
        let tokens = self.tokenizer.added_tokens().iter();
        tokens.map(|token| (token.id, token.content.clone(), token.special, token.normalized)).collect()
    }

    /// Ids of pieces that no text becomes.
    fn unreachable(&self, py: Python<'_>) -> Vec<u32> {
        py.detach(|| self.tokenizer.unreachable())
    }

    /// Ids put before and behind a text with `add_special_tokens`.
    fn template(&self) -> (Vec<u32>, Vec<u32>) {
        let (prefix, suffix) = self.tokenizer.template();
        (prefix.to_vec(), suffix.to_vec())
    }
}

/// Brings all texts in this order; none is left to wait for, whatever is raised.
fn bring_all(
    py: Python<'_>,
    texts: &[Py<PyString>],
    late: &[Late<PyBackedStr>],
    order: impl Iterator<Item = usize>,
) -> PyResult<()> {
    let mut size = 0;
    let brought = order.into_iter().try_for_each(|at| {
        late[at].bring(Some(texts[at].bind(py).clone().try_into()?));
        size += late[at].size();
        if size > CHECK_EVERY {
            size = 0;
            // Other Python threads have their turn, too.
            py.detach(|| ());
            py.check_signals()?;
        }
        Ok(())
    });
    late.iter().for_each(|text| text.bring(None));
    brought
}
