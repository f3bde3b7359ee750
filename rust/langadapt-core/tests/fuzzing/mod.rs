//! What all fuzz targets share: random choices that a seed repeats, and how long to go on.

use std::time::{Duration, Instant, SystemTime};

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// Calls `step` for a second, always alike.
pub fn a_second(step: impl FnMut(&mut Random)) {
    go_on(1.0, 1, step);
}

/// Calls `step` for `FUZZ_SECONDS`, a minute by default; the seed is `FUZZ_SEED` or new, and printed.
pub fn for_long(step: impl FnMut(&mut Random)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let seed = number("FUZZ_SEED").unwrap_or_else(now);
    let place = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("FUZZ_SEED={seed}\n"));
    assert!(place.is_ok());
    go_on(number("FUZZ_SECONDS").unwrap_or(60) as f64, seed, step);
}

fn go_on(seconds: f64, seed: u64, mut step: impl FnMut(&mut Random)) {
    let mut random = Random(seed);
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < until {
        step(&mut random);
    }
}
