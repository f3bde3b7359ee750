mod coded;

use proptest::prelude::*;

use super::philox::{Key, fill};
use super::*;
use crate::vectors::sampling::Random;

/// The lists of a tensor, owned.
#[derive(Debug, Clone, PartialEq)]
struct Owned {
    weight: Vec<u16>,
    grad: Vec<f32>,
    exp_avg: Vec<u16>,
    exp_avg_sq: Vec<u16>,
    low: Vec<u16>,
}

const SCALARS: Scalars = Scalars {
    decay: 0.999,
    step_size: 0.013,
    variance_scale: 2.5,
    eps: 1e-8,
    beta1: (0.9, 0.1),
    beta2: (0.95, 0.05),
    grad_scale: 0.37,
    step: 3,
};

fn place(base: u64, size: usize) -> Place {
    Place { base, run: size.max(1) as u64, stride: 1, first: 0 }
}

impl Owned {
    fn new(size: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, 0);
        let mut draw = |scale: f32| (0..size).map(|_| (2.0 * random.unit() - 1.0) * scale).collect::<Vec<f32>>();
        let narrow = |values: Vec<f32>| values.into_iter().map(nearest).collect();
        Self {
            weight: narrow(draw(1.0)),
            grad: draw(0.1),
            exp_avg: narrow(draw(0.01)),
            exp_avg_sq: draw(1e-3).into_iter().map(|x| nearest(x.abs())).collect(),
            // Both a small bfloat16 and half a pattern.
            low: narrow(draw(1e-3)),
        }
    }

    fn tensor(&mut self, mode: usize, place: Place) -> Tensor<'_> {
        let rounding = match mode {
            0 => Rounding::Nearest,
            1 => Rounding::Stochastic,
            2 => Rounding::Kahan(&mut self.low),
            _ => Rounding::Split(&mut self.low),
        };
        Tensor {
            weight: Numbers::Narrow(&mut self.weight),
            grad: Values::Wide(&self.grad),
            moments: Moments::Narrow(&mut self.exp_avg, &mut self.exp_avg_sq),
            rounding,
            stochastic_variance: mode == 1,
            seed: 0x1234_5678_9ABC_DEF0,
            place,
            scalars: SCALARS,
            frozen: None,
        }
    }
}

fn wide(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// By the neighbours in float64, where the distances are exact.
fn nearest(x: f32) -> u16 {
    let below = (x.to_bits() >> 16) as u16;
    let gaps = [below, below + 1].map(|bits| (f64::from(wide(bits)) - f64::from(x)).abs());
    if gaps[0] < gaps[1] || (gaps[0] == gaps[1] && below.is_multiple_of(2)) { below } else { below + 1 }
}

/// Philox by the paper, one element at a time.
fn random_bits(seed: u64, element: u64, step: u32, stream: u32) -> u16 {
    let words = words(seed, [(element / 8) as u32, ((element / 8) >> 32) as u32, step, stream]);
    (words[(element % 8 / 2) as usize] >> (element % 2 * 16)) as u16
}

fn words(seed: u64, mut c: [u32; 4]) -> [u32; 4] {
    let mut k = [seed as u32, (seed >> 32) as u32];
    for _ in 0..10 {
        let products = [u64::from(c[0]) * 0xD251_1F53, u64::from(c[2]) * 0xCD9E_8D57];
        let [(low0, high0), (low1, high1)] = products.map(|product| (product as u32, (product >> 32) as u32));
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

#[test]
fn the_generator_is_philox() {
    // Known answers of Random123.
    assert_eq!(words(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(words(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    for (base, run, stride, first) in [(0, 4096, 1, 0), (8, 4096, 1, 3), (1 << 36, 7, 25, 5), (5, 300, 1000, 256)] {
        let place = Place { base, run, stride, first };
        let (key, mut bits) = (Key { seed: 0x0123_4567_89AB_CDEF, step: 9, stream: 1 }, [0; 256]);
        fill::<32>(key, place, 512, &mut bits);
        for (i, &bits) in (first + 512..).zip(&bits) {
            assert_eq!(bits, random_bits(key.seed, base + i / run * stride + i % run, 9, 1), "{place:?} {i}");
        }
    }
}

/// AdamW as it is written in a book.
fn naive(before: &Owned, mode: usize, place: Place) -> Owned {
    let mut after = before.clone();
    let s = SCALARS;
    for i in 0..before.weight.len() {
        let element = place.base + i as u64 / place.run * place.stride + i as u64 % place.run;
        let grad = before.grad[i] * s.grad_scale;
        let exp_avg = wide(before.exp_avg[i]) * s.beta1.0 + grad * s.beta1.1;
        let exp_avg_sq = wide(before.exp_avg_sq[i]) * s.beta2.0 + grad * grad * s.beta2.1;
        let weight = match mode {
            2 => wide(before.weight[i]) + wide(before.low[i]),
            3 => {
                let (high, low) = (u32::from(before.weight[i]), u32::from(before.low[i]));
                f32::from_bits(((high - (low >> 15)) << 16) + low)
            }
            _ => wide(before.weight[i]),
        };
        let ratio = exp_avg / (exp_avg_sq.sqrt() * s.variance_scale + s.eps);
        let updated = weight * s.decay - ratio * s.step_size;
        let at_random = |x: f32, stream| {
            let bits = random_bits(0x1234_5678_9ABC_DEF0, element, s.step, stream);
            ((x.to_bits() + u32::from(bits)) >> 16) as u16
        };
        (after.weight[i], after.low[i]) = match mode {
            1 => (at_random(updated, 0), before.low[i]),
            2 => (nearest(updated), nearest(updated - wide(nearest(updated)))),
            3 => (((updated.to_bits() + 0x8000) >> 16) as u16, updated.to_bits() as u16),
            _ => (nearest(updated), before.low[i]),
        };
        after.exp_avg[i] = nearest(exp_avg);
        after.exp_avg_sq[i] = if mode == 1 { at_random(exp_avg_sq, 1) } else { nearest(exp_avg_sq) };
    }
    after
}

/// Every third column and the last of a matrix, as bits.
fn mask(columns: usize) -> Vec<u8> {
    let mut bits = vec![0; columns.div_ceil(8)];
    (0..columns)
        .filter(|column| column % 3 == 0 || column + 1 == columns)
        .for_each(|column| bits[column / 8] |= 1 << (column % 8));
    bits
}

#[test]
fn frozen_columns_stay_whatever_the_pieces() {
    for (rows, columns) in [(3, 5), (1, 1), (40, 257), (PIECE / 100, 301)] {
        let (size, bits) = (rows * columns, mask(columns));
        let before = Owned::new(size, columns as u64);
        for mode in 0..4 {
            let mut wanted = naive(&before, mode, place(16, size));
            for i in (0..size).filter(|i| bits[i % columns / 8] >> (i % columns % 8) & 1 == 1) {
                (wanted.weight[i], wanted.low[i]) = (before.weight[i], before.low[i]);
                (wanted.exp_avg[i], wanted.exp_avg_sq[i]) = (before.exp_avg[i], before.exp_avg_sq[i]);
            }
            let mut found = before.clone();
            let frozen = Some(Frozen { bits: &bits, columns: columns as u64 });
            let counts = step(vec![Tensor { frozen, ..found.tensor(mode, place(16, size)) }], 2).unwrap();
            assert!(found == wanted, "{rows} x {columns}, {mode}");
            assert_eq!(counts, [unmoved(&before, &found)]);
        }
    }
    let (mut one, bits) = (Owned::new(9, 1), mask(30));
    let frozen = Some(Frozen { bits: &bits, columns: 9 });
    assert!(step(vec![Tensor { frozen, ..one.tensor(0, place(0, 9)) }], 1).is_err());
}

fn unmoved(before: &Owned, after: &Owned) -> u64 {
    let same = |i: &usize| before.weight[*i] == after.weight[*i] && before.low[*i] == after.low[*i];
    (0..before.weight.len()).filter(same).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn equals_the_book(sizes in prop::collection::vec(0usize..900, 1..4), mode in 0usize..4, seed: u32, run in 1u64..600) {
        let before: Vec<Owned> = sizes.iter().zip(0..).map(|(&n, i)| Owned::new(n, u64::from(seed) + i)).collect();
        let places: Vec<Place> = (0..).map(|i| Place { base: 8000 * i, run, stride: 700, first: 0 }).take(sizes.len()).collect();
        let wanted: Vec<Owned> = before.iter().zip(&places).map(|(one, &place)| naive(one, mode, place)).collect();
        let mut found = before.clone();
        let tensors = found.iter_mut().zip(&places).map(|(one, &place)| one.tensor(mode, place)).collect();
        let counts = step(tensors, 2).unwrap();
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!(counts, before.iter().zip(&found).map(|(one, other)| unmoved(one, other)).collect::<Vec<_>>());
    }
}

#[test]
fn threads_and_pieces_change_nothing() {
    let size = 5 * PIECE + 77;
    let before = Owned::new(size, 5);
    for mode in 0..4 {
        let run = |threads| {
            let mut found = before.clone();
            let counts = step(vec![found.tensor(mode, place(16, size))], threads).unwrap();
            (found, counts)
        };
        let once = run(1);
        assert!(once == run(3), "{mode}");
        assert!(once.0 == naive(&before, mode, place(16, size)), "{mode}");
    }
    let values: Vec<f32> = before.grad;
    let sums = |threads| square_sums(&[Values::Wide(&values), Values::Narrow(&before.weight)], threads);
    assert_eq!(sums(1), sums(3));
    let exact: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
    assert!((sums(1)[0] / exact - 1.0).abs() < 1e-6);
}

#[test]
fn squares_are_summed_by_eights() {
    let values: Vec<f32> = Owned::new(1003, 6).grad;
    let mut squares: Vec<f32> = values.iter().map(|x| x * x).collect();
    squares.resize(1008, 0.0);
    let eights = squares.chunks_exact(8).map(|s| {
        let [a, b, c, d] = [s[0] + s[1], s[2] + s[3], s[4] + s[5], s[6] + s[7]];
        f64::from((a + b) + (c + d))
    });
    let exact: f64 = eights.sum();
    assert!((square_sums(&[Values::Wide(&values)], 1)[0] - exact).abs() <= 1e-15 * exact);
    assert_eq!(square_sums(&[Values::Narrow(&[])], 4), [0.0]);
}

#[test]
fn lists_that_do_not_fit_are_refused_before_anything_moves() {
    let (mut good, mut bad) = (Owned::new(9, 1), Owned::new(9, 2));
    let before = good.clone();
    bad.exp_avg.pop();
    let tensors = vec![good.tensor(0, place(0, 9)), bad.tensor(0, place(16, 9))];
    assert!(step(tensors, 1).unwrap_err().to_string().contains("differ in length"));
    assert_eq!(good, before);
}
