//! Documents that come from the caller instead of a file.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Monitor, Result};

/// Bytes of text that may wait.
const WAITING_BYTES: usize = 8 << 20;
const NAP: Duration = Duration::from_millis(20);

/// A bounded queue of documents between a caller that pushes and the threads that read.
///
/// The caller pushes [`Texts`] and calls [`Feed::close`] after the last; [`super::Inputs::from_feed`] makes it an
/// input. It can be read once.
#[derive(Debug, Default)]
pub struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Texts>,
    bytes: usize,
    closed: bool,
}

/// Documents end to end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Texts {
    /// All texts, one behind the other.
    pub text: String,
    /// Where each ends in `text`.
    pub ends: Vec<usize>,
}

impl Texts {
    /// Appends a document.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl Feed {
    /// Queues documents; gives them back if there is still no room after `patience`.
    ///
    /// # Errors
    /// The documents, to be pushed again.
    pub fn push(&self, texts: Texts, patience: Duration) -> std::result::Result<(), Texts> {
        let mut state = self.lock();
        if state.bytes >= WAITING_BYTES {
            state = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.bytes >= WAITING_BYTES {
            return Err(texts);
        }
        state.bytes += texts.text.len();
        state.queue.push_back(texts);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Says that no more documents come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for documents; `None` after the last.
    pub(super) fn pop(&self, monitor: &Monitor) -> Result<Option<Texts>> {
        let mut state = self.lock();
        loop {
            monitor.check()?;
            if let Some(texts) = state.queue.pop_front() {
                state.bytes -= texts.text.len();
                drop(state);
                self.changed.notify_all();
                return Ok(Some(texts));
            }
            if state.closed {
                return Ok(None);
            }
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
