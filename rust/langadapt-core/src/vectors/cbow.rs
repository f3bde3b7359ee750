//! Continuous bag of words with character n-grams (Mikolov et al. 2013, Bojanowski et al. 2017), as fastText trains it.
//!
//! For each target a window is drawn; the mean of all rows of all context tokens predicts the target against noise.
//! fastText gathers and updates every n-gram row once for each target whose window holds it, about six times a token.
//! Here a token's rows are summed once when it comes into reach of the window and updated once when it leaves it; in
//! between its sum and its gradient live in a ring of `2 * window + 1` slots that fits the first-level cache. The
//! targets see their own window's updates at once, as in fastText; only what a n-gram shared with another token in
//! reach would have passed on arrives a few positions later. That is a third of the memory traffic. Asking for the rows
//! of the next token to come into reach ahead of time was tried and bought nothing; for noise rows it does.

mod worker;

use std::sync::atomic::{AtomicU64, Ordering};

use self::worker::Worker;
use super::rows::{SharedRows, padded, scale};
use super::sampling::{Alias, Random, keep_probability};
use super::subwords::Subwords;
use super::{Settings, TokenVectors};
use crate::{Error, Monitor, Result, threads};

/// fastText ends a line after this many tokens; no window crosses the cut. Also the stretch between two looks at the
/// monitor (about 10 ms of work).
const LINE: usize = 1024;

/// Not in the vocabulary: seen less often than the minimum.
const RARE: u32 = u32::MAX;

/// Exponent of the noise distribution, fastText's.
const NOISE_POWER: f64 = 0.5;

/// Learns one vector per token of a store.
///
/// `tokens` and `offsets` are a token store (`offsets[i]..offsets[i + 1]` is document `i`); `surfaces` holds one
/// string per id, of which the n-grams are made. A token's vector is the mean of its own row and its n-grams' rows;
/// tokens seen less than `min_count` times get zeros, which means "no vector".
///
/// Time grows with the number of tokens, memory only with the vocabulary (see the module's head).
///
/// # Errors
/// [`Error::Argument`] where settings, offsets or ids are out of range or no token reaches the minimum count;
/// [`Error::Interrupted`] on a stop.
pub fn train<T: Copy + Into<u32> + Sync>(
    tokens: &[T],
    offsets: &[u64],
    surfaces: &[String],
    settings: &Settings,
    monitor: &Monitor,
) -> Result<TokenVectors> {
    settings.check()?;
    check_offsets(offsets, tokens.len())?;
    let counts = count(tokens, surfaces.len(), settings.threads, monitor)?;
    let model = Model::new(&counts, surfaces, settings)?;
    model.fit(tokens, offsets, monitor)?;
    Ok(TokenVectors { data: model.vectors(), counts })
}

fn check_offsets(offsets: &[u64], n_tokens: usize) -> Result<()> {
    let whole = offsets.first() == Some(&0) && offsets.last() == Some(&(n_tokens as u64));
    if !whole || !offsets.is_sorted() {
        return Err(Error::argument(format!(
            "offsets must rise from 0 to the number of tokens: {n_tokens}; they go from {:?} to {:?}",
            offsets.first(),
            offsets.last()
        )));
    }
    Ok(())
}

fn count<T: Copy + Into<u32> + Sync>(
    tokens: &[T],
    vocabulary: usize,
    threads: usize,
    monitor: &Monitor,
) -> Result<Vec<u64>> {
    monitor.begin("count tokens", "tokens", Some(tokens.len() as u64));
    let share = tokens.len().div_ceil(threads).max(1);
    let count_share = |share: &[T]| -> Result<Vec<u64>> {
        let mut counts = vec![0u64; vocabulary];
        for block in share.chunks(1 << 20) {
            for &token in block {
                let id: u32 = token.into();
                let cell = counts.get_mut(id as usize).ok_or_else(|| {
                    Error::argument(format!(
                        "the store holds token {id}, but the tokenizer has only {vocabulary} tokens"
                    ))
                })?;
                *cell += 1;
            }
            monitor.advance(block.len() as u64)?;
        }
        Ok(counts)
    };
    let parts = in_threads(tokens.chunks(share), count_share)?;
    let mut counts = vec![0u64; vocabulary];
    for part in parts {
        counts.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    Ok(counts)
}

/// Runs `work` on every item, each on a thread of its own, and passes on panics and the first error.
fn in_threads<I: Send, O: Send>(
    items: impl Iterator<Item = I>,
    work: impl Fn(I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    threads::each(items, work).into_iter().collect()
}

struct Model<'a> {
    settings: &'a Settings,
    /// Id in the store to number in the model, or [`RARE`].
    numbers: Vec<u32>,
    keep: Vec<f32>,
    noise: Alias,
    subwords: Subwords,
    input: SharedRows,
    output: SharedRows,
    width: usize,
    /// Occurrences of tokens in the vocabulary.
    corpus: u64,
}

impl<'a> Model<'a> {
    fn new(counts: &[u64], surfaces: &[String], settings: &'a Settings) -> Result<Self> {
        let kept: Vec<usize> = (0..counts.len()).filter(|&id| counts[id] >= settings.min_count.max(1)).collect();
        if kept.len() < 2 {
            return Err(Error::argument(format!(
                "only {} of {} tokens occur at least {} times; use more text or a smaller min_count",
                kept.len(),
                counts.len(),
                settings.min_count
            )));
        }
        let mut numbers = vec![RARE; counts.len()];
        for (number, &id) in kept.iter().enumerate() {
            numbers[id] = number as u32;
        }
        let corpus: u64 = kept.iter().map(|&id| counts[id]).sum();
        let share = |id: usize| counts[id] as f64 / corpus as f64;
        let weights: Vec<f64> = kept.iter().map(|&id| (counts[id] as f64).powf(NOISE_POWER)).collect();
        let subwords = Subwords::new(kept.iter().map(|&id| surfaces[id].as_str()), settings.ngrams);
        let width = padded(settings.dim);
        let mut input = SharedRows::zeros(subwords.n_rows(), width);
        let mut random = Random::new(settings.seed, u64::MAX);
        for row in 0..subwords.n_rows() {
            for _ in 0..subwords.members(row as u32) as usize {
                for value in &mut input.row_mut(row)[..settings.dim] {
                    *value += (2.0 * random.unit() - 1.0) / settings.dim as f32;
                }
            }
        }
        Ok(Self {
            keep: kept.iter().map(|&id| keep_probability(share(id), settings.subsample)).collect(),
            noise: Alias::new(&weights),
            output: SharedRows::zeros(kept.len(), width),
            settings,
            numbers,
            subwords,
            input,
            width,
            corpus,
        })
    }

    fn fit<T: Copy + Into<u32> + Sync>(&self, tokens: &[T], offsets: &[u64], monitor: &Monitor) -> Result<()> {
        let total = self.corpus * u64::from(self.settings.epochs);
        monitor.begin("train vectors", "tokens", Some(total));
        let done = AtomicU64::new(0);
        let threads = self.settings.threads;
        let border = |i: usize| (tokens.len() as u128 * i as u128 / threads as u128) as usize;
        in_threads(0..threads, |thread| {
            let mut worker = Worker::new(self, thread as u64);
            for _ in 0..self.settings.epochs {
                for_each_line(offsets, border(thread), border(thread + 1), |from, to| {
                    let progress = done.load(Ordering::Relaxed) as f32 / total as f32;
                    let seen = worker.take_line(&tokens[from..to]);
                    worker.fit_line(self.settings.learning_rate * (1.0 - progress).max(0.0));
                    done.fetch_add(seen, Ordering::Relaxed);
                    monitor.advance(seen)
                })?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Means of rows, by id in the store.
    fn vectors(mut self) -> Vec<f32> {
        let dim = self.settings.dim;
        let mut data = vec![0.0; self.numbers.len() * dim];
        let mut sum = vec![0.0; self.width];
        for (out, &number) in data.chunks_exact_mut(dim).zip(&self.numbers) {
            if number == RARE {
                continue;
            }
            let rows = self.subwords.of(number);
            sum.fill(0.0);
            rows.iter().for_each(|&row| self.input.add_to(row, &mut sum));
            scale(&mut sum, 1.0 / self.subwords.total(number));
            out.copy_from_slice(&sum[..dim]);
        }
        // Freed first: the caller may hold the result long.
        self.input = SharedRows::zeros(0, self.width);
        data
    }
}

/// Calls `visit(from, to)` for the stretches of at most [`LINE`] tokens of `from..to` that no document's end divides.
fn for_each_line(
    offsets: &[u64],
    from: usize,
    to: usize,
    mut visit: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let mut document = offsets.partition_point(|&offset| offset <= from as u64);
    let mut at = from;
    while at < to {
        let end = (offsets.get(document).map_or(to, |&end| end as usize)).min(to).min(at + LINE);
        if end > at {
            visit(at, end)?;
        }
        at = end;
        while offsets.get(document).is_some_and(|&end| end as usize <= at) {
            document += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
