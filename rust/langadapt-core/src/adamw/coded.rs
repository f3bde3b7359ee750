//! The step over a piece whose moments are codes: block by block they are decoded, stepped as float32 and encoded.

use super::codes::{self, GROUPS};
use super::narrow::{Storage, Stored};
use super::steps::{BLOCK, Bits, draw, one, padded, same, undo};
use super::tensor::{Codes, Frozen, Place, Scalars};
use super::widest::Work;

/// Lists of a piece, and what its random bits depend on. `V`: second moments are rounded stochastically.
pub(super) struct Lists<'a, R: Storage, G, const V: bool> {
    pub(super) weight: &'a mut [R::Weight],
    pub(super) low: &'a mut [R::Low],
    pub(super) grad: &'a [G],
    pub(super) moments: Codes<'a>,
    pub(super) seed: u64,
    pub(super) place: Place,
    pub(super) scalars: Scalars,
    pub(super) frozen: Option<Frozen<'a>>,
}

/// Of one block.
struct Block<'a, R: Storage, G> {
    weight: &'a mut [R::Weight; BLOCK],
    low: &'a mut [R::Low; BLOCK],
    grad: &'a [G; BLOCK],
    average: &'a mut [u8; BLOCK],
    average_scales: &'a mut [f32; GROUPS],
    variance: &'a mut [u8; BLOCK],
    variance_scales: &'a mut [f32; GROUPS],
}

impl<R: Storage, G: Stored, const V: bool> Work for Lists<'_, R, G, V> {
    #[inline(always)]
    fn run(self) -> u64 {
        let Lists { weight, low, grad, moments, seed, place, scalars, frozen } = self;
        let mut bits: Bits = [[0; BLOCK]; 2];
        let (weights, weight) = weight.as_chunks_mut::<BLOCK>();
        let (lows, low) = low.as_chunks_mut::<BLOCK>();
        let (grads, grad) = grad.as_chunks::<BLOCK>();
        let (averages, average) = moments.exp_avg.as_chunks_mut::<BLOCK>();
        let (average_scales, average_scale) = moments.exp_avg_scale.as_chunks_mut::<GROUPS>();
        let (variances, variance) = moments.exp_avg_sq.as_chunks_mut::<BLOCK>();
        let (variance_scales, variance_scale) = moments.exp_avg_sq_scale.as_chunks_mut::<GROUPS>();
        let (blocks, mut unmoved) = (weights.len(), 0);
        for number in 0..blocks {
            draw::<R, V>(seed, &scalars, place, number, &mut bits);
            let block = Block::<R, G> {
                weight: &mut weights[number],
                low: &mut lows[number],
                grad: &grads[number],
                average: &mut averages[number],
                average_scales: &mut average_scales[number],
                variance: &mut variances[number],
                variance_scales: &mut variance_scales[number],
            };
            let still = frozen.map(|frozen| frozen.block(place.first, number));
            unmoved += u64::from(whole::<R, G, V>(block, still.as_ref(), &bits, &scalars));
        }
        let (exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale) = (average, average_scale, variance, variance_scale);
        let moments = Codes { exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale };
        let rest = Self { weight, low, grad, moments, seed, place, scalars, frozen };
        if rest.weight.is_empty() { unmoved } else { unmoved + rest.end(blocks, &mut bits) }
    }
}

impl<R: Storage, G: Stored, const V: bool> Lists<'_, R, G, V> {
    /// What is left after whole blocks, as the block `number`.
    #[inline(always)]
    fn end(self, number: usize, bits: &mut Bits) -> u64 {
        let Lists { weight, low, grad, moments, seed, place, scalars, frozen } = self;
        let Codes { exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale } = moments;
        draw::<R, V>(seed, &scalars, place, number, bits);
        let (mut w, mut l) = (padded(weight), padded(low));
        let (mut a, mut v) = (padded::<_, BLOCK>(exp_avg), padded::<_, BLOCK>(exp_avg_sq));
        let (mut s, mut t) = (padded::<_, GROUPS>(exp_avg_scale), padded::<_, GROUPS>(exp_avg_sq_scale));
        let block = Block::<R, G> {
            weight: &mut w,
            low: &mut l,
            grad: &padded(grad),
            average: &mut a,
            average_scales: &mut s,
            variance: &mut v,
            variance_scales: &mut t,
        };
        let still = frozen.map(|frozen| frozen.block(place.first, number));
        whole::<R, G, V>(block, still.as_ref(), bits, &scalars);
        let unmoved = same::<R>((weight, low), (&w, &l));
        weight.copy_from_slice(&w[..weight.len()]);
        low.copy_from_slice(&l[..low.len()]);
        exp_avg.copy_from_slice(&a[..exp_avg.len()]);
        exp_avg_sq.copy_from_slice(&v[..exp_avg_sq.len()]);
        exp_avg_scale.copy_from_slice(&s[..exp_avg_scale.len()]);
        exp_avg_sq_scale.copy_from_slice(&t[..exp_avg_sq_scale.len()]);
        unmoved
    }
}

/// Steps a block; how many stored weights stayed as they were.
#[inline(always)]
fn whole<R: Storage, G: Stored, const V: bool>(
    block: Block<'_, R, G>,
    still: Option<&[bool; BLOCK]>,
    bits: &Bits,
    scalars: &Scalars,
) -> u32 {
    let before = still.map(|still| (still, *block.weight, *block.low));
    let mut average = codes::averages(block.average, block.average_scales);
    let mut variance = codes::variances(block.variance, block.variance_scales);
    let mut unmoved =
        one::<R, G, f32, false>(block.weight, block.low, block.grad, &mut average, &mut variance, bits, scalars);
    if let Some((still, weight, low)) = before {
        unmoved += undo::<R>(still, (block.weight, &weight), (block.low, &low));
    }
    let still = still.unwrap_or(&[false; BLOCK]);
    codes::encode_averages(&average, still, block.average, block.average_scales);
    codes::encode_variances::<V>(&variance, &bits[1], still, block.variance, block.variance_scales);
    unmoved
}
