//! Coded moments beside a book that knows one element and its group at a time.

use super::*;

/// The lists of a tensor with coded moments, owned.
#[derive(Debug, Clone, PartialEq)]
struct Coded {
    weight: Vec<u16>,
    grad: Vec<f32>,
    low: Vec<u16>,
    exp_avg: Vec<u8>,
    exp_avg_scale: Vec<f32>,
    exp_avg_sq: Vec<u8>,
    exp_avg_sq_scale: Vec<f32>,
}

impl Coded {
    /// Of `groups` groups, whose sizes differ by many orders of magnitude; the third has neither moments nor gradients.
    fn new(groups: usize, seed: u64) -> Self {
        let plain = Owned::new(groups * GROUP, seed);
        let mut random = Random::new(seed, 1);
        let mut bytes = |most: f32| (0..groups * GROUP).map(|_| (random.unit() * most) as u8).collect::<Vec<u8>>();
        let scale = |group: usize, unit: f32| if group % 5 == 2 { 0.0 } else { unit * 8f32.powi(-(group as i32 % 7)) };
        let codes = bytes(255.0).into_iter().map(|code| (i32::from(code) - 127) as u8).collect();
        let grad = plain.grad.iter().enumerate();
        Self {
            grad: grad
                .map(|(i, x)| x * if i / GROUP % 5 == 2 { 0.0 } else { (i as f32 * 0.7).sin().powi(3) })
                .collect(),
            weight: plain.weight,
            low: plain.low,
            exp_avg: codes,
            exp_avg_scale: (0..groups).map(|group| scale(group, 0.01)).collect(),
            exp_avg_sq: bytes(256.0),
            exp_avg_sq_scale: (0..groups).map(|group| scale(group, 0.2)).collect(),
        }
    }

    fn tensor(&mut self, mode: usize, place: Place) -> Tensor<'_> {
        Tensor {
            weight: Numbers::Narrow(&mut self.weight),
            grad: Values::Wide(&self.grad),
            moments: Moments::Coded(Codes {
                exp_avg: &mut self.exp_avg,
                exp_avg_scale: &mut self.exp_avg_scale,
                exp_avg_sq: &mut self.exp_avg_sq,
                exp_avg_sq_scale: &mut self.exp_avg_sq_scale,
            }),
            rounding: match mode {
                0 => Rounding::Nearest,
                1 => Rounding::Stochastic,
                _ => Rounding::Kahan(&mut self.low),
            },
            stochastic_variance: mode == 1,
            seed: SEED,
            place,
            scalars: SCALARS,
            frozen: None,
        }
    }

    fn moments(&self, i: usize) -> (f32, f32) {
        let code = f32::from(self.exp_avg[i].cast_signed());
        let average = code / (254.0 - code.abs()) * self.exp_avg_scale[i / GROUP];
        let root = f32::from(self.exp_avg_sq[i]) * (self.exp_avg_sq_scale[i / GROUP] / 255.0);
        (average, (root * root) * (root * root))
    }
}

const SEED: u64 = 0x1234_5678_9ABC_DEF0;

/// One step as it is written down, element by element and then group by group.
fn book(before: &Coded, mode: usize, place: Place, frozen: &dyn Fn(usize) -> bool) -> Coded {
    let (mut after, s, count) = (before.clone(), SCALARS, before.weight.len());
    let (mut averages, mut variances) = (vec![0.0; count], vec![0.0; count]);
    let element = |i: usize| place.base + i as u64 / place.run * place.stride + i as u64 % place.run;
    for i in 0..count {
        let grad = before.grad[i] * s.grad_scale;
        let (average, variance) = before.moments(i);
        averages[i] = average * s.beta1.0 + grad * s.beta1.1;
        variances[i] = variance * s.beta2.0 + grad * grad * s.beta2.1;
        let weight = wide(before.weight[i]) + if mode == 2 { wide(before.low[i]) } else { 0.0 };
        let ratio = averages[i] / (variances[i].sqrt() * s.variance_scale + s.eps);
        let updated = weight * s.decay - ratio * s.step_size;
        if !frozen(i) {
            (after.weight[i], after.low[i]) = match mode {
                1 => {
                    let bits = random_bits(SEED, element(i), s.step, 0);
                    (((updated.to_bits() + u32::from(bits)) >> 16) as u16, before.low[i])
                }
                2 => (nearest(updated), nearest(updated - wide(nearest(updated)))),
                _ => (nearest(updated), before.low[i]),
            };
        }
    }
    for group in 0..count / GROUP {
        let moving: Vec<usize> = (group * GROUP..(group + 1) * GROUP).filter(|&i| !frozen(i)).collect();
        let root = |i: usize| variances[i].sqrt().sqrt();
        let most = moving.iter().map(|&i| averages[i].abs()).fold(0.0, f32::max);
        let widest = moving.iter().map(|&i| root(i)).fold(0.0, f32::max);
        (after.exp_avg_scale[group], after.exp_avg_sq_scale[group]) = (most, widest);
        for i in moving {
            let code = 254.0 * (averages[i] / (averages[i].abs() + most));
            after.exp_avg[i] = if most > 0.0 { (code.round_ties_even() as i8).cast_unsigned() } else { 0 };
            let up = if mode == 1 { f32::from(random_bits(SEED, element(i), s.step, 1)) / 65536.0 } else { 0.5 };
            let code = (255.0 * (root(i) / widest) + up).floor() as u8;
            after.exp_avg_sq[i] = if widest > 0.0 { code.max(u8::from(root(i) > 0.0)) } else { 0 };
        }
    }
    after
}

fn still(before: &Coded, after: &Coded) -> u64 {
    let same = |i: &usize| before.weight[*i] == after.weight[*i] && before.low[*i] == after.low[*i];
    (0..before.weight.len()).filter(same).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn equals_the_book_to_the_last_code(groups in prop::collection::vec(0usize..14, 1..4), mode in 0usize..3, seed: u32, run in 1u64..600) {
        let before: Vec<Coded> = groups.iter().zip(0..).map(|(&n, i)| Coded::new(n, u64::from(seed) + i)).collect();
        let places: Vec<Place> = (0..).map(|i| Place { base: 8000 * i, run, stride: 700, first: 0 }).take(groups.len()).collect();
        let wanted: Vec<Coded> = before.iter().zip(&places).map(|(one, &place)| book(one, mode, place, &|_| false)).collect();
        let mut found = before.clone();
        let tensors = found.iter_mut().zip(&places).map(|(one, &place)| one.tensor(mode, place)).collect();
        let counts = step(tensors, 2).unwrap();
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!(counts, before.iter().zip(&found).map(|(one, other)| still(one, other)).collect::<Vec<_>>());
    }

    /// A first moment of a group is known to 1/254 of itself and of the largest together, the root of a second to 1/127
    /// of the geometric mean of itself and the largest, and to a code beside zero.
    #[test]
    fn codes_keep_what_they_promise(values in prop::collection::vec(-1f32..1f32, GROUP), power in -30i32..30) {
        let values: Vec<f32> = values.iter().enumerate().map(|(i, x)| x * 4f32.powi(-(i as i32 % 6)) * 2f32.powi(power)).collect();
        let mut one = Coded { grad: values.iter().map(|x| x / SCALARS.grad_scale).collect(), ..Coded::new(1, 1) };
        (one.exp_avg_scale[0], one.exp_avg_sq_scale[0]) = (0.0, 0.0);
        step(vec![one.tensor(0, place(0, GROUP))], 1).unwrap();
        let most = values.iter().map(|x| x.abs()).fold(0.0, f32::max);
        for (i, &value) in values.iter().enumerate() {
            let (average, variance) = one.moments(i);
            let (average, root) = (average / SCALARS.beta1.1, (variance / SCALARS.beta2.1).sqrt());
            let error = (average - value).abs();
            prop_assert!(error <= (value.abs() + most).powi(2) / most / 254.0 * 0.51, "{average} for {value} of {most}");
            let error = (root - value.abs()).abs();
            let step = (value.abs() * most).sqrt() / 127.0 * 0.52 + most * 1.1 / 255f32.powi(2);
            prop_assert!(error <= step, "{root} for {value} of {most}");
            prop_assert_eq!(variance > 0.0, value * value > 0.0);
        }
    }
}

#[test]
fn pieces_threads_and_frozen_columns_change_nothing_else() {
    let (rows, columns) = (70, 15 * GROUP);
    let size = rows * columns;
    assert!(size > PIECE && !size.is_multiple_of(256));
    let (before, bits) = (Coded::new(size / GROUP, 5), mask(columns));
    for mode in 0..3 {
        for frozen in [None, Some(Frozen { bits: &bits, columns: columns as u64 })] {
            let stays = |i: usize| frozen.is_some() && bits[i % columns / 8] >> (i % columns % 8) & 1 == 1;
            let wanted = book(&before, mode, place(16, size), &stays);
            for threads in [1, 3] {
                let mut found = before.clone();
                let counts = step(vec![Tensor { frozen, ..found.tensor(mode, place(16, size)) }], threads).unwrap();
                assert!(found == wanted, "{mode} {threads} {}", frozen.is_some());
                assert_eq!(counts, [still(&before, &found)]);
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_spoil_their_group_alone() {
    for odd in [f32::NAN, f32::INFINITY, -f32::INFINITY] {
        let (mut found, mut other) = (Coded::new(9, 3), Coded::new(9, 3));
        found.grad[4 * GROUP + 5] = odd;
        for one in [&mut found, &mut other] {
            step(vec![one.tensor(0, place(0, 9 * GROUP))], 1).unwrap();
        }
        for group in 0..9 {
            assert_eq!(found.exp_avg_scale[group].is_nan(), group == 4);
            assert_eq!(found.exp_avg_sq_scale[group].is_nan(), group == 4);
        }
        let spoilt = 4 * GROUP..5 * GROUP;
        assert!(found.exp_avg[spoilt.clone()].iter().chain(&found.exp_avg_sq[spoilt.clone()]).all(|&code| code == 0));
        assert_eq!(found.exp_avg[..spoilt.start], other.exp_avg[..spoilt.start]);
        assert_eq!(found.weight[spoilt.end..], other.weight[spoilt.end..]);
    }
}

#[test]
fn scales_that_are_missing_are_refused() {
    let mut one = Coded::new(3, 1);
    one.exp_avg_scale.pop();
    let message = step(vec![one.tensor(0, place(0, 3 * GROUP))], 1).unwrap_err().to_string();
    assert!(message.contains("lack a scale for each 64"), "{message}");
}
