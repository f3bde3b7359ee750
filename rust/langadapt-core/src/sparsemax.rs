//! Exact sparsemax (Martins & Astudillo, 2016) of the cosine similarities between new tokens and anchors.
//!
//! The caller computes a block of similarities by a fast matrix product, in float32 or in bfloat16, and says how far
//! off they may be. Sparsemax shifts by at most what its inputs shift by, so every member of the true support lies
//! within twice that error of the approximate threshold: few candidates per row are scored again in full precision and
//! the result is exact whatever the product's precision. Nothing of the size `new x anchors` outlives the block.
//!
//! Cost per row of `n` similarities: one vectorised pass for the maxima of blocks of [`BLOCK`], sparsemax of those
//! (a subset's threshold never exceeds the whole's), and a pass over the few blocks that reach it.

use crate::{Error, Monitor, Result, threads};

/// Similarities per block maximum.
pub(crate) const BLOCK: usize = 64;

/// Rows between two looks at the monitor.
const ROWS: usize = 256;

/// A similarity as the matrix product left it.
pub trait Score: Copy + Send + Sync {
    /// As float32.
    fn value(self) -> f32;
}

impl Score for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

/// The bits of a bfloat16.
impl Score for u16 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

/// Sparse rows: row `i` has `lengths[i]` entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseRows {
    /// Entries per row.
    pub lengths: Vec<u32>,
    /// Column of each entry, rising within a row.
    pub columns: Vec<u32>,
    /// Positive, with sum one in each row.
    pub weights: Vec<f32>,
}

/// A block of new tokens against all anchors.
#[derive(Debug, Clone, Copy)]
pub struct Similarities<'a, S> {
    /// `new x anchors`, row-major.
    pub scores: &'a [S],
    /// The largest distance between a score and the true similarity.
    pub error: f32,
    /// Unit vectors of the new tokens, `new x dim`.
    pub new: &'a [f32],
    /// Unit vectors of the anchors, `anchors x dim`.
    pub anchors: &'a [f32],
    /// Width of the vectors.
    pub dim: usize,
}

/// Sparsemax of each row of similarities.
///
/// # Errors
/// [`Error::Argument`] where the sizes do not fit together, there is no anchor or a score is not finite;
/// [`Error::Interrupted`] on a stop.
pub fn weights<S: Score>(block: Similarities<'_, S>, threads: usize, monitor: &Monitor) -> Result<SparseRows> {
    let dim = block.dim;
    let anchors = block.anchors.len().checked_div(dim).unwrap_or(0);
    let rows = block.new.len().checked_div(dim).unwrap_or(0);
    if anchors == 0 || threads == 0 || block.scores.len() != rows * anchors {
        return Err(Error::argument(format!(
            "similarities do not fit: {} scores for {rows} new tokens and {anchors} anchors of width {dim}",
            block.scores.len()
        )));
    }
    let share = rows.div_ceil(threads).max(1);
    let parts = block.scores.chunks(share * anchors).zip(block.new.chunks(share * dim));
    let parts = threads::each(parts, |(scores, new)| rows_of(Similarities { scores, new, ..block }, anchors, monitor));
    let mut all = SparseRows::default();
    for part in parts {
        let part = part?;
        all.lengths.extend(part.lengths);
        all.columns.extend(part.columns);
        all.weights.extend(part.weights);
    }
    Ok(all)
}

fn rows_of<S: Score>(block: Similarities<'_, S>, anchors: usize, monitor: &Monitor) -> Result<SparseRows> {
    let mut out = SparseRows::default();
    let mut scratch = Scratch::default();
    for (i, (scores, new)) in block.scores.chunks(anchors).zip(block.new.chunks(block.dim)).enumerate() {
        if i % ROWS == 0 {
            monitor.check()?;
        }
        scratch.find_candidates(scores, block.error)?;
        let exact: Vec<f64> = scratch
            .candidates
            .iter()
            .map(|&column| dot(new, &block.anchors[column as usize * block.dim..][..block.dim]))
            .collect();
        let threshold = threshold(&exact);
        let before = out.columns.len();
        for (&column, score) in scratch.candidates.iter().zip(exact) {
            if score > threshold {
                out.columns.push(column);
                out.weights.push((score - threshold) as f32);
            }
        }
        out.lengths.push((out.columns.len() - before) as u32);
    }
    Ok(out)
}

#[derive(Default)]
struct Scratch {
    maxima: Vec<f64>,
    values: Vec<f64>,
    candidates: Vec<u32>,
}

impl Scratch {
    /// Columns whose true similarity may lie above the true threshold.
    fn find_candidates<S: Score>(&mut self, scores: &[S], error: f32) -> Result<()> {
        self.maxima.clear();
        self.maxima.extend(scores.chunks(BLOCK).map(|block| f64::from(maximum(block))));
        let lower = threshold(&self.maxima);
        if !lower.is_finite() {
            return Err(Error::argument("a similarity is not finite; check the vectors for NaN and infinity"));
        }
        let slack = 2.0 * f64::from(error);
        self.values.clear();
        self.candidates.clear();
        for (b, block) in scores.chunks(BLOCK).enumerate() {
            if self.maxima[b] < lower - slack {
                continue;
            }
            for (i, score) in block.iter().enumerate() {
                let value = f64::from(score.value());
                if value >= lower - slack {
                    self.values.push(value);
                    self.candidates.push((b * BLOCK + i) as u32);
                }
            }
        }
        let bound = threshold(&self.values) - slack;
        let values = &self.values;
        let mut i = 0;
        self.candidates.retain(|_| {
            i += 1;
            values[i - 1] >= bound
        });
        Ok(())
    }
}

/// The largest score; NaN where there is one.
#[inline]
pub(crate) fn maximum<S: Score>(block: &[S]) -> f32 {
    // Eight running maxima: one would be a chain of dependent operations. NaN must not vanish in a comparison.
    let mut best = [f32::NEG_INFINITY; 8];
    let mut broken = false;
    let chunks = block.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for k in 0..8 {
            let value = chunk[k].value();
            broken |= value.is_nan();
            best[k] = if value > best[k] { value } else { best[k] };
        }
    }
    for (k, score) in rest.iter().enumerate() {
        broken |= score.value().is_nan();
        best[k] = best[k].max(score.value());
    }
    if broken { f32::NAN } else { best.into_iter().fold(f32::NEG_INFINITY, f32::max) }
}

/// The `t` with `sum(max(z - t, 0)) = 1`, by Michelot's iteration: Newton from below on a convex piecewise linear
/// function, so it rises to the root in finitely many steps.
pub(crate) fn threshold(values: &[f64]) -> f64 {
    let top = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !values.iter().all(|value| value.is_finite()) {
        return f64::NAN;
    }
    let mut bound = top - 1.0;
    let mut before = usize::MAX;
    loop {
        let (mut sum, mut n) = (0.0, 0);
        for &value in values {
            if value > bound {
                sum += value;
                n += 1;
            }
        }
        if n == before || n == 0 {
            return bound;
        }
        before = n;
        bound = (sum - 1.0) / n as f64;
    }
}

/// Float32 products in float64 sums: the products are exact, so only the inputs' rounding is left.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (chunks_a, chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 =
        chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (a, b) in chunks_a.zip(chunks_b) {
        for k in 0..8 {
            sums[k] += f64::from(a[k]) * f64::from(b[k]);
        }
    }
    rest + sums.iter().sum::<f64>()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::vectors::sampling::Random;
    use proptest::prelude::*;

    /// Definition by sorting.
    pub(crate) fn naive(z: &[f64]) -> Vec<f64> {
        let mut sorted = z.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let (mut sum, mut tau) = (0.0, 0.0);
        for (i, value) in sorted.iter().enumerate() {
            sum += value;
            if 1.0 + (i + 1) as f64 * value > sum {
                tau = (sum - 1.0) / (i + 1) as f64;
            }
        }
        z.iter().map(|value| (value - tau).max(0.0)).collect()
    }

    fn unit_rows(n: usize, dim: usize, seed: u64, spread: f32) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        let mut rows: Vec<f32> = (0..n * dim).map(|_| 1.0 - spread + spread * (2.0 * random.unit() - 1.0)).collect();
        for row in rows.chunks_mut(dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        rows
    }

    fn to_bf16(value: f32) -> u16 {
        (value.to_bits().wrapping_add(0x7FFF + ((value.to_bits() >> 16) & 1)) >> 16) as u16
    }

    fn check(n_new: usize, n_anchors: usize, dim: usize, seed: u64, spread: f32, threads: usize) {
        let (new, anchors) = (unit_rows(n_new, dim, seed, spread), unit_rows(n_anchors, dim, seed + 1, spread));
        let exact: Vec<Vec<f64>> = new.chunks(dim).map(|x| anchors.chunks(dim).map(|y| dot(x, y)).collect()).collect();
        let low: Vec<u16> = exact.iter().flatten().map(|&z| to_bf16(z as f32)).collect();
        let full: Vec<f32> = exact.iter().flatten().map(|&z| z as f32).collect();
        let monitor = Monitor::default();
        let from_low =
            weights(Similarities { scores: &low, error: 0.004, new: &new, anchors: &anchors, dim }, threads, &monitor)
                .unwrap();
        let from_full =
            weights(Similarities { scores: &full, error: 1e-6, new: &new, anchors: &anchors, dim }, threads, &monitor)
                .unwrap();
        assert_eq!(from_low, from_full);
        let mut at = 0;
        for (row, &length) in exact.iter().zip(&from_low.lengths) {
            let mut dense = vec![0.0; n_anchors];
            for entry in at..at + length as usize {
                dense[from_low.columns[entry] as usize] = f64::from(from_low.weights[entry]);
            }
            at += length as usize;
            for (got, want) in dense.iter().zip(naive(row)) {
                assert!((got - want).abs() < 1e-6, "{got} {want}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_definition_whatever_the_precision_of_the_product(
            n_new in 1usize..6, n_anchors in 1usize..300, dim in 1usize..40, seed: u64,
            spread in prop::sample::select(vec![0.05f32, 0.5, 1.0]), threads in 1usize..4,
        ) {
            check(n_new, n_anchors, dim, seed / 2, spread, threads);
        }

        #[test]
        fn threshold_equals_the_definition(z in prop::collection::vec(-3.0f64..3.0, 1..50)) {
            let tau = threshold(&z);
            for (value, want) in z.iter().zip(naive(&z)) {
                prop_assert!(((value - tau).max(0.0) - want).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn equal_similarities_share_the_weight() {
        check(2, 130, 1, 4, 0.0, 2);
    }

    #[test]
    fn broken_scores_are_refused() {
        for bad in [f32::NAN, f32::INFINITY] {
            let block = Similarities { scores: &[0.5, bad], error: 0.0, new: &[1.0], anchors: &[1.0, 1.0], dim: 1 };
            assert!(matches!(weights(block, 1, &Monitor::default()), Err(Error::Argument(_))));
        }
        let block = Similarities::<f32> { scores: &[], error: 0.0, new: &[1.0], anchors: &[], dim: 1 };
        assert!(weights(block, 1, &Monitor::default()).is_err());
    }
}
