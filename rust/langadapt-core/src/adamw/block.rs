//! The step over a piece of one tensor, a block of elements at a time: which loop is whose, and that of plain moments.

use super::coded;
use super::narrow::{Alone, Compensated, Full, Halves, Storage, Stored, ThreeQuarters};
use super::steps::{BLOCK, Bits, draw, keep, one, padded, same, undo};
use super::tensor::{Frozen, Moments, Numbers, Place, Rounding, Scalars, Tensor, Values};
use super::widest::{Work, widest};

/// Lists of a piece whose kinds are known, and what its random bits depend on. `V`: second moments are rounded
/// stochastically.
struct Lists<'a, R: Storage, G, M, const V: bool> {
    weight: &'a mut [R::Weight],
    low: &'a mut [R::Low],
    grad: &'a [G],
    exp_avg: &'a mut [M],
    exp_avg_sq: &'a mut [M],
    seed: u64,
    place: Place,
    scalars: Scalars,
    frozen: Option<Frozen<'a>>,
}

/// What is left of a tensor once the kind of its weights is known.
struct Rest<'a> {
    grad: Values<'a>,
    moments: Moments<'a>,
    stochastic_variance: bool,
    seed: u64,
    place: Place,
    scalars: Scalars,
    frozen: Option<Frozen<'a>>,
}

/// Steps a tensor that `Tensor::check` has passed; how many stored weights stayed as they were.
pub(super) fn step(tensor: Tensor<'_>) -> u64 {
    let Tensor { weight, grad, moments, rounding, stochastic_variance, seed, place, scalars, frozen } = tensor;
    let rest = Rest { grad, moments, stochastic_variance, seed, place, scalars, frozen };
    // Of numbers without a size: no memory is taken.
    let mut nothing = vec![(); rest.grad.len()];
    match (weight, rounding) {
        (Numbers::Wide(weight), _) => of_storage::<Full>(weight, &mut nothing, rest),
        (Numbers::Narrow(weight), Rounding::Nearest) => of_storage::<Alone<false>>(weight, &mut nothing, rest),
        (Numbers::Narrow(weight), Rounding::Stochastic) => of_storage::<Alone<true>>(weight, &mut nothing, rest),
        (Numbers::Narrow(weight), Rounding::Kahan(low)) => of_storage::<Compensated>(weight, low, rest),
        (Numbers::Narrow(weight), Rounding::Split(low)) => of_storage::<Halves>(weight, low, rest),
        (Numbers::Narrow(weight), Rounding::Split8(low)) => of_storage::<ThreeQuarters>(weight, low, rest),
    }
}

fn of_storage<R: Storage>(weight: &mut [R::Weight], low: &mut [R::Low], rest: Rest<'_>) -> u64 {
    match rest.grad {
        Values::Narrow(grad) => of_moments::<R, u16>(weight, low, grad, rest),
        Values::Wide(grad) => of_moments::<R, f32>(weight, low, grad, rest),
    }
}

fn of_moments<R: Storage, G: Stored>(weight: &mut [R::Weight], low: &mut [R::Low], grad: &[G], rest: Rest<'_>) -> u64 {
    if rest.stochastic_variance {
        of_variance::<R, G, true>(weight, low, grad, rest)
    } else {
        of_variance::<R, G, false>(weight, low, grad, rest)
    }
}

fn of_variance<R: Storage, G: Stored, const V: bool>(
    weight: &mut [R::Weight],
    low: &mut [R::Low],
    grad: &[G],
    rest: Rest<'_>,
) -> u64 {
    let Rest { moments, seed, place, scalars, frozen, .. } = rest;
    match moments {
        Moments::Narrow(exp_avg, exp_avg_sq) => {
            widest(Lists::<R, G, u16, V> { weight, low, grad, exp_avg, exp_avg_sq, seed, place, scalars, frozen })
        }
        Moments::Wide(exp_avg, exp_avg_sq) => {
            widest(Lists::<R, G, f32, false> { weight, low, grad, exp_avg, exp_avg_sq, seed, place, scalars, frozen })
        }
        Moments::Coded(moments) => {
            widest(coded::Lists::<R, G, V> { weight, low, grad, moments, seed, place, scalars, frozen })
        }
    }
}

impl<R: Storage, G: Stored, M: Stored, const V: bool> Work for Lists<'_, R, G, M, V> {
    #[inline(always)]
    fn run(self) -> u64 {
        let Lists { weight, low, grad, exp_avg, exp_avg_sq, seed, place, scalars, frozen } = self;
        let mut bits: Bits = [[0; BLOCK]; 2];
        let (weights, weight) = weight.as_chunks_mut::<BLOCK>();
        let (lows, low) = low.as_chunks_mut::<BLOCK>();
        let (grads, grad) = grad.as_chunks::<BLOCK>();
        let (averages, average) = exp_avg.as_chunks_mut::<BLOCK>();
        let (variances, variance) = exp_avg_sq.as_chunks_mut::<BLOCK>();
        let (blocks, mut unmoved) = (weights.len(), 0);
        let lists = weights.iter_mut().zip(lows).zip(grads).zip(averages).zip(variances);
        for (number, ((((weight, low), grad), average), variance)) in lists.enumerate() {
            draw::<R, V>(seed, &scalars, place, number, &mut bits);
            let before = frozen.map(|frozen| (frozen.block(place.first, number), *weight, *low, *average, *variance));
            unmoved += u64::from(one::<R, G, M, V>(weight, low, grad, average, variance, &bits, &scalars));
            if let Some((still, w, l, a, v)) = before {
                unmoved += u64::from(undo::<R>(&still, (weight, &w), (low, &l)));
                keep(&still, (average, &a));
                keep(&still, (variance, &v));
            }
        }
        if !weight.is_empty() {
            draw::<R, V>(seed, &scalars, place, blocks, &mut bits);
            let (mut w, mut l) = (padded(weight), padded(low));
            let (mut a, mut v) = (padded(average), padded(variance));
            let before = frozen.map(|frozen| (frozen.block(place.first, blocks), w, l, a, v));
            one::<R, G, M, V>(&mut w, &mut l, &padded(grad), &mut a, &mut v, &bits, &scalars);
            if let Some((still, bw, bl, ba, bv)) = before {
                undo::<R>(&still, (&mut w, &bw), (&mut l, &bl));
                keep(&still, (&mut a, &ba));
                keep(&still, (&mut v, &bv));
            }
            unmoved += same::<R>((weight, low), (&w, &l));
            weight.copy_from_slice(&w[..weight.len()]);
            low.copy_from_slice(&l[..low.len()]);
            average.copy_from_slice(&a[..average.len()]);
            variance.copy_from_slice(&v[..variance.len()]);
        }
        unmoved
    }
}
