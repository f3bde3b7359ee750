//! Sparsemax of the rows of a matrix, and its gradient.

use langadapt_core::simplex::{gradient, project};
use numpy::{PyArray2, PyArrayMethods, PyReadonlyArray2, PyReadwriteArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::gate;

/// Sparsemax of each row of `x` into `out`, both `[rows, n]`, float32 or the bits of bfloat16 as uint16.
#[pyfunction]
#[pyo3(signature = (x, out, *, threads))]
pub fn sparsemax<'py>(py: Python<'py>, x: Bound<'py, PyAny>, out: Bound<'py, PyAny>, threads: usize) -> PyResult<()> {
    if let Ok(x) = x.extract::<PyReadonlyArray2<'py, u16>>() {
        let mut out = writable::<u16>(&out)?;
        let (width, x, out) = (x.as_array().ncols(), x.as_slice()?, out.as_slice_mut()?);
        gate::run(py, None, |monitor| project(x, out, width, threads, monitor))
    } else {
        let (x, mut out) = (x.extract::<PyReadonlyArray2<'py, f32>>()?, writable::<f32>(&out)?);
        let (width, x, out) = (x.as_array().ncols(), x.as_slice()?, out.as_slice_mut()?);
        gate::run(py, None, |monitor| project(x, out, width, threads, monitor))
    }
}

/// The gradient of the input of [`sparsemax`], whose result is `projected`, into `out`; all `[rows, n]`, of one type.
#[pyfunction]
#[pyo3(signature = (projected, grad, out, *, threads))]
pub fn sparsemax_gradient<'py>(
    py: Python<'py>,
    projected: Bound<'py, PyAny>,
    grad: Bound<'py, PyAny>,
    out: Bound<'py, PyAny>,
    threads: usize,
) -> PyResult<()> {
    if let Ok(projected) = projected.extract::<PyReadonlyArray2<'py, u16>>() {
        let (grad, mut out) = (grad.extract::<PyReadonlyArray2<'py, u16>>()?, writable::<u16>(&out)?);
        let (width, projected) = (projected.as_array().ncols(), projected.as_slice()?);
        let (grad, out) = (grad.as_slice()?, out.as_slice_mut()?);
        gate::run(py, None, |monitor| gradient(projected, grad, out, width, threads, monitor))
    } else {
        let projected = projected.extract::<PyReadonlyArray2<'py, f32>>()?;
        let (grad, mut out) = (grad.extract::<PyReadonlyArray2<'py, f32>>()?, writable::<f32>(&out)?);
        let (width, projected) = (projected.as_array().ncols(), projected.as_slice()?);
        let (grad, out) = (grad.as_slice()?, out.as_slice_mut()?);
        gate::run(py, None, |monitor| gradient(projected, grad, out, width, threads, monitor))
    }
}

fn writable<'py, T: numpy::Element>(out: &Bound<'py, PyAny>) -> PyResult<PyReadwriteArray2<'py, T>> {
    let taken = |_| PyValueError::new_err("an array is read-only or was given twice");
    out.cast::<PyArray2<T>>()?.try_readwrite().map_err(taken)
}
