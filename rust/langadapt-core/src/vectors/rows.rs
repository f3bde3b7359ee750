//! Matrices that several threads read and write without locks (Hogwild, Recht et al. 2011), and arithmetic on rows.
//!
//! Rows are padded with zeros to whole groups of 16 floats; every operation keeps the padding zero. Products and sums
//! are written without fused multiply-add and dot products always use the same 16 partial sums, so the width of the
//! machine's vectors does not change a bit of the result.
//!
//! The loops are flat and plain on purpose. Written over arrays of 16 floats, LLVM 20 vectorises the outer loop with
//! gathers and scatters, which is five times slower.

/// Floats in a group.
pub const GROUP: usize = 16;

/// Length of a padded row of `dim` floats.
pub fn padded(dim: usize) -> usize {
    dim.next_multiple_of(GROUP)
}

/// A matrix that all threads may change at any time.
pub struct SharedRows {
    // Only ever touched through this pointer while shared; freed as the vector that it came from.
    start: *mut f32,
    rows: usize,
    width: usize,
}

// SAFETY: threads do race on the floats. That is the algorithm: a lost update is one gradient step of millions. A float
// has no invalid bit patterns and is read and written whole on every machine that this is built for, nothing is resized
// while shared, and no reference to the floats is made.
unsafe impl Sync for SharedRows {}
// SAFETY: the pointer is owned.
unsafe impl Send for SharedRows {}

impl Drop for SharedRows {
    fn drop(&mut self) {
        let length = self.rows * self.width;
        // SAFETY: `zeros` made the pointer from a vector of this length and capacity.
        drop(unsafe { Vec::from_raw_parts(self.start, length, length) });
    }
}

impl SharedRows {
    /// `rows` rows of zeros, `width` floats wide; `width` must be a multiple of [`GROUP`].
    pub fn zeros(rows: usize, width: usize) -> Self {
        let mut values = std::mem::ManuallyDrop::new(vec![0.0f32; rows * width].into_boxed_slice().into_vec());
        Self { start: values.as_mut_ptr(), rows, width }
    }

    /// A row for whoever owns the whole matrix.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: in range, and `&mut self` excludes all others.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width), self.width) }
    }

    #[inline(always)]
    fn row(&self, row: u32, other: usize) -> *mut f32 {
        assert!((row as usize) < self.rows && other == self.width);
        // SAFETY: in range.
        unsafe { self.start.add(row as usize * self.width) }
    }

    /// Asks for the first cache lines of a row; the hardware fetches the rest once they are read.
    #[inline(always)]
    pub fn prefetch(&self, row: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let row = self.row(row, self.width);
            for group in (0..self.width).step_by(GROUP) {
                // SAFETY: in range, and a prefetch reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(row.add(group).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }

    /// `sum += row`
    #[inline(always)]
    pub fn add_to(&self, row: u32, sum: &mut [f32]) {
        let row = self.row(row, sum.len());
        for (i, sum) in sum.iter_mut().enumerate() {
            // SAFETY: `row` is as long as `sum`; races are accepted, see above.
            *sum += unsafe { *row.add(i) };
        }
    }

    /// `row += scale * delta`
    #[inline(always)]
    pub fn add_from(&self, row: u32, scale: f32, delta: &[f32]) {
        let row = self.row(row, delta.len());
        for (i, delta) in delta.iter().enumerate() {
            // SAFETY: `row` is as long as `delta`; races are accepted, see above.
            unsafe { *row.add(i) += scale * delta };
        }
    }

    /// Dot product of a row and `x`.
    #[inline(always)]
    pub fn dot(&self, row: u32, x: &[f32]) -> f32 {
        let row = self.row(row, x.len());
        let mut sums = [0.0f32; GROUP];
        for (g, x) in x.chunks_exact(GROUP).enumerate() {
            for (k, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `row` is as long as `x`; races are accepted, see above.
                *sum += unsafe { *row.add(g * GROUP + k) } * x[k];
            }
        }
        let mut half = GROUP / 2;
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
    pub fn exchange(&self, row: u32, alpha: f32, x: &[f32], gradient: &mut [f32]) {
        let row = self.row(row, x.len());
        for (i, (x, gradient)) in x.iter().zip(gradient).enumerate() {
            // SAFETY: `row` is as long as `x`; races are accepted, see above.
            unsafe {
                let cell = row.add(i);
                let old = *cell;
                *gradient += alpha * old;
                *cell = old + alpha * x;
            }
        }
    }
}

/// `sum += x + scale * y`
#[inline(always)]
pub fn add_scaled(sum: &mut [f32], x: &[f32], scale: f32, y: &[f32]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        *sum += x + scale * y;
    }
}

/// `sum += x`
#[inline(always)]
pub fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// `x *= factor`
#[inline(always)]
pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_arithmetic_equals_the_plain_one() {
        let width = padded(20);
        let mut matrix = SharedRows::zeros(2, width);
        for (i, value) in matrix.row_mut(1)[..20].iter_mut().enumerate() {
            *value = i as f32;
        }
        let mut x = vec![0.0; width];
        x[..20].fill(0.5);
        assert_eq!(matrix.dot(1, &x), 95.0);
        let mut gradient = vec![0.0; width];
        matrix.exchange(1, 2.0, &x, &mut gradient);
        assert_eq!(gradient[19..21], [38.0, 0.0]);
        matrix.add_from(0, 1.0, &gradient);
        let mut sum = vec![0.0; width];
        matrix.prefetch(1);
        matrix.add_to(0, &mut sum);
        matrix.add_to(1, &mut sum);
        add_scaled(&mut sum, &x, 2.0, &x);
        scale(&mut sum, 2.0);
        assert_eq!(sum[2], 2.0 * (4.0 + 3.0 + 1.5));
        add(&mut sum, &x);
        assert_eq!(sum[2], 17.5);
    }
}
