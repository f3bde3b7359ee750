//! How long work tells its caller where it stands, and how the caller stops it.
//!
//! Workers hold a shared [`Monitor`]: they add what they have done and learn whether to go on. The thread that called
//! [`watched`] does no work itself; it wakes at an interval, hands a [`Progress`] to the caller's closure and passes a
//! "stop" on to the workers. A worker therefore never runs foreign code, and a stop is seen as soon as the worker next
//! calls [`Monitor::advance`]; keep the work between two calls under about 50 ms.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{Error, Result};

/// A reading of a [`Monitor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, e.g. `"count words"`.
    pub phase: &'static str,
    /// Unit of `done` and `total`, e.g. `"bytes"`.
    pub unit: &'static str,
    /// Units finished in this phase.
    pub done: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
}

/// Whether a call was asked to stop. For inner loops that return early, with a result that nobody may use, and leave it
/// to the next [`Monitor::check`] to say so.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether to return.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shared by the workers of one long call.
#[derive(Debug)]
pub struct Monitor {
    stop: Stop,
    done: AtomicU64,
    phase: Mutex<(&'static str, &'static str, Option<u64>)>,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { stop: Stop::default(), done: AtomicU64::new(0), phase: Mutex::new(("", "", None)) }
    }
}

impl Monitor {
    /// Opens a new phase and sets the count of finished units to zero.
    pub fn begin(&self, phase: &'static str, unit: &'static str, total: Option<u64>) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = (phase, unit, total);
        self.done.store(0, Ordering::Relaxed);
    }

    /// Adds `units` to what is done.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`Monitor::stop`] was called.
    pub fn advance(&self, units: u64) -> Result<()> {
        self.done.fetch_add(units, Ordering::Relaxed);
        self.check()
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`Monitor::stop`] was called.
    pub fn check(&self) -> Result<()> {
        if self.stop.is_asked() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Asks all workers to stop.
    pub fn stop(&self) {
        self.stop.0.store(true, Ordering::Relaxed);
    }

    /// Tells of a stop what has no monitor at hand.
    pub fn stop_sign(&self) -> Stop {
        self.stop.clone()
    }

    /// Where the work stands.
    pub fn progress(&self) -> Progress {
        let (phase, unit, total) = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        Progress { phase, unit, done: self.done.load(Ordering::Relaxed), total }
    }
}

/// Runs `work` on a thread of its own while this thread calls `watch` every `interval`.
///
/// `watch` answers [`ControlFlow::Continue`] to go on and [`ControlFlow::Break`] to stop; after a stop it is not called
/// again and `work` is expected to return [`Error::Interrupted`] soon. Before all else this thread calls `feed`, which
/// brings what `work` may wait for and answers as `watch` does.
///
/// # Errors
/// What `work` returns.
///
/// # Panics
/// Passes on a panic of `work`.
pub fn watched<T: Send>(
    interval: Duration,
    feed: impl FnOnce(&Beside<'_>) -> ControlFlow<()>,
    mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    work: impl FnOnce(&Monitor) -> Result<T> + Send,
) -> Result<T> {
    let monitor = Monitor::default();
    let finished = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().spawn_scoped(scope, || {
            // The guard also tells of a panic; without it this thread would wait for ever.
            let _guard = Finish(&finished);
            work(&monitor)
        });
        let worker = spawned.map_err(|error| Error::io("a thread of this process", error))?;
        if feed(&Beside { monitor: &monitor, finished: &finished.0 }).is_break() {
            monitor.stop();
        }
        let mut done = finished.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*done {
            done = finished.1.wait_timeout(done, interval).unwrap_or_else(PoisonError::into_inner).0;
            if !*done && monitor.check().is_ok() && watch(monitor.progress()).is_break() {
                monitor.stop();
            }
        }
        drop(done);
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The work beside which a feed runs.
#[derive(Debug)]
pub struct Beside<'a> {
    monitor: &'a Monitor,
    finished: &'a Mutex<bool>,
}

impl Beside<'_> {
    /// Where it stands.
    pub fn progress(&self) -> Progress {
        self.monitor.progress()
    }

    /// Whether it has ended, so that nothing more need be fed.
    pub fn is_over(&self) -> bool {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Finish<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_feed(_: &Beside<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_stop_reaches_the_worker() {
        let result: Result<()> = watched(
            Duration::from_millis(1),
            no_feed,
            |_| ControlFlow::Break(()),
            |monitor| {
                loop {
                    std::thread::sleep(Duration::from_millis(1));
                    monitor.advance(1)?;
                }
            },
        );
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn work_may_wait_for_what_is_fed() {
        let fed_number = std::sync::OnceLock::new();
        let feed = |_: &Beside<'_>| {
            fed_number.set(7).unwrap();
            ControlFlow::Break(())
        };
        let result = watched(
            Duration::from_millis(1),
            feed,
            |_| ControlFlow::Continue(()),
            |monitor| {
                let number = *fed_number.wait();
                while monitor.check().is_ok() {
                    std::thread::yield_now();
                }
                Ok(number)
            },
        );
        assert_eq!(result.unwrap(), 7);
    }

    #[test]
    fn the_watch_sees_phase_and_count() {
        let mut seen = None;
        let result = watched(
            Duration::from_millis(1),
            no_feed,
            |progress| {
                seen = Some(progress);
                ControlFlow::Continue(())
            },
            |monitor| {
                monitor.begin("count words", "bytes", Some(7));
                monitor.advance(3)?;
                std::thread::sleep(Duration::from_millis(50));
                Ok(5)
            },
        );
        assert_eq!(result.unwrap(), 5);
        assert_eq!(seen, Some(Progress { phase: "count words", unit: "bytes", done: 3, total: Some(7) }));
    }

    #[test]
    #[should_panic(expected = "worker fell over")]
    fn a_panic_is_passed_on() {
        let _: Result<()> =
            watched(Duration::from_secs(60), no_feed, |_| ControlFlow::Continue(()), |_| panic!("worker fell over"));
    }
}
