//! Sums of squares of gradients, for their norm.
//!
//! Groups of eight neighbours are summed as a float32 tree, the groups in float64: the bits of the kernels but for the
//! order of the float64 sums, which is fixed here.

use super::narrow::Stored;
use super::tensor::Values;
use super::{PIECE, shared};

/// Elements of a block.
const BLOCK: usize = 512;
/// Sums that run side by side.
const LANES: usize = 8;

/// Sum of squares of each list.
pub fn square_sums(lists: &[Values<'_>], threads: usize) -> Vec<f64> {
    let mut pieces = Vec::new();
    for (index, &list) in lists.iter().enumerate() {
        let mut list = list;
        while list.len() > PIECE {
            let (piece, rest) = list.split_at(PIECE);
            pieces.push((index, piece));
            list = rest;
        }
        pieces.push((index, list));
    }
    let elements = lists.iter().map(Values::len).sum();
    let mut sums = vec![0.0; lists.len()];
    for (index, sum) in shared(pieces, elements, threads, |(index, piece)| (index, of_piece(piece))) {
        sums[index] += sum;
    }
    sums
}

fn of_piece(piece: Values<'_>) -> f64 {
    match piece {
        Values::Narrow(values) => widest(values),
        Values::Wide(values) => widest(values),
    }
}

fn widest<T: Stored>(values: &[T]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
        // SAFETY: the processor has these.
        return unsafe { avx512(values) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { avx2(values) };
    }
    plain(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn avx512<T: Stored>(values: &[T]) -> f64 {
    plain(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<T: Stored>(values: &[T]) -> f64 {
    plain(values)
}

#[inline(always)]
fn plain<T: Stored>(values: &[T]) -> f64 {
    let mut totals = [0.0; LANES];
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    for block in blocks {
        add(block, &mut totals);
    }
    if !rest.is_empty() {
        let mut block = [T::default(); BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        add(&block, &mut totals);
    }
    totals.iter().sum()
}

#[inline(always)]
fn add<T: Stored>(block: &[T; BLOCK], totals: &mut [f64; LANES]) {
    let mut squares = [0.0f32; BLOCK];
    for (square, value) in squares.iter_mut().zip(block) {
        let value = value.widen();
        *square = value * value;
    }
    let eighths: [f32; BLOCK / 8] = neighbours(&neighbours::<{ BLOCK / 4 }>(&neighbours::<{ BLOCK / 2 }>(&squares)));
    for eight in eighths.chunks_exact(LANES) {
        for (total, &sum) in totals.iter_mut().zip(eight) {
            *total += f64::from(sum);
        }
    }
}

/// Sums of two neighbours each.
#[inline(always)]
fn neighbours<const N: usize>(values: &[f32]) -> [f32; N] {
    let mut sums = [0.0; N];
    for (sum, pair) in sums.iter_mut().zip(values.chunks_exact(2)) {
        *sum = pair[0] + pair[1];
    }
    sums
}
