//! One thread's work: the ring of tokens in reach, and what a target and its noise teach their rows.

use super::{LINE, Model, RARE};
use crate::vectors::rows::{add, add_scaled, scale};
use crate::vectors::sampling::Random;

/// A token within reach of the window: the sum of its rows as they were when it came into reach, and what they are
/// to gain when it leaves.
struct Slot {
    token: u32,
    n_rows: f32,
    sum: Vec<f32>,
    delta: Vec<f32>,
}

pub(super) struct Worker<'a> {
    model: &'a Model<'a>,
    random: Random,
    line: Vec<u32>,
    ring: Vec<Slot>,
    hidden: Vec<f32>,
    gradient: Vec<f32>,
    /// Noise tokens of the target at hand, drawn early so that their rows are on the way while the window is summed.
    noise: Vec<u32>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(model: &'a Model<'a>, stream: u64) -> Self {
        let row = || vec![0.0; model.width];
        let slot = || Slot { token: 0, n_rows: 0.0, sum: row(), delta: row() };
        Self {
            model,
            random: Random::new(model.settings.seed, stream),
            line: Vec::with_capacity(LINE),
            ring: (0..2 * model.settings.window + 1).map(|_| slot()).collect(),
            hidden: row(),
            gradient: row(),
            noise: Vec::with_capacity(model.settings.negatives),
        }
    }

    /// Takes the tokens of a line that are in the vocabulary and survive subsampling; answers how many are in it.
    pub(super) fn take_line<T: Copy + Into<u32>>(&mut self, tokens: &[T]) -> u64 {
        let mut seen = 0;
        self.line.clear();
        for &token in tokens {
            let number = self.model.numbers[token.into() as usize];
            if number == RARE {
                continue;
            }
            seen += 1;
            let keep = self.model.keep[number as usize];
            if keep >= 1.0 || self.random.unit() < keep {
                self.line.push(number);
            }
        }
        seen
    }

    pub(super) fn fit_line(&mut self, rate: f32) {
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has the feature.
            return unsafe { self.fit_line_avx512(rate) };
        } else if std::is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has the feature.
            return unsafe { self.fit_line_avx2(rate) };
        }
        self.fit_line_on_any(rate);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn fit_line_avx512(&mut self, rate: f32) {
        self.fit_line_on_any(rate);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn fit_line_avx2(&mut self, rate: f32) {
        self.fit_line_on_any(rate);
    }

    #[inline(always)]
    pub(super) fn fit_line_on_any(&mut self, rate: f32) {
        let window = self.model.settings.window;
        let length = self.line.len();
        if length < 2 {
            return;
        }
        for position in 0..window.min(length) {
            self.enter(position);
        }
        for target in 0..length {
            if target + window < length {
                self.enter(target + window);
            }
            self.fit_target(target, rate);
            if target >= window {
                self.leave(target - window);
            }
        }
        for position in length.saturating_sub(window)..length {
            self.leave(position);
        }
    }

    #[inline(always)]
    fn enter(&mut self, position: usize) {
        let model = self.model;
        let n_slots = self.ring.len();
        let slot = &mut self.ring[position % n_slots];
        slot.token = self.line[position];
        let rows = model.subwords.of(slot.token);
        slot.n_rows = model.subwords.total(slot.token);
        slot.sum.fill(0.0);
        slot.delta.fill(0.0);
        for &row in rows {
            model.input.add_to(row, &mut slot.sum);
        }
    }

    #[inline(always)]
    fn leave(&mut self, position: usize) {
        let slot = &self.ring[position % self.ring.len()];
        for &row in self.model.subwords.of(slot.token) {
            self.model.input.add_from(row, self.model.subwords.members(row), &slot.delta);
        }
    }

    #[inline(always)]
    fn fit_target(&mut self, target: usize, rate: f32) {
        let model = self.model;
        let n_slots = self.ring.len();
        let reach = 1 + self.random.below(model.settings.window as u32) as usize;
        let context = target.saturating_sub(reach)..(target + reach + 1).min(self.line.len());
        let wanted = self.line[target];
        self.draw_noise(wanted);
        let mut n_rows = 0.0;
        self.hidden.fill(0.0);
        for position in context.clone().filter(|&position| position != target) {
            let slot = &self.ring[position % n_slots];
            add_scaled(&mut self.hidden, &slot.sum, slot.n_rows, &slot.delta);
            n_rows += slot.n_rows;
        }
        scale(&mut self.hidden, 1.0 / n_rows);
        self.gradient.fill(0.0);
        self.predict(wanted, 1.0, rate);
        for i in 0..self.noise.len() {
            self.predict(self.noise[i], 0.0, rate);
        }
        for position in context.filter(|&position| position != target) {
            add(&mut self.ring[position % n_slots].delta, &self.gradient);
        }
    }

    #[inline(always)]
    fn draw_noise(&mut self, wanted: u32) {
        let model = self.model;
        self.noise.clear();
        for _ in 0..model.settings.negatives {
            let noise = model.noise.draw(&mut self.random);
            if noise != wanted {
                self.noise.push(noise);
                model.output.prefetch(noise);
            }
        }
        model.output.prefetch(wanted);
    }

    #[inline(always)]
    fn predict(&mut self, token: u32, label: f32, rate: f32) {
        let score = self.model.output.dot(token, &self.hidden);
        let probability = 1.0 / (1.0 + (-score).exp());
        self.model.output.exchange(token, rate * (label - probability), &self.hidden, &mut self.gradient);
    }
}
