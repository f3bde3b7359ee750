//! Random bits by the place of an element: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2,
//! 3", 2011), in Triton's order of operations. One call serves the eight elements of a group, 16 bits each.

use super::tensor::Place;

const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// What is the same for all elements of a tensor.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) seed: u64,
    pub(super) step: u32,
    /// 0 for weights, 1 for second moments.
    pub(super) stream: u32,
}

/// 16 random bits for each of `8 * G` elements, the length of `out`, from the `at`th on (a multiple of 8).
#[inline(always)]
pub(super) fn fill<const G: usize>(key: Key, place: Place, at: u64, out: &mut [u16]) {
    let local = place.first + at;
    let (row, column) = (local / place.run, local % place.run);
    let first = place.base + row * place.stride + column;
    let (low, high) = halves(first / 8);
    let whole = first.is_multiple_of(8) && column + 8 * G as u64 <= place.run;
    if whole && low <= u32::MAX - G as u32 {
        consecutive::<G>(key, low, high, out)
    } else {
        scattered(key, place, local, out)
    }
}

/// The bits of the groups from `(low, high)` on, whose upper half is the same for all.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "only so is the loop taken as vectors")]
fn consecutive<const G: usize>(key: Key, low: u32, high: u32, out: &mut [u16]) {
    // Lists of their own, indices and numbers of 32 bits: so, and hardly otherwise, the compiler takes the same words
    // of several groups as a vector (three times the speed).
    let mut words = [[0; G]; 4];
    for i in 0..G {
        [words[0][i], words[1][i], words[2][i], words[3][i]] = philox(key, low + i as u32, high);
    }
    for (i, eight) in out.as_chunks_mut().0.iter_mut().enumerate().take(G) {
        *eight = spread([words[0][i], words[1][i], words[2][i], words[3][i]]);
    }
}

/// For shards whose elements do not follow each other, or start within a group.
#[inline(never)]
fn scattered(key: Key, place: Place, local: u64, out: &mut [u16]) {
    let mut known = (u64::MAX, [0u16; 8]);
    for (local, bits) in (local..).zip(out) {
        let element = place.base + local / place.run * place.stride + local % place.run;
        if known.0 != element / 8 {
            let (low, high) = halves(element / 8);
            known = (element / 8, spread(philox(key, low, high)));
        }
        *bits = known.1[(element % 8) as usize];
    }
}

#[inline(always)]
fn philox(key: Key, low: u32, high: u32) -> [u32; 4] {
    let mut c = [low, high, key.step, key.stream];
    let mut keys = [key.seed as u32, (key.seed >> 32) as u32];
    for _ in 0..10 {
        let products = [halves(MULTIPLIERS[0] * u64::from(c[0])), halves(MULTIPLIERS[1] * u64::from(c[2]))];
        c = [products[1].1 ^ c[1] ^ keys[0], products[1].0, products[0].1 ^ c[3] ^ keys[1], products[0].0];
        keys = [keys[0].wrapping_add(WEYL[0]), keys[1].wrapping_add(WEYL[1])];
    }
    c
}

/// Lower and upper half.
#[inline(always)]
fn halves(x: u64) -> (u32, u32) {
    (x as u32, (x >> 32) as u32)
}

/// Words in their order, lower halves first.
#[inline(always)]
fn spread([a, b, c, d]: [u32; 4]) -> [u16; 8] {
    [a as u16, (a >> 16) as u16, b as u16, (b >> 16) as u16, c as u16, (c >> 16) as u16, d as u16, (d >> 16) as u16]
}
