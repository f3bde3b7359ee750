//! Widening and narrowing: the rules of `langadapt_kernels.rounding`, for numbers, moments and weights.

/// float32 patterns without sign: infinity, and the least that a carry of the dropped half may make infinite.
pub(super) const INFINITY: u32 = 0x7F80_0000;
const LAST: u32 = 0x7F7F_0000;
pub(super) const MAGNITUDE: u32 = 0x7FFF_FFFF;

/// What a NaN becomes where it is rounded to nearest.
const NAN: u16 = 0x7FC0;

/// A number as it is stored.
pub(crate) trait Stored: Copy + Default + PartialEq + Send + Sync {
    /// As float32.
    fn widen(self) -> f32;
    /// The nearest, ties to even.
    fn nearest(x: f32) -> Self;
    /// One of the two neighbours, by 16 random bits.
    fn random(x: f32, bits: u16) -> Self;
    /// As an integer: NaN equals itself, 0.0 and -0.0 differ.
    fn pattern(self) -> u32;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn random(x: f32, _: u16) -> Self {
        x
    }

    #[inline(always)]
    fn pattern(self) -> u32 {
        self.to_bits()
    }
}

/// The bits of a bfloat16.
impl Stored for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }

    #[inline(always)]
    fn nearest(x: f32) -> Self {
        let pattern = x.to_bits();
        let rounded = upper_half(pattern.wrapping_add(0x7FFF + ((pattern >> 16) & 1)));
        if pattern & MAGNITUDE > INFINITY { NAN } else { rounded }
    }

    #[inline(always)]
    fn random(x: f32, bits: u16) -> Self {
        let pattern = x.to_bits();
        // In the last binade a carry would reach infinity: such a value is cut instead, as are infinity and NaN.
        upper_half(pattern.wrapping_add(if pattern & MAGNITUDE >= LAST { 0 } else { u32::from(bits) }))
    }

    #[inline(always)]
    fn pattern(self) -> u32 {
        u32::from(self)
    }
}

#[inline(always)]
fn upper_half(pattern: u32) -> u16 {
    (pattern >> 16) as u16
}

/// How a weight is stored, and what is kept beside it.
pub(super) trait Storage {
    /// The weight.
    type Weight: Stored;
    /// What is kept.
    type Low: Copy + Default + PartialEq + Send;
    /// Whether `narrow` looks at random bits.
    const RANDOM: bool = false;
    /// The weight and what is kept as one float32.
    fn widen(weight: Self::Weight, low: Self::Low) -> f32;
    /// The reverse, with 16 random bits.
    fn narrow(x: f32, bits: u16) -> (Self::Weight, Self::Low);
    /// Whether a weight and what is kept are, to the last bit, what they were.
    #[inline(always)]
    fn same(now: (Self::Weight, Self::Low), before: (Self::Weight, Self::Low)) -> bool {
        (now.0.pattern() == before.0.pattern()) & (now.1 == before.1)
    }
}

/// float32 as it is.
pub(super) struct Full;

impl Storage for Full {
    type Weight = f32;
    type Low = ();

    #[inline(always)]
    fn widen(weight: f32, (): ()) -> f32 {
        weight
    }

    #[inline(always)]
    fn narrow(x: f32, _: u16) -> (f32, ()) {
        (x, ())
    }
}

/// bfloat16 with nothing beside it.
pub(super) struct Alone<const STOCHASTIC: bool>;

impl<const STOCHASTIC: bool> Storage for Alone<STOCHASTIC> {
    type Weight = u16;
    type Low = ();
    const RANDOM: bool = STOCHASTIC;

    #[inline(always)]
    fn widen(weight: u16, (): ()) -> f32 {
        weight.widen()
    }

    #[inline(always)]
    fn narrow(x: f32, bits: u16) -> (u16, ()) {
        (if STOCHASTIC { Stored::random(x, bits) } else { Stored::nearest(x) }, ())
    }
}

/// bfloat16 and a bfloat16 compensation.
pub(super) struct Compensated;

impl Storage for Compensated {
    type Weight = u16;
    type Low = u16;

    #[inline(always)]
    fn widen(weight: u16, low: u16) -> f32 {
        weight.widen() + low.widen()
    }

    #[inline(always)]
    fn narrow(x: f32, _: u16) -> (u16, u16) {
        let weight = u16::nearest(x);
        // The subtraction is exact. Beside an infinite weight the difference has no meaning.
        let missing = x - weight.widen();
        (weight, if missing.to_bits() & MAGNITUDE >= INFINITY { 0 } else { u16::nearest(missing) })
    }
}

/// The two halves of a float32.
pub(super) struct Halves;

impl Storage for Halves {
    type Weight = u16;
    type Low = u16;

    #[inline(always)]
    fn widen(weight: u16, low: u16) -> f32 {
        unsplit(weight, u32::from(low))
    }

    #[inline(always)]
    fn narrow(x: f32, _: u16) -> (u16, u16) {
        let pattern = x.to_bits();
        let special = pattern & MAGNITUDE >= INFINITY;
        let weight = upper_half(pattern.wrapping_add(if special { 0 } else { 0x8000 }));
        (weight, if special { 0 } else { pattern as u16 })
    }
}

/// The upper 24 bits of a float32.
pub(super) struct ThreeQuarters;

impl Storage for ThreeQuarters {
    type Weight = u16;
    type Low = u8;

    #[inline(always)]
    fn widen(weight: u16, low: u8) -> f32 {
        unsplit(weight, u32::from(low) << 8)
    }

    #[inline(always)]
    fn narrow(x: f32, _: u16) -> (u16, u8) {
        let pattern = x.to_bits();
        let special = pattern & MAGNITUDE >= INFINITY;
        let rounded = pattern.wrapping_add(if special { 0 } else { 0x7F + ((pattern >> 8) & 1) });
        let weight = upper_half(rounded.wrapping_add(if special { 0 } else { 0x8000 }));
        (weight, if special { 0 } else { (rounded >> 8) as u8 })
    }
}

/// The weight was rounded up where the part below it is half a unit or more.
#[inline(always)]
fn unsplit(weight: u16, below: u32) -> f32 {
    f32::from_bits((u32::from(weight) << 16).wrapping_sub((below & 0x8000) << 1) | below)
}
