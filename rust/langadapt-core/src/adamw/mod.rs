//! The AdamW step on a CPU: one pass over memory, the bits of the torch reference of `langadapt-kernels`.
//!
//! Every element is computed in float32, in the reference's order of operations, and narrowed once. Random bits are
//! keyed by an element's place in the whole model and the step alone, so that results depend neither on threads nor on
//! how tensors are cut or sharded. Sums of squares are taken by pieces of fixed size, in order.
//!
//! Moments that are codes of a byte (`codes`) share a scale with their neighbours in groups of [`GROUP`].
//!
//! Cost: memory. A bfloat16 weight with its gradient and two bfloat16 moments is 14 bytes read and written; two cores
//! compute faster than memory brings them.

mod block;
mod coded;
mod codes;
pub(crate) mod narrow;
mod philox;
mod squares;
mod steps;
mod tensor;
mod widest;

use std::sync::{Mutex, PoisonError};

use crate::{Result, threads};

pub use squares::square_sums;
pub use tensor::{Codes, Frozen, GROUP, Moments, Numbers, Place, Rounding, Scalars, Tensor, Values};

/// Elements that a thread takes at a time; also those that are summed before sums are added up.
const PIECE: usize = 1 << 16;

/// Elements for which starting another thread pays.
const PER_THREAD: usize = 1 << 17;

/// Updates all tensors in place.
///
/// Answers how many stored weights of each, low bits included, the step left as they were.
///
/// # Errors
/// [`crate::Error::Argument`] where the lists of a tensor differ in length or its codes lack scales; then nothing has
/// changed.
pub fn step(tensors: Vec<Tensor<'_>>, threads: usize) -> Result<Vec<u64>> {
    for tensor in &tensors {
        tensor.check()?;
    }
    let count = tensors.len();
    const { assert!(PIECE.is_multiple_of(GROUP)) };
    let mut pieces = Vec::new();
    for (index, mut tensor) in tensors.into_iter().enumerate() {
        while tensor.len() > PIECE {
            let (piece, rest) = tensor.split_at(PIECE);
            pieces.push((index, piece));
            tensor = rest;
        }
        pieces.push((index, tensor));
    }
    let elements = pieces.iter().map(|(_, piece)| piece.len()).sum();
    let mut unmoved = vec![0; count];
    for (index, still) in shared(pieces, elements, threads, |(index, piece)| (index, block::step(piece))) {
        unmoved[index] += still;
    }
    Ok(unmoved)
}

/// What `work` makes of every item, in their order, by up to `threads` threads that take one after the other.
fn shared<I: Send, T: Send>(
    items: Vec<I>,
    elements: usize,
    threads: usize,
    work: impl Fn(I) -> T + Sync,
) -> impl Iterator<Item = T> {
    let threads = threads.min(1 + elements / PER_THREAD).min(items.len()).max(1);
    let queue = Mutex::new(items.into_iter().enumerate());
    let take = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let done = threads::each(0..threads, |_| {
        let mut mine = Vec::new();
        while let Some((number, item)) = take() {
            mine.push((number, work(item)));
        }
        mine
    });
    let mut done: Vec<(usize, T)> = done.into_iter().flatten().collect();
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result)
}

#[cfg(test)]
mod tests;
