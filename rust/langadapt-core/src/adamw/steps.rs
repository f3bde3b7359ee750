//! What a step does to one block of elements, whatever the kind of its moments.
//!
//! The loops are written so that the compiler vectorises them: arrays of fixed length that cannot overlap, no branch in
//! a loop. The bits are the same for every processor, as nothing is fused or reordered.

use super::narrow::{Storage, Stored};
use super::philox::{self, Key};
use super::tensor::{Frozen, Place, Scalars};

/// Elements of a block: a multiple of those whose random bits are made side by side.
pub(super) const BLOCK: usize = 256;

/// How many weights, with what is kept beside them, are what they were; `now` may be longer.
#[inline(always)]
pub(super) fn same<R: Storage>(before: (&[R::Weight], &[R::Low]), now: (&[R::Weight], &[R::Low])) -> u64 {
    let pairs = before.0.iter().zip(before.1).zip(now.0.iter().zip(now.1));
    pairs.filter(|((w, l), (now, kept))| R::same((**w, **l), (**now, **kept))).count() as u64
}

/// Random bits of a block: for weights, and for second moments.
pub(super) type Bits = [[u16; BLOCK]; 2];

/// Draws those that are wanted for the block `number`. No closure: that would be compiled for the plain processor.
#[inline(always)]
pub(super) fn draw<R: Storage, const V: bool>(
    seed: u64,
    scalars: &Scalars,
    place: Place,
    number: usize,
    bits: &mut Bits,
) {
    for (stream, wanted) in [(0, R::RANDOM), (1, V)] {
        if wanted {
            let key = Key { seed, step: scalars.step, stream };
            philox::fill::<{ BLOCK / 8 }>(key, place, (number * BLOCK) as u64, &mut bits[stream as usize]);
        }
    }
}

impl Frozen<'_> {
    /// Which elements of the block `number` are in columns that stay; `first` is the place of the piece in its tensor.
    #[inline(always)]
    pub(super) fn block(&self, first: u64, number: usize) -> [bool; BLOCK] {
        let mut column = (first + (number * BLOCK) as u64) % self.columns;
        std::array::from_fn(|_| {
            let bit = self.bits[(column / 8) as usize] >> (column % 8) & 1;
            column = if column + 1 == self.columns { 0 } else { column + 1 };
            bit == 1
        })
    }
}

/// A block as it is now, and as it was.
pub(super) type Pair<'a, T> = (&'a mut [T; BLOCK], &'a [T; BLOCK]);

/// Takes back what a step did to weights that stay; how many of them it had moved.
#[inline(always)]
pub(super) fn undo<R: Storage>(still: &[bool; BLOCK], weight: Pair<'_, R::Weight>, low: Pair<'_, R::Low>) -> u32 {
    let mut moved = 0;
    for (i, &still) in still.iter().enumerate() {
        let same = R::same((weight.0[i], low.0[i]), (weight.1[i], low.1[i]));
        moved += u32::from(still & !same);
    }
    keep(still, weight);
    keep(still, low);
    moved
}

/// Puts back what was there before a step, of elements that stay.
#[inline(always)]
pub(super) fn keep<T: Copy>(still: &[bool; BLOCK], (now, before): Pair<'_, T>) {
    for (i, &still) in still.iter().enumerate() {
        now[i] = if still { before[i] } else { now[i] };
    }
}

/// The end of a list as a block.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(end: &[T]) -> [T; N] {
    let mut block = [T::default(); N];
    block[..end.len()].copy_from_slice(end);
    block
}

/// The step itself; how many stored weights stayed as they were. Lists are arguments of their own: the compiler then
/// knows that they do not overlap.
#[inline(always)]
pub(super) fn one<R: Storage, G: Stored, M: Stored, const V: bool>(
    weight: &mut [R::Weight; BLOCK],
    low: &mut [R::Low; BLOCK],
    grad: &[G; BLOCK],
    exp_avg: &mut [M; BLOCK],
    exp_avg_sq: &mut [M; BLOCK],
    bits: &Bits,
    s: &Scalars,
) -> u32 {
    let s = *s;
    let mut unmoved = 0;
    for i in 0..BLOCK {
        let g = grad[i].widen() * s.grad_scale;
        let average = exp_avg[i].widen() * s.beta1.0 + g * s.beta1.1;
        let variance = exp_avg_sq[i].widen() * s.beta2.0 + (g * g) * s.beta2.1;
        let ratio = average / (variance.sqrt() * s.variance_scale + s.eps);
        let updated = R::widen(weight[i], low[i]) * s.decay - ratio * s.step_size;
        let (now, kept) = R::narrow(updated, bits[0][i]);
        unmoved += u32::from(R::same((now, kept), (weight[i], low[i])));
        weight[i] = now;
        low[i] = kept;
        exp_avg[i] = M::nearest(average);
        exp_avg_sq[i] = if V { M::random(variance, bits[1][i]) } else { M::nearest(variance) };
    }
    unmoved
}
