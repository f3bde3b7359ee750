//! Memory that the system may refuse.
//!
//! A collection that grows cannot report that it was refused; a program ends there. Buffers whose size an input decides
//! are reserved by [`try_reserve`], which can.

use std::cell::Cell;
use std::collections::TryReserveError;

thread_local! {
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's caller knows what to do with a refusal; for allocators that end the program otherwise.
#[must_use]
pub fn may_fail() -> bool {
    MAY_FAIL.with(Cell::get)
}

/// Makes room for `more` items behind those of `buffer`.
///
/// # Errors
///
/// The system refuses it; `buffer` is as it was.
pub fn try_reserve<T>(buffer: &mut Vec<T>, more: usize) -> Result<(), TryReserveError> {
    MAY_FAIL.with(|flag| flag.set(true));
    let reserved = buffer.try_reserve(more);
    MAY_FAIL.with(|flag| flag.set(false));
    reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_errors_and_nothing_else_may_fail() {
        let mut buffer = vec![1_u8];
        assert!(try_reserve(&mut buffer, usize::MAX / 4).is_err());
        assert_eq!(buffer, [1]);
        assert!(try_reserve(&mut buffer, 10).is_ok() && buffer.capacity() >= 11);
        assert!(!may_fail());
    }
}
