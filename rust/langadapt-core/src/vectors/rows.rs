//! Matrices that several threads read and write without locks (Hogwild, Recht et al. 2011), and arithmetic on rows.
//!
//! A row is a list of 16-float lanes, padded with zeros that every operation keeps zero. Products and sums are written
//! without fused multiply-add and dot products always use the same 16 partial sums, so the width of the machine's
//! vectors does not change a bit of the result.

use std::cell::UnsafeCell;

/// Floats in a lane.
pub const LANE: usize = 16;

/// 64 bytes: one cache line, one AVX-512 register, two of AVX2.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Lane(pub [f32; LANE]);

/// A lane of zeros.
pub const ZERO: Lane = Lane([0.0; LANE]);

/// Lanes that hold `dim` floats.
pub fn lanes(dim: usize) -> usize {
    dim.div_ceil(LANE)
}

/// A matrix that all threads may change at any time.
pub struct SharedRows {
    cells: Vec<UnsafeCell<Lane>>,
    width: usize,
}

// SAFETY: threads do race on the lanes. That is the algorithm: a lost or torn update is one gradient step of millions.
// Floats have no invalid bit patterns, nothing is resized while shared, and no reference to a shared lane is made:
// all accesses below copy a whole lane out or in through its pointer.
unsafe impl Sync for SharedRows {}

impl SharedRows {
    /// `n_rows` rows of zeros, `width` lanes wide.
    pub fn zeros(n_rows: usize, width: usize) -> Self {
        let cells = (0..n_rows * width).map(|_| UnsafeCell::new(ZERO)).collect();
        Self { cells, width }
    }

    /// A row for whoever owns the whole matrix.
    pub fn row_mut(&mut self, row: usize) -> impl Iterator<Item = &mut f32> {
        let lanes = &mut self.cells[row * self.width..(row + 1) * self.width];
        lanes.iter_mut().flat_map(|cell| cell.get_mut().0.iter_mut())
    }

    #[inline(always)]
    fn row(&self, row: u32) -> &[UnsafeCell<Lane>] {
        let start = row as usize * self.width;
        &self.cells[start..start + self.width]
    }

    /// `sum += row`
    #[inline(always)]
    pub fn add_to(&self, row: u32, sum: &mut [Lane]) {
        for (cell, sum) in self.row(row).iter().zip(sum) {
            // SAFETY: the pointer is valid and aligned; races are accepted, see above.
            let value = unsafe { *cell.get() };
            for k in 0..LANE {
                sum.0[k] += value.0[k];
            }
        }
    }

    /// `row += delta`
    #[inline(always)]
    pub fn add_from(&self, row: u32, delta: &[Lane]) {
        for (cell, delta) in self.row(row).iter().zip(delta) {
            // SAFETY: the pointer is valid and aligned; races are accepted, see above.
            let mut value = unsafe { *cell.get() };
            for k in 0..LANE {
                value.0[k] += delta.0[k];
            }
            // SAFETY: as above.
            unsafe { *cell.get() = value };
        }
    }

    /// Dot product of a row and `x`.
    #[inline(always)]
    pub fn dot(&self, row: u32, x: &[Lane]) -> f32 {
        let mut sums = [0.0f32; LANE];
        for (cell, x) in self.row(row).iter().zip(x) {
            // SAFETY: the pointer is valid and aligned; races are accepted, see above.
            let value = unsafe { *cell.get() };
            for ((sum, value), x) in sums.iter_mut().zip(value.0).zip(x.0) {
                *sum += value * x;
            }
        }
        let mut half = LANE / 2;
        while half > 0 {
            for k in 0..half {
                sums[k] += sums[k + half];
            }
            half /= 2;
        }
        sums[0]
    }

    /// `gradient += alpha * row; row += alpha * x`, with the old row in the first.
    #[inline(always)]
    pub fn exchange(&self, row: u32, alpha: f32, x: &[Lane], gradient: &mut [Lane]) {
        for ((cell, x), gradient) in self.row(row).iter().zip(x).zip(gradient) {
            // SAFETY: the pointer is valid and aligned; races are accepted, see above.
            let mut value = unsafe { *cell.get() };
            for k in 0..LANE {
                gradient.0[k] += alpha * value.0[k];
                value.0[k] += alpha * x.0[k];
            }
            // SAFETY: as above.
            unsafe { *cell.get() = value };
        }
    }
}

/// `sum += x + scale * y`
#[inline(always)]
pub fn add_scaled(sum: &mut [Lane], x: &[Lane], scale: f32, y: &[Lane]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        for k in 0..LANE {
            sum.0[k] += x.0[k] + scale * y.0[k];
        }
    }
}

/// `sum += x`
#[inline(always)]
pub fn add(sum: &mut [Lane], x: &[Lane]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        for k in 0..LANE {
            sum.0[k] += x.0[k];
        }
    }
}

/// `x *= factor`
#[inline(always)]
pub fn scale(x: &mut [Lane], factor: f32) {
    for x in x {
        for k in 0..LANE {
            x.0[k] *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_arithmetic_equals_the_plain_one() {
        let width = lanes(20);
        let mut matrix = SharedRows::zeros(2, width);
        for (i, value) in matrix.row_mut(1).take(20).enumerate() {
            *value = i as f32;
        }
        let mut x = vec![ZERO; width];
        for i in 0..20 {
            x[i / LANE].0[i % LANE] = 0.5;
        }
        assert_eq!(matrix.dot(1, &x), 95.0);
        let mut gradient = vec![ZERO; width];
        matrix.exchange(1, 2.0, &x, &mut gradient);
        assert_eq!(gradient[1].0[3], 38.0);
        assert_eq!(gradient[1].0[4], 0.0);
        matrix.add_from(0, &gradient);
        let mut sum = vec![ZERO; width];
        matrix.add_to(0, &mut sum);
        matrix.add_to(1, &mut sum);
        add_scaled(&mut sum, &x, 2.0, &x);
        scale(&mut sum, 2.0);
        assert_eq!(sum[0].0[2], 2.0 * (4.0 + 3.0 + 1.5));
        add(&mut sum, &x);
        assert_eq!(sum[0].0[2], 17.5);
    }
}
