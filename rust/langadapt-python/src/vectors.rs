//! Token vectors: CBOW training, the sparse weights of FOCUS, and the text that rows are learnt from.

use langadapt_core::snippets::{Wish, choose};
use langadapt_core::sparsemax::{Score, Similarities, SparseRows, weights};
use langadapt_core::vectors::{Settings, train};
use langadapt_core::{Monitor, Result};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate;

type Trained<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<u64>>);
type Sparse<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<f32>>);

/// [`Settings`] by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct CbowSettings {
    dim: usize,
    epochs: u32,
    window: usize,
    negatives: usize,
    min_count: u64,
    learning_rate: f32,
    subsample: f64,
    ngrams: (usize, usize),
    threads: usize,
    seed: u64,
}

impl From<CbowSettings> for Settings {
    fn from(named: CbowSettings) -> Self {
        let CbowSettings { dim, epochs, window, negatives, min_count, .. } = named;
        let CbowSettings { learning_rate, subsample, ngrams, threads, seed, .. } = named;
        Self { dim, epochs, window, negatives, min_count, learning_rate, subsample, ngrams, threads, seed }
    }
}

/// `(vectors float32[vocab, dim], counts uint64[vocab])`; see `langadapt.vectors.train_vectors`.
#[pyfunction]
pub fn train_cbow<'py>(
    py: Python<'py>,
    tokens: &Bound<'py, PyAny>,
    offsets: PyReadonlyArray1<'py, u64>,
    surfaces: Vec<String>,
    settings: CbowSettings,
    progress: Option<Py<PyAny>>,
) -> PyResult<Trained<'py>> {
    let settings = Settings::from(settings);
    let offsets = offsets.as_slice()?;
    let trained = if let Ok(tokens) = tokens.extract::<PyReadonlyArray1<'py, u16>>() {
        let tokens = tokens.as_slice()?;
        gate::run(py, progress, |monitor| train(tokens, offsets, &surfaces, &settings, monitor))?
    } else {
        let tokens = tokens.extract::<PyReadonlyArray1<'py, u32>>()?;
        let tokens = tokens.as_slice()?;
        gate::run(py, progress, |monitor| train(tokens, offsets, &surfaces, &settings, monitor))?
    };
    let vectors = trained.data.into_pyarray(py).reshape([surfaces.len(), settings.dim])?;
    Ok((vectors, trained.counts.into_pyarray(py)))
}

/// First tokens of snippets that show the `wanted` tokens, uint64; see `langadapt.swap.distill`.
#[pyfunction]
#[pyo3(signature = (tokens, offsets, wanted, *, length, each, most, seed))]
#[expect(clippy::too_many_arguments, reason = "a store, and a wish by name")]
pub fn choose_snippets<'py>(
    py: Python<'py>,
    tokens: &Bound<'py, PyAny>,
    offsets: PyReadonlyArray1<'py, u64>,
    wanted: PyReadonlyArray1<'py, bool>,
    length: usize,
    each: u32,
    most: usize,
    seed: u64,
) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let (offsets, wanted, wish) = (offsets.as_slice()?, wanted.as_slice()?, Wish { length, each, most, seed });
    let starts = if let Ok(tokens) = tokens.extract::<PyReadonlyArray1<'py, u16>>() {
        let tokens = tokens.as_slice()?;
        gate::run(py, None, |monitor| choose(tokens, offsets, wanted, wish, monitor))?
    } else {
        let tokens = tokens.extract::<PyReadonlyArray1<'py, u32>>()?;
        let tokens = tokens.as_slice()?;
        gate::run(py, None, |monitor| choose(tokens, offsets, wanted, wish, monitor))?
    };
    Ok(starts.into_pyarray(py))
}

/// Sparsemax of a block of similarities: `(lengths uint32[new], columns uint32[n], weights float32[n])`.
///
/// `scores` is `[new, anchors]`, float32 or the bits of bfloat16 as uint16, each within `error` of the dot product of
/// the unit rows of `new` and `anchors`.
#[pyfunction]
#[pyo3(signature = (scores, error, new, anchors, *, threads))]
pub fn sparsemax_weights<'py>(
    py: Python<'py>,
    scores: &Bound<'py, PyAny>,
    error: f32,
    new: PyReadonlyArray2<'py, f32>,
    anchors: PyReadonlyArray2<'py, f32>,
    threads: usize,
) -> PyResult<Sparse<'py>> {
    let dim = new.as_array().ncols();
    if anchors.as_array().ncols() != dim {
        return Err(PyValueError::new_err("new and anchor vectors differ in width"));
    }
    let (new, anchors) = (new.as_slice()?, anchors.as_slice()?);
    let rows = if let Ok(scores) = scores.extract::<PyReadonlyArray2<'py, u16>>() {
        let scores = scores.as_slice()?;
        detached(py, Similarities { scores, error, new, anchors, dim }, threads)?
    } else {
        let scores = scores.extract::<PyReadonlyArray2<'py, f32>>()?;
        let scores = scores.as_slice()?;
        detached(py, Similarities { scores, error, new, anchors, dim }, threads)?
    };
    Ok((rows.lengths.into_pyarray(py), rows.columns.into_pyarray(py), rows.weights.into_pyarray(py)))
}

fn detached<S: Score>(py: Python<'_>, block: Similarities<'_, S>, threads: usize) -> PyResult<SparseRows> {
    gate::run(py, None, |monitor: &Monitor| -> Result<SparseRows> { weights(block, threads, monitor) })
}
