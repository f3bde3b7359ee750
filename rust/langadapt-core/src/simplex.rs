//! Rows projected onto the probability simplex (sparsemax; Martins & Astudillo, 2016), and the gradient of that.
//!
//! A row is read once for the maxima of its blocks; the threshold of those is at most the row's, so only the few blocks
//! that reach it are looked at again. Sums are float64's. All is relative to the largest entry, so that nothing is lost
//! to the size of the entries.

use crate::adamw::narrow::Stored;
use crate::sparsemax::{BLOCK, Score, maximum, threshold};
use crate::{Error, Monitor, Result, threads};

/// Entries between two looks at the monitor, in whole rows.
const LOOK: usize = 1 << 20;

/// A score that can be written, too.
pub trait Entry: Score {
    /// The nearest one, of two the even.
    fn rounded(value: f32) -> Self;
}

impl Entry for f32 {
    fn rounded(value: f32) -> Self {
        value
    }
}

/// The bits of a bfloat16.
impl Entry for u16 {
    fn rounded(value: f32) -> Self {
        Stored::nearest(value)
    }
}

/// Projects the rows of `x`, each of `width` entries, into `out`. An entry of -inf is never in the support; a row with
/// NaN or +inf, or of nothing but -inf, gives NaN.
///
/// # Errors
/// [`Error::Argument`] where the sizes do not fit together; [`Error::Interrupted`] on a stop.
pub fn project<S: Entry>(x: &[S], out: &mut [S], width: usize, threads: usize, monitor: &Monitor) -> Result<()> {
    each_row([x], out, width, threads, monitor, |[row], out, scratch| scratch.project(row, out))
}

/// The gradient of a projection's input: on the support `grad` less its mean there, elsewhere zero.
///
/// # Errors
/// [`Error::Argument`] where the sizes do not fit together; [`Error::Interrupted`] on a stop.
pub fn gradient<S: Entry>(
    projected: &[S],
    grad: &[S],
    out: &mut [S],
    width: usize,
    threads: usize,
    monitor: &Monitor,
) -> Result<()> {
    each_row([projected, grad], out, width, threads, monitor, |[projected, grad], out, _| {
        let (mut sum, mut support) = (0.0, 0u32);
        for (weight, slope) in projected.iter().zip(grad) {
            if weight.value() > 0.0 {
                sum += f64::from(slope.value());
                support += 1;
            }
        }
        let mean = sum / f64::from(support.max(1));
        for ((weight, slope), out) in projected.iter().zip(grad).zip(out) {
            let inside = weight.value() > 0.0;
            *out = S::rounded(if inside { (f64::from(slope.value()) - mean) as f32 } else { 0.0 });
        }
    })
}

/// Calls `work` with each row of the inputs and of `out`, on `threads`.
fn each_row<S: Entry, const N: usize>(
    inputs: [&[S]; N],
    out: &mut [S],
    width: usize,
    threads: usize,
    monitor: &Monitor,
    work: impl Fn([&[S]; N], &mut [S], &mut Scratch) + Sync,
) -> Result<()> {
    let lengths = inputs.map(<[S]>::len);
    if width == 0 || threads == 0 || lengths != [out.len(); N] || !out.len().is_multiple_of(width) {
        let room = out.len();
        return Err(Error::argument(format!("rows of {width} do not fit: {lengths:?} entries, room for {room}")));
    }
    let share = (out.len() / width).div_ceil(threads).max(1) * width;
    let ends = threads::each(out.chunks_mut(share).enumerate(), |(part, out)| {
        let mut scratch = Scratch::default();
        for (i, out) in out.chunks_mut(width).enumerate() {
            if i % (LOOK / width + 1) == 0 {
                monitor.check()?;
            }
            let at = part * share + i * width;
            work(inputs.map(|input| &input[at..at + width]), out, &mut scratch);
        }
        Ok(())
    });
    ends.into_iter().collect()
}

/// Memory that rows use one after the other.
#[derive(Default)]
struct Scratch {
    maxima: Vec<f64>,
    values: Vec<f64>,
    places: Vec<usize>,
}

impl Scratch {
    fn project<S: Entry>(&mut self, row: &[S], out: &mut [S]) {
        self.maxima.clear();
        self.maxima.extend(row.chunks(BLOCK).map(|block| f64::from(maximum(block))));
        let top = self.maxima.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !top.is_finite() || self.maxima.iter().any(|value| value.is_nan()) {
            return out.fill(S::rounded(f32::NAN));
        }
        // The threshold is at most 1 below the largest entry.
        self.values.clear();
        self.values.extend(self.maxima.iter().map(|value| value - top).filter(|value| *value >= -1.0));
        let lower = threshold(&self.values);
        self.values.clear();
        self.places.clear();
        for (b, block) in row.chunks(BLOCK).enumerate().filter(|(b, _)| self.maxima[*b] - top > lower) {
            for (i, entry) in block.iter().enumerate() {
                let value = f64::from(entry.value()) - top;
                if value > lower {
                    self.values.push(value);
                    self.places.push(b * BLOCK + i);
                }
            }
        }
        let tau = threshold(&self.values);
        out.fill(S::rounded(0.0));
        for (&place, value) in self.places.iter().zip(&self.values) {
            out[place] = S::rounded((value - tau).max(0.0) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sparsemax::tests::naive;
    use proptest::prelude::*;

    fn projected<S: Entry>(x: &[S], width: usize, threads: usize) -> Vec<S> {
        let mut out = vec![S::rounded(9.0); x.len()];
        project(x, &mut out, width, threads, &Monitor::default()).unwrap();
        out
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            x in prop::collection::vec(-3.0f32..3.0, 1..400), ties: bool,
            size in prop::sample::select(vec![1e-3f32, 1.0, 100.0]), rows in 1usize..5, threads in 1usize..4,
        ) {
            let x: Vec<f32> = x.iter().map(|z| size * if ties { z.round() } else { *z }).collect();
            let wide: Vec<f64> = x.iter().map(|z| f64::from(*z)).collect();
            let expected = naive(&wide);
            let width = x.len();
            for row in projected(&x.repeat(rows), width, threads).chunks(width) {
                for (got, want) in row.iter().zip(&expected) {
                    prop_assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
                }
            }
            let bits: Vec<u16> = x.iter().map(|z| u16::rounded(*z)).collect();
            let wide: Vec<f64> = bits.iter().map(|z| f64::from(z.value())).collect();
            for (got, want) in projected(&bits, width, threads).iter().zip(naive(&wide)) {
                prop_assert!((f64::from(got.value()) - want).abs() <= want / 256.0, "{} {want}", got.value());
            }
        }

        #[test]
        fn gradients_sum_to_zero_on_the_support(grad in prop::collection::vec(-3.0f32..3.0, 1..300), threads in 1usize..4) {
            let x: Vec<f32> = grad.iter().map(|z| (z * 1e4).sin()).collect();
            let weights = projected(&x, x.len(), 1);
            let mut out = vec![9.0; x.len()];
            gradient(&weights, &grad, &mut out, x.len(), threads, &Monitor::default()).unwrap();
            let inside: Vec<usize> = (0..x.len()).filter(|i| weights[*i] > 0.0).collect();
            let mean = inside.iter().map(|i| grad[*i]).sum::<f32>() / inside.len() as f32;
            for (i, got) in out.iter().enumerate() {
                let want = if weights[i] > 0.0 { grad[i] - mean } else { 0.0 };
                prop_assert!((got - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn large_entries_and_those_that_are_not_finite() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!(projected(&[1e6, 1e6 + 0.25, 1e6 - 3.0, -1e30], 4, 1), [0.375, 0.625, 0.0, 0.0]);
        assert_eq!(projected(&[3e38, 3e38, -3e38], 3, 1), [0.5, 0.5, 0.0]);
        assert_eq!(projected(&[-inf, 1.0, 1.0], 3, 1), [0.0, 0.5, 0.5]);
        for broken in [[1.0, nan], [inf, 1.0], [inf, inf], [-inf, -inf], [-inf, nan]] {
            assert!(projected(&broken, 2, 1).iter().all(|value| value.is_nan()));
        }
        assert!(projected::<f32>(&[], 3, 2).is_empty());
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (width, threads) in [(0, 1), (2, 0), (2, 1)] {
            let fits = project(&[1.0f32, 2.0, 3.0], &mut [0.0; 3], width, threads, &Monitor::default());
            assert!(matches!(fits, Err(Error::Argument(_))));
        }
    }
}
