//! Random numbers, the noise distribution and the subsampling of frequent tokens.

/// SplitMix64: a few instructions per draw, every seed gives a good stream.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each pair of `seed` and `stream`.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Self(seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        Self(mixer.next())
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n`; the bias of the multiply-shift is below `n / 2^32`.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Draws index `i` with probability proportional to `weights[i]` in constant time (Walker's alias method).
#[derive(Debug)]
pub struct Alias {
    cells: Vec<(f32, u32)>,
}

impl Alias {
    /// `weights` must not be empty, their sum must be positive.
    pub fn new(weights: &[f64]) -> Self {
        let scale = weights.len() as f64 / weights.iter().sum::<f64>();
        let mut share: Vec<f64> = weights.iter().map(|weight| weight * scale).collect();
        let mut cells: Vec<(f32, u32)> = (0..weights.len()).map(|i| (1.0, i as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..share.len()).partition(|&i| share[i] < 1.0);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            cells[low] = (share[low] as f32, high as u32);
            share[high] -= 1.0 - share[low];
            if share[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self { cells }
    }

    /// One draw.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u32 {
        let cell = random.below(self.cells.len() as u32);
        let (keep, other) = self.cells[cell as usize];
        if random.unit() < keep { cell } else { other }
    }
}

/// fastText's probability of keeping an occurrence of a token that makes up the share `frequency` of the corpus:
/// `sqrt(t / f) + t / f`; 1 where `threshold` is 0.
pub fn keep_probability(frequency: f64, threshold: f64) -> f32 {
    if threshold == 0.0 {
        return 1.0;
    }
    let ratio = threshold / frequency;
    (ratio.sqrt() + ratio).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_draws_follow_the_weights() {
        let weights = [1.0, 0.0, 5.0, 2.5, 0.1];
        let alias = Alias::new(&weights);
        let mut random = Random::new(3, 0);
        let mut counts = [0u32; 5];
        for _ in 0..200_000 {
            counts[alias.draw(&mut random) as usize] += 1;
        }
        for (weight, count) in weights.iter().zip(counts) {
            let expected = weight / 8.6;
            assert!((f64::from(count) / 200_000.0 - expected).abs() < 0.005, "{counts:?}");
        }
    }

    #[test]
    fn rare_tokens_are_kept_and_frequent_ones_thinned() {
        assert_eq!(keep_probability(1e-5, 1e-4), 1.0);
        assert!((keep_probability(1e-2, 1e-4) - 0.11).abs() < 1e-6);
        assert_eq!(keep_probability(0.5, 0.0), 1.0);
    }

    #[test]
    fn streams_differ_and_units_stay_below_one() {
        let (mut a, mut b) = (Random::new(1, 0), Random::new(1, 1));
        assert_ne!(a.next(), b.next());
        assert!((0..10_000).all(|_| a.unit() < 1.0 && b.below(7) < 7));
    }
}
