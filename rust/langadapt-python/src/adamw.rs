//! The optimizer's step on a CPU.
//!
//! Not through `gate`: a step that were stopped halfway would leave weights and moments of two steps. It takes as long
//! as memory takes to bring 14 to 18 bytes per parameter.

use langadapt_core::Error;
use langadapt_core::adamw::{Codes, Frozen, Moments, Numbers, Place, Rounding, Scalars, Tensor, Values, step};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::to_python;

/// The arrays of one tensor and what is said of it, by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct StepEntry<'py> {
    weight: Bound<'py, PyAny>,
    grad: Bound<'py, PyAny>,
    exp_avg: Bound<'py, PyAny>,
    exp_avg_sq: Bound<'py, PyAny>,
    low: Option<Bound<'py, PyAny>>,
    rounding: String,
    stochastic_variance: bool,
    seed: u64,
    index: (u64, u64, u64),
    row: usize,
    frozen: Option<PyReadonlyArray1<'py, u8>>,
    columns: u64,
    exp_avg_scale: Option<Bound<'py, PyAny>>,
    exp_avg_sq_scale: Option<Bound<'py, PyAny>>,
}

/// An array of numbers; bfloat16 come as their bits.
enum Array<'py> {
    Byte(PyReadwriteArray1<'py, u8>),
    Narrow(PyReadwriteArray1<'py, u16>),
    Wide(PyReadwriteArray1<'py, f32>),
}

impl<'py> Array<'py> {
    fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let taken = |_| PyValueError::new_err("an array is read-only or was given twice");
        if let Ok(array) = object.cast::<PyArray1<u16>>() {
            Ok(Self::Narrow(array.try_readwrite().map_err(taken)?))
        } else if let Ok(array) = object.cast::<PyArray1<f32>>() {
            Ok(Self::Wide(array.try_readwrite().map_err(taken)?))
        } else {
            Ok(Self::Byte(object.cast::<PyArray1<u8>>()?.try_readwrite().map_err(taken)?))
        }
    }

    fn numbers(&mut self) -> PyResult<Numbers<'_>> {
        match self {
            Self::Narrow(array) => Ok(Numbers::Narrow(array.as_slice_mut()?)),
            Self::Wide(array) => Ok(Numbers::Wide(array.as_slice_mut()?)),
            Self::Byte(_) => Err(PyValueError::new_err("numbers are float32 or the bits of bfloat16, not bytes")),
        }
    }
}

/// An array of numbers that is only read.
enum ReadArray<'py> {
    Narrow(PyReadonlyArray1<'py, u16>),
    Wide(PyReadonlyArray1<'py, f32>),
}

impl<'py> ReadArray<'py> {
    fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        match object.extract() {
            Ok(array) => Ok(Self::Narrow(array)),
            Err(_) => Ok(Self::Wide(object.extract()?)),
        }
    }

    fn values(&self) -> PyResult<Values<'_>> {
        match self {
            Self::Narrow(array) => Ok(Values::Narrow(array.as_slice()?)),
            Self::Wide(array) => Ok(Values::Wide(array.as_slice()?)),
        }
    }
}

/// The arrays of a tensor, held while it is stepped.
struct Held<'py> {
    weight: Array<'py>,
    grad: ReadArray<'py>,
    exp_avg: Array<'py>,
    exp_avg_sq: Array<'py>,
    low: Option<Array<'py>>,
    exp_avg_scale: Option<Array<'py>>,
    exp_avg_sq_scale: Option<Array<'py>>,
}

impl<'py> Held<'py> {
    fn of(entry: &StepEntry<'py>) -> PyResult<Self> {
        Ok(Self {
            weight: Array::of(&entry.weight)?,
            grad: ReadArray::of(&entry.grad)?,
            exp_avg: Array::of(&entry.exp_avg)?,
            exp_avg_sq: Array::of(&entry.exp_avg_sq)?,
            low: entry.low.as_ref().map(Array::of).transpose()?,
            exp_avg_scale: entry.exp_avg_scale.as_ref().map(Array::of).transpose()?,
            exp_avg_sq_scale: entry.exp_avg_sq_scale.as_ref().map(Array::of).transpose()?,
        })
    }

    fn tensor<'a>(&'a mut self, entry: &'a StepEntry<'py>, scalars: Scalars) -> PyResult<Tensor<'a>> {
        let rounding = match (entry.rounding.as_str(), self.low.as_mut()) {
            ("nearest", None) => Rounding::Nearest,
            ("stochastic", None) => Rounding::Stochastic,
            ("kahan", Some(Array::Narrow(low))) => Rounding::Kahan(low.as_slice_mut()?),
            ("split", Some(Array::Narrow(low))) => Rounding::Split(low.as_slice_mut()?),
            ("split8", Some(Array::Byte(low))) => Rounding::Split8(low.as_slice_mut()?),
            (name, _) => return Err(PyValueError::new_err(format!("no rounding of this kind: {name}"))),
        };
        let (base, run, stride) = entry.index;
        Ok(Tensor {
            weight: self.weight.numbers()?,
            grad: self.grad.values()?,
            moments: moments(
                (&mut self.exp_avg, &mut self.exp_avg_sq),
                (self.exp_avg_scale.as_mut(), self.exp_avg_sq_scale.as_mut()),
            )?,
            rounding,
            stochastic_variance: entry.stochastic_variance,
            seed: entry.seed,
            place: Place { base, run, stride, first: 0 },
            scalars,
            frozen: match &entry.frozen {
                Some(bits) => Some(Frozen { bits: bits.as_slice()?, columns: entry.columns }),
                None => None,
            },
        })
    }
}

/// Moments and their scales, which codes have.
fn moments<'a>(
    (average, variance): (&'a mut Array<'_>, &'a mut Array<'_>),
    scales: (Option<&'a mut Array<'_>>, Option<&'a mut Array<'_>>),
) -> PyResult<Moments<'a>> {
    Ok(match (average, variance, scales) {
        (Array::Narrow(average), Array::Narrow(variance), (None, None)) => {
            Moments::Narrow(average.as_slice_mut()?, variance.as_slice_mut()?)
        }
        (Array::Wide(average), Array::Wide(variance), (None, None)) => {
            Moments::Wide(average.as_slice_mut()?, variance.as_slice_mut()?)
        }
        (Array::Byte(average), Array::Byte(variance), (Some(Array::Wide(first)), Some(Array::Wide(second)))) => {
            Moments::Coded(Codes {
                exp_avg: average.as_slice_mut()?,
                exp_avg_scale: first.as_slice_mut()?,
                exp_avg_sq: variance.as_slice_mut()?,
                exp_avg_sq_scale: second.as_slice_mut()?,
            })
        }
        _ => return Err(PyValueError::new_err("moments are of one kind: numbers, or bytes with float32 scales")),
    })
}

/// Steps all tensors in place, each with its row of `scalars`, float32 `[rows, 9]`; how many stored weights of each
/// stayed as they were.
#[pyfunction]
#[pyo3(signature = (entries, scalars, grad_scale, *, threads))]
pub fn adamw_step(
    py: Python<'_>,
    entries: Vec<StepEntry<'_>>,
    scalars: PyReadonlyArray2<'_, f32>,
    grad_scale: f32,
    threads: usize,
) -> PyResult<Vec<u64>> {
    let rows = scalars.as_slice()?;
    let mut held = entries.iter().map(Held::of).collect::<PyResult<Vec<_>>>()?;
    let tensors = held.iter_mut().zip(&entries).map(|(held, entry)| {
        let row = rows.chunks_exact(9).nth(entry.row).and_then(|row| <&[f32; 9]>::try_from(row).ok());
        let row = row.ok_or_else(|| PyValueError::new_err(format!("no row of nine scalars: {}", entry.row)))?;
        held.tensor(entry, named(row, grad_scale))
    });
    let tensors = tensors.collect::<PyResult<Vec<_>>>()?;
    py.detach(|| step(tensors, threads)).map_err(|error: Error| to_python(py, error))
}

/// A row in the order of `langadapt_kernels.adamw.modes.SCALARS`.
fn named(row: &[f32; 9], grad_scale: f32) -> Scalars {
    let [decay, step_size, variance_scale, eps, beta1, rest1, beta2, rest2, number] = *row;
    let (beta1, beta2) = ((beta1, rest1), (beta2, rest2));
    Scalars { decay, step_size, variance_scale, eps, beta1, beta2, grad_scale, step: number as u32 }
}

/// Sum of squares of each array, float32 or the bits of bfloat16.
#[pyfunction]
#[pyo3(signature = (arrays, *, threads))]
pub fn square_sums(py: Python<'_>, arrays: Vec<Bound<'_, PyAny>>, threads: usize) -> PyResult<Vec<f64>> {
    let held = arrays.iter().map(ReadArray::of).collect::<PyResult<Vec<_>>>()?;
    let values = held.iter().map(ReadArray::values).collect::<PyResult<Vec<_>>>()?;
    Ok(py.detach(|| langadapt_core::adamw::square_sums(&values, threads)))
}
