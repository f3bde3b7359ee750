//! Moments of a byte each: companded codes, and a float32 scale for each group of neighbours.
//!
//! First moment `m` of a group whose largest magnitude is `s`: `code = round(254 m / (s + |m|))`, back
//! `m = s code / (254 - |code|)`. Second moment `v` of a group with `s = max v^(1/4)`: `code = round(255 v^(1/4) / s)`,
//! back `v = (code s / 255)^4`; above zero it is never 0, lest its first moment be divided by `eps` alone. Source:
//! FlashOptim (arXiv 2602.23349), but for the fourth root, the random bits and the scales of 32 bits; see
//! `langadapt_kernels.adamw.codes`, whose bits these are.

use super::narrow::{INFINITY, MAGNITUDE};
use super::steps::BLOCK;
use super::tensor::GROUP;

/// Groups of a block.
pub(super) const GROUPS: usize = BLOCK / GROUP;

/// Added to a number below 2^22, leaves the nearest integer, ties to even, in the low bits of the pattern.
const TO_INTEGER: f32 = 12_582_912.0;

/// Elements of a block.
pub(super) type Block<T> = [T; BLOCK];

/// First moments of codes.
#[inline(always)]
pub(super) fn averages(codes: &Block<u8>, scales: &[f32; GROUPS]) -> Block<f32> {
    let mut values = [0.0; BLOCK];
    for (group, scale) in scales.iter().enumerate() {
        for i in group * GROUP..(group + 1) * GROUP {
            let code = f32::from(codes[i] as i8);
            values[i] = code / (254.0 - code.abs()) * scale;
        }
    }
    values
}

/// Second moments of codes.
#[inline(always)]
pub(super) fn variances(codes: &Block<u8>, scales: &[f32; GROUPS]) -> Block<f32> {
    let units = scales.map(|scale| scale / 255.0);
    let mut values = [0.0; BLOCK];
    for (group, unit) in units.iter().enumerate() {
        for i in group * GROUP..(group + 1) * GROUP {
            let root = f32::from(codes[i]) * unit;
            let square = root * root;
            values[i] = square * square;
        }
    }
    values
}

/// Codes of first moments; those that are `still` keep theirs and have no say in the scale.
#[inline(always)]
pub(super) fn encode_averages(
    values: &Block<f32>,
    still: &Block<bool>,
    codes: &mut Block<u8>,
    scales: &mut [f32; GROUPS],
) {
    *scales = largest(values, still);
    for (group, &scale) in scales.iter().enumerate() {
        for i in group * GROUP..(group + 1) * GROUP {
            let value = values[i];
            let code = (value / (scale + value.abs()) * 254.0 + TO_INTEGER).to_bits() as u8;
            let code = if scale > 0.0 { code } else { 0 };
            codes[i] = if still[i] { codes[i] } else { code };
        }
    }
}

/// Codes of second moments. `V`: rounded up with the probability of what is cut off, by 16 random bits.
#[inline(always)]
pub(super) fn encode_variances<const V: bool>(
    values: &Block<f32>,
    bits: &Block<u16>,
    still: &Block<bool>,
    codes: &mut Block<u8>,
    scales: &mut [f32; GROUPS],
) {
    let mut roots = [0.0f32; BLOCK];
    for (root, value) in roots.iter_mut().zip(values) {
        *root = value.sqrt().sqrt();
    }
    *scales = largest(&roots, still);
    for (group, &scale) in scales.iter().enumerate() {
        for i in group * GROUP..(group + 1) * GROUP {
            let root = roots[i];
            let up = if V { f32::from(bits[i]) / 65536.0 } else { 0.5 };
            let code = (root / scale * 255.0 + up) as i32;
            let code = if root > 0.0 { code.max(1) } else { code };
            let code = if scale > 0.0 { code } else { 0 };
            codes[i] = if still[i] { codes[i] } else { code as u8 };
        }
    }
}

/// The largest magnitude of each group; NaN where one is not finite. As patterns, among which NaN is the largest.
#[inline(always)]
fn largest(values: &Block<f32>, still: &Block<bool>) -> [f32; GROUPS] {
    let mut scales = [0.0; GROUPS];
    for (group, scale) in scales.iter_mut().enumerate() {
        let mut most = 0;
        for i in group * GROUP..(group + 1) * GROUP {
            let pattern = values[i].to_bits() & MAGNITUDE;
            most = most.max(if still[i] { 0 } else { pattern });
        }
        *scale = if most >= INFINITY { f32::NAN } else { f32::from_bits(most) };
    }
    scales
}
