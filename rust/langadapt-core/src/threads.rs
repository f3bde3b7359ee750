//! Work on several threads, on as many as the system gives.
//!
//! A system may refuse a thread: a limit of processes, no memory for a stack. The calling thread then does that work
//! too, after its own.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// What `work` makes of every item, in order: of the first on this thread, of each other on a thread of its own. A
/// panic is passed on once all have ended.
pub(crate) fn each<I: Send, T: Send>(items: impl IntoIterator<Item = I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    // In slots, as what is moved to a thread that is refused would be lost with it.
    let slots: Vec<Mutex<Option<I>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let run = |slot: &Mutex<Option<I>>| {
        let item = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        item.map(&work)
    };
    let run = &run;
    scope(|scope| {
        let helpers: Vec<_> = slots
            .iter()
            .skip(1)
            .map(|slot| (slot, Builder::new().spawn_scoped(scope, move || run(slot)).ok()))
            .collect();
        let first = slots.first().and_then(run);
        let rest = helpers.into_iter().filter_map(|(slot, helper)| match helper {
            Some(helper) => helper.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => run(slot),
        });
        first.into_iter().chain(rest).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_in_order() {
        let texts: Vec<String> = each((0..20).map(|n| n.to_string()), |text| text + "!");
        assert_eq!(texts, (0..20).map(|n| format!("{n}!")).collect::<Vec<_>>());
        assert_eq!(each([0; 0], |n| n), [0; 0]);
    }

    #[test]
    #[should_panic(expected = "third")]
    fn a_panic_is_passed_on() {
        each(0..5, |n| assert_ne!(n, 2, "third"));
    }
}
