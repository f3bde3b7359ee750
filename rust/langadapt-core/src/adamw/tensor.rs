//! What a step takes: tensors as slices, and the numbers that are the same for all elements of one.

use crate::{Error, Result};

/// bfloat16, as bits, or float32 numbers that are written.
#[derive(Debug)]
pub enum Numbers<'a> {
    /// bfloat16.
    Narrow(&'a mut [u16]),
    /// float32.
    Wide(&'a mut [f32]),
}

impl<'a> Numbers<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Narrow(numbers) => numbers.len(),
            Self::Wide(numbers) => numbers.len(),
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Narrow(numbers) => both(numbers.split_at_mut(at), Self::Narrow),
            Self::Wide(numbers) => both(numbers.split_at_mut(at), Self::Wide),
        }
    }
}

/// bfloat16, as bits, or float32 numbers that are read.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// bfloat16.
    Narrow(&'a [u16]),
    /// float32.
    Wide(&'a [f32]),
}

impl<'a> Values<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(values) => values.len(),
            Self::Wide(values) => values.len(),
        }
    }

    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Narrow(values) => both(values.split_at(at), Self::Narrow),
            Self::Wide(values) => both(values.split_at(at), Self::Wide),
        }
    }
}

/// Neighbouring elements whose coded moments share a scale.
pub const GROUP: usize = 64;

/// Moments of a byte each, with a scale for every [`GROUP`] of them.
#[derive(Debug)]
pub struct Codes<'a> {
    /// Of the first moment: a signed byte as its bits.
    pub exp_avg: &'a mut [u8],
    /// The group's largest magnitude.
    pub exp_avg_scale: &'a mut [f32],
    /// Of the second moment.
    pub exp_avg_sq: &'a mut [u8],
    /// The fourth root of the group's largest.
    pub exp_avg_sq_scale: &'a mut [f32],
}

/// First and second moment, of one kind.
#[derive(Debug)]
pub enum Moments<'a> {
    /// bfloat16.
    Narrow(&'a mut [u16], &'a mut [u16]),
    /// float32.
    Wide(&'a mut [f32], &'a mut [f32]),
    /// Companded codes.
    Coded(Codes<'a>),
}

impl<'a> Moments<'a> {
    fn lengths(&self) -> [usize; 2] {
        match self {
            Self::Narrow(average, variance) => [average.len(), variance.len()],
            Self::Wide(average, variance) => [average.len(), variance.len()],
            Self::Coded(codes) => [codes.exp_avg.len(), codes.exp_avg_sq.len()],
        }
    }

    /// Whether there is a scale for each group, and nothing beside whole groups.
    fn has_scales(&self) -> bool {
        match self {
            Self::Narrow(..) | Self::Wide(..) => true,
            Self::Coded(codes) => {
                [codes.exp_avg_scale.len(), codes.exp_avg_sq_scale.len()].map(|count| count * GROUP) == self.lengths()
            }
        }
    }

    /// `at`: a multiple of [`GROUP`].
    fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Narrow(average, variance) => {
                let (average, variance) = (average.split_at_mut(at), variance.split_at_mut(at));
                (Self::Narrow(average.0, variance.0), Self::Narrow(average.1, variance.1))
            }
            Self::Wide(average, variance) => {
                let (average, variance) = (average.split_at_mut(at), variance.split_at_mut(at));
                (Self::Wide(average.0, variance.0), Self::Wide(average.1, variance.1))
            }
            Self::Coded(Codes { exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale }) => {
                let (average, variance) = (exp_avg.split_at_mut(at), exp_avg_sq.split_at_mut(at));
                let scales = (exp_avg_scale.split_at_mut(at / GROUP), exp_avg_sq_scale.split_at_mut(at / GROUP));
                let codes = |exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale| {
                    Self::Coded(Codes { exp_avg, exp_avg_scale, exp_avg_sq, exp_avg_sq_scale })
                };
                (
                    codes(average.0, scales.0.0, variance.0, scales.1.0),
                    codes(average.1, scales.0.1, variance.1, scales.1.1),
                )
            }
        }
    }
}

/// How bfloat16 weights are stored, with what is kept beside them; float32 weights are stored as they are.
#[derive(Debug)]
pub enum Rounding<'a> {
    /// To the nearest, ties to even.
    Nearest,
    /// Up with the probability of the part that is dropped.
    Stochastic,
    /// The rest in bfloat16.
    Kahan(&'a mut [u16]),
    /// The low 16 bits of the float32 pattern, of which the weight is the upper half, rounded.
    Split(&'a mut [u16]),
    /// The next 8 bits.
    Split8(&'a mut [u8]),
}

impl<'a> Rounding<'a> {
    /// Elements of what is kept, if any.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Nearest | Self::Stochastic => None,
            Self::Kahan(low) | Self::Split(low) => Some(low.len()),
            Self::Split8(low) => Some(low.len()),
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::Nearest => (Self::Nearest, Self::Nearest),
            Self::Stochastic => (Self::Stochastic, Self::Stochastic),
            Self::Kahan(low) => both(low.split_at_mut(at), Self::Kahan),
            Self::Split(low) => both(low.split_at_mut(at), Self::Split),
            Self::Split8(low) => both(low.split_at_mut(at), Self::Split8),
        }
    }
}

fn both<T, R>((left, right): (T, T), wrap: impl Fn(T) -> R) -> (R, R) {
    (wrap(left), wrap(right))
}

/// Where elements stand in the whole model: element `i` is `base + (i / run) * stride + i % run`, with `i` counted
/// from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Of the first element of the first run.
    pub base: u64,
    /// Elements that follow each other; not 0.
    pub run: u64,
    /// From the start of a run to that of the next.
    pub stride: u64,
    /// What is counted from: 0 for whole tensors.
    pub first: u64,
}

/// Columns of a row-major matrix that a step leaves as they are.
#[derive(Debug, Clone, Copy)]
pub struct Frozen<'a> {
    /// A bit for each column, lowest first: 1 for those that stay.
    pub bits: &'a [u8],
    /// Of the matrix, whose rows follow each other; not 0.
    pub columns: u64,
}

/// The factors of a step, as `langadapt_kernels.adamw.modes.SCALARS` computes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scalars {
    /// `1 - lr * weight_decay`.
    pub decay: f32,
    /// `lr / (1 - beta1 ** step)`.
    pub step_size: f32,
    /// `1 / sqrt(1 - beta2 ** step)`.
    pub variance_scale: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the first moment, and 1 less it.
    pub beta1: (f32, f32),
    /// Decay of the second moment, and 1 less it.
    pub beta2: (f32, f32),
    /// What gradients are multiplied with.
    pub grad_scale: f32,
    /// Number of the step, a part of the random bits' counter.
    pub step: u32,
}

/// One tensor with its states; all lists are of one length.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// The parameter.
    pub weight: Numbers<'a>,
    /// Its gradient.
    pub grad: Values<'a>,
    /// Both moments.
    pub moments: Moments<'a>,
    /// How the weight is stored.
    pub rounding: Rounding<'a>,
    /// Whether second moments of bfloat16, or codes, are rounded stochastically.
    pub stochastic_variance: bool,
    /// Key of the random bits.
    pub seed: u64,
    /// Keys of the elements.
    pub place: Place,
    /// Factors.
    pub scalars: Scalars,
    /// What stays as it is, if anything.
    pub frozen: Option<Frozen<'a>>,
}

impl Tensor<'_> {
    pub(super) fn len(&self) -> usize {
        self.weight.len()
    }

    /// Whether lengths and kinds fit together.
    pub(super) fn check(&self) -> Result<()> {
        let [average, variance] = self.moments.lengths();
        let lengths = [self.grad.len(), average, variance];
        let low = self.rounding.len().unwrap_or(self.len());
        if lengths.iter().any(|&length| length != self.len()) || low != self.len() {
            return Err(Error::argument(format!(
                "lists of a tensor differ in length: {} weights, {lengths:?} gradients and moments, {low} low bits",
                self.len()
            )));
        }
        if !self.moments.has_scales() || self.place.run == 0 {
            return Err(Error::argument(format!(
                "coded moments lack a scale for each {GROUP} of them, or a tensor's runs are empty"
            )));
        }
        if self
            .frozen
            .is_some_and(|frozen| frozen.columns == 0 || frozen.bits.len() as u64 != frozen.columns.div_ceil(8))
        {
            return Err(Error::argument("a mask of frozen columns is not as long as its matrix is wide"));
        }
        Ok(())
    }

    /// The first `at` elements, a multiple of [`GROUP`], and the rest.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        let Self { stochastic_variance, seed, place, scalars, frozen, .. } = self;
        let weight = self.weight.split_at(at);
        let grad = self.grad.split_at(at);
        let moments = self.moments.split_at(at);
        let rounding = self.rounding.split_at(at);
        let piece = |weight, grad, moments, rounding, place| Self {
            weight,
            grad,
            moments,
            rounding,
            stochastic_variance,
            seed,
            place,
            scalars,
            frozen,
        };
        let later = Place { first: place.first + at as u64, ..place };
        (piece(weight.0, grad.0, moments.0, rounding.0, place), piece(weight.1, grad.1, moments.1, rounding.1, later))
    }
}
