//! What all fuzz targets share: random choices that a seed repeats, how long to go on, and what a failure says.
//!
//! `tests/fuzz.py` runs them for long. Each case draws from the run's seed and its own number, so that it can be run
//! alone: `FUZZ_SEED=s FUZZ_CASE=n`.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
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

/// Calls `case` for a second, always alike.
pub fn a_second(case: impl FnMut(&mut Random) -> u64) {
    go_on(Duration::from_secs(1), 1, None, case);
}

/// Calls `case` for `FUZZ_SECONDS`, a minute by default; the seed is `FUZZ_SEED` or new, and printed. `FUZZ_CASE`: that
/// one alone. `FUZZ_NOTE`: a file that keeps how far it got, also where the process dies. `case` returns how many
/// inputs it tried.
pub fn for_long(case: impl FnMut(&mut Random) -> u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let seed = number("FUZZ_SEED").unwrap_or_else(now);
    let seconds = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(60));
    say(format_args!("FUZZ_SEED={seed}"));
    let inputs = go_on(seconds, seed, number("FUZZ_CASE"), case);
    say(format_args!("{inputs} inputs"));
}

fn say(what: std::fmt::Arguments<'_>) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Says on a panic how to see it again.
struct Place {
    seed: u64,
    case: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, case } = self;
            say(format_args!("failed: again with FUZZ_SEED={seed} FUZZ_CASE={case}"));
        }
    }
}

fn go_on(seconds: Duration, seed: u64, only: Option<u64>, mut case: impl FnMut(&mut Random) -> u64) -> u64 {
    let note = std::env::var_os("FUZZ_NOTE").map(|path| File::create(path).unwrap());
    let mut place = Place { seed, case: only.unwrap_or(0) };
    let (until, mut inputs) = (Instant::now() + seconds, 0);
    while Instant::now() < until {
        if let Some(note) = &note {
            note.write_all_at(format!("{:>20} {inputs:>20}", place.case).as_bytes(), 0).unwrap();
        }
        let mixed = Random(seed).next() ^ place.case;
        inputs += case(&mut Random(mixed));
        if only.is_some() {
            break;
        }
        place.case += 1;
    }
    if let Some(note) = &note {
        note.write_all_at(format!("{:>20} {inputs:>20}", place.case).as_bytes(), 0).unwrap();
    }
    inputs
}
