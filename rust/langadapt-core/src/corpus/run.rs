//! Several threads over the documents of many files.
//!
//! There are no reader threads: a worker takes an open file, fills its own [`Batch`] from it (which decompresses),
//! puts the file back for the next worker and only then parses the batch and runs the caller's closure. A worker that
//! finds nothing to read decompresses ahead in a zstd file of several frames. So many files or frames are decompressed
//! side by side, and one frame keeps all threads busy as long as decompression is not the slowest part.
//!
//! Batches are numbered by (unit, sequence); a unit is a file or a row group. When batch k fails, batches after k are
//! no longer started and batches before k are finished: the first failure in document order is the one reported,
//! whatever the threads did.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, scope};
use std::time::Duration;

use super::ahead::Ahead;
use super::batch::Batch;
use super::report::{Problem, REMEMBERED, ReadReport};
use super::units::{Reader, Unit, plan};
use super::{Inputs, ReadOptions};
use crate::{Error, Monitor, Result, threads};

/// How long a thread without work sleeps before it asks whether to stop.
const NAP: Duration = Duration::from_millis(20);

/// Position of a batch: unit, then number within the unit.
type Key = (usize, u64);

/// Folds all documents into one state per thread, in any order.
///
/// `make` builds a thread's state, `fold` adds a batch to it. The states come back in no particular order and must be
/// merged by an operation for which order does not matter. The monitor counts bytes of the files as they lie on the
/// disk; `fold` calls [`Monitor::check`], not `advance`, if a batch takes long.
///
/// # Errors
/// The first in document order of: a file that cannot be read, a damaged or truncated file, what `fold` returns, and
/// with [`ReadOptions::strict`] a line without a document. [`Error::Data`] where there was no document at all, unless
/// [`ReadOptions::allow_empty`]. [`Error::Interrupted`] on a stop.
pub fn fold_documents<S: Send>(
    inputs: &Inputs,
    options: &ReadOptions,
    threads: usize,
    monitor: &Monitor,
    make: impl Fn() -> S + Sync,
    fold: impl Fn(&mut S, &Batch) -> Result<()> + Sync,
) -> Result<(Vec<S>, ReadReport)> {
    let crew = Crew::<()>::new(inputs, options, threads, monitor, None)?;
    let states = threads::each(0..threads.max(1), |_| {
        let mut state = make();
        crew.work(|batch| fold(&mut state, batch), |(), _| ());
        state
    });
    Ok((states, crew.finish()?))
}

/// Maps all batches and hands the results to `emit` in document order.
///
/// `make` builds a thread's state, `map` runs on the workers, `emit` on the calling thread. A worker does not run far
/// ahead of `emit`, so that few results wait at a time. For the rest see [`fold_documents`].
///
/// # Errors
/// As [`fold_documents`], and what `emit` returns. Results before the failing batch have been emitted.
pub fn map_documents<S: Send, T: Send>(
    inputs: &Inputs,
    options: &ReadOptions,
    threads: usize,
    monitor: &Monitor,
    make: impl Fn() -> S + Sync,
    map: impl Fn(&mut S, &Batch) -> Result<T> + Sync,
    mut emit: impl FnMut(T) -> Result<()>,
) -> Result<ReadReport> {
    let threads = threads.max(1);
    let crew = Crew::new(inputs, options, threads, monitor, Some(Window { ahead: 3 * threads + 2, spared: threads }))?;
    let mut emit = |result| emit(result).unwrap_or_else(|error| crew.fail((0, 0), error));
    scope(|scope| {
        let _guard = StopOnPanic(&crew);
        let work = || {
            let mut state = make();
            crew.work(|batch| map(&mut state, batch), |result, key| crew.deliver(key, result));
        };
        let workers: Vec<_> = (0..threads).map_while(|_| Builder::new().spawn_scoped(scope, work).ok()).collect();
        if workers.is_empty() {
            let mut state = make();
            let hand_on = |result, key| {
                crew.deliver(key, result);
                while let Some(result) = crew.next_in_order(false) {
                    emit(result);
                }
            };
            crew.work(|batch| map(&mut state, batch), hand_on);
        }
        while let Some(result) = crew.next_in_order(true) {
            emit(result);
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
    });
    crew.finish()
}

/// How far reading may run ahead of emitting, in batches.
struct Window {
    ahead: usize,
    /// Kept free for the unit that is emitted now; without it, later units could fill the window for ever.
    spared: usize,
}

/// What the threads share.
struct Crew<'a, T> {
    units: Vec<(usize, Unit<'a>)>,
    options: &'a ReadOptions,
    monitor: &'a Monitor,
    max_open: usize,
    window: Option<Window>,
    board: Mutex<Board<'a, T>>,
    changed: Condvar,
    first_path: &'a Path,
    files: u64,
}

struct Open<'a> {
    unit: usize,
    /// `None` while a worker reads from it.
    reader: Option<Reader<'a>>,
    next: u64,
    /// What idle workers can help with.
    ahead: Option<Arc<Ahead>>,
}

struct Board<'a, T> {
    next_unit: usize,
    open: Vec<Open<'a>>,
    failure: Option<(Key, Error)>,
    stopped: bool,
    report: ReadReport,
    problems: Vec<(Key, Problem)>,
    /// The batch that is emitted next, those that wait for it, and the lengths of finished units.
    turn: Key,
    ready: BTreeMap<Key, T>,
    ended: BTreeMap<usize, u64>,
    /// Batches taken to be read and neither emitted yet, nor found to be past the end of their unit, nor failed.
    pending: usize,
}

impl<'a, T: Send> Crew<'a, T> {
    fn new(
        inputs: &'a Inputs,
        options: &'a ReadOptions,
        threads: usize,
        monitor: &'a Monitor,
        window: Option<Window>,
    ) -> Result<Self> {
        monitor.begin(options.phase, "bytes", inputs.total_bytes());
        let units = plan(inputs, options, monitor)?;
        let first_path = inputs.sources.first().map_or(Path::new("documents"), |source| &source.path);
        let board = Board {
            next_unit: 0,
            open: Vec::new(),
            failure: None,
            stopped: false,
            report: ReadReport::default(),
            problems: Vec::new(),
            turn: (0, 0),
            ready: BTreeMap::new(),
            ended: BTreeMap::new(),
            pending: 0,
        };
        Ok(Self {
            units,
            options,
            monitor,
            max_open: threads.max(1),
            window,
            board: Mutex::new(board),
            changed: Condvar::new(),
            first_path,
            files: inputs.sources.len() as u64,
        })
    }

    fn board(&self) -> MutexGuard<'_, Board<'a, T>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nap<'g>(&self, board: MutexGuard<'g, Board<'a, T>>) -> MutexGuard<'g, Board<'a, T>> {
        self.changed.wait_timeout(board, NAP).unwrap_or_else(PoisonError::into_inner).0
    }

    /// What every worker does until nothing is left.
    fn work<R>(&self, mut apply: impl FnMut(&Batch) -> Result<R>, mut deliver: impl FnMut(R, Key)) {
        let _guard = StopOnPanic(self);
        let mut batch = Batch::default();
        while let Some((key, reader)) = self.take() {
            match self.read(key, reader, &mut batch) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    self.fail(key, error);
                    continue;
                }
            }
            batch.parse(self.options);
            match self.settle(key, &mut batch).and_then(|()| apply(&batch)) {
                Ok(result) => deliver(result, key),
                Err(error) => self.fail(key, error),
            }
        }
    }

    /// Waits for a unit to read from; `None` when all is read or nothing may be started any more.
    fn take(&self) -> Option<(Key, Option<Reader<'a>>)> {
        let mut board = self.board();
        loop {
            board.stopped |= self.monitor.check().is_err();
            if board.stopped {
                self.changed.notify_all();
                return None;
            }
            let allowed = |key: Key| self.may_start(&board, key);
            if let Some(n) = board.open.iter().position(|open| open.reader.is_some() && allowed((open.unit, open.next)))
            {
                board.pending += 1;
                let open = &mut board.open[n];
                open.next += 1;
                return Some(((open.unit, open.next - 1), open.reader.take()));
            }
            let unit = board.next_unit;
            if unit < self.units.len() && board.open.len() < self.max_open && allowed((unit, 0)) {
                board.pending += 1;
                board.next_unit += 1;
                board.open.push(Open { unit, reader: None, next: 1, ahead: None });
                return Some(((unit, 0), None));
            }
            let failed_before = |key: Key| board.failure.as_ref().is_some_and(|(at, _)| key > *at);
            let is_over = board.open.iter().all(|open| open.reader.is_some() && failed_before((open.unit, open.next)));
            if is_over && (unit == self.units.len() || failed_before((unit, 0))) {
                return None;
            }
            board = match self.to_help(&board) {
                None => self.nap(board),
                Some(ahead) => {
                    drop(board);
                    ahead.help();
                    self.board()
                }
            };
        }
    }

    /// A file in which to decompress ahead; none while as much waits as there are threads.
    fn to_help(&self, board: &Board<'a, T>) -> Option<Arc<Ahead>> {
        let files = || board.open.iter().filter_map(|open| open.ahead.as_ref());
        let waiting: usize = files().map(|ahead| ahead.waiting()).sum();
        files().find(|ahead| waiting < self.max_open && !ahead.is_over()).cloned()
    }

    fn may_start(&self, board: &Board<'a, T>, key: Key) -> bool {
        if board.failure.as_ref().is_some_and(|(at, _)| key > *at) {
            return false;
        }
        self.window.as_ref().is_none_or(|window| {
            let spared = if key.0 == board.turn.0 { 0 } else { window.spared };
            board.pending + spared < window.ahead
        })
    }

    /// Opens a unit and lets idle workers help with it.
    fn open(&self, unit: usize) -> Result<Reader<'a>> {
        let reader = self.units[unit].1.open(self.options, self.monitor)?;
        let mut board = self.board();
        board.open.iter_mut().filter(|open| open.unit == unit).for_each(|open| open.ahead = reader.ahead().cloned());
        self.changed.notify_all();
        Ok(reader)
    }

    /// Fills `batch` from the unit; false at its end. Puts the reader back before the batch is worked on.
    fn read(&self, key: Key, reader: Option<Reader<'a>>, batch: &mut Batch) -> Result<bool> {
        let mut reader = match reader {
            Some(reader) => reader,
            None => self.open(key.0)?,
        };
        let more = reader.read(batch, self.options, self.monitor)?;
        batch.source = self.units[key.0].0;
        let mut board = self.board();
        let Some(n) = board.open.iter().position(|open| open.unit == key.0) else { return Ok(more) };
        if more {
            board.open[n].reader = Some(reader);
        } else {
            board.open.remove(n);
            board.ended.insert(key.0, key.1);
            board.pending -= 1;
        }
        drop(board);
        self.changed.notify_all();
        Ok(more)
    }

    /// Counts the batch and remembers its problems.
    fn settle(&self, key: Key, batch: &mut Batch) -> Result<()> {
        let path = batch.path.as_ref();
        if self.options.strict && !batch.faults.is_empty() {
            let (line, fault) = batch.faults.swap_remove(0);
            return Err(Error::Data { path: path.clone(), line, detail: fault.reason });
        }
        let mut board = self.board();
        board.report.documents += batch.len() as u64;
        board.report.bytes += batch.text_bytes();
        for (_, fault) in &batch.faults {
            board.report.skipped.count(fault.kind);
        }
        let first = batch.faults.drain(..).take(REMEMBERED);
        board
            .problems
            .extend(first.map(|(line, fault)| (key, Problem { path: path.clone(), line, reason: fault.reason })));
        if board.problems.len() > 10 * REMEMBERED {
            board.problems.sort();
            board.problems.truncate(REMEMBERED);
        }
        Ok(())
    }

    /// Notes a failure; the first in document order stays.
    fn fail(&self, key: Key, error: Error) {
        let mut board = self.board();
        board.stopped |= matches!(error, Error::Interrupted);
        board.pending = board.pending.saturating_sub(1);
        // Nobody reads from a unit whose reader was lost with the error.
        board.open.retain(|open| open.unit != key.0 || open.reader.is_some());
        if board.failure.as_ref().is_none_or(|(at, _)| key < *at) {
            board.failure = Some((key, error));
        }
        drop(board);
        self.changed.notify_all();
    }

    fn deliver(&self, key: Key, result: T) {
        self.board().ready.insert(key, result);
        self.changed.notify_all();
    }

    /// The next result in document order; `None` after the last, or at the first failure. `waits`: until it is there.
    fn next_in_order(&self, waits: bool) -> Option<T> {
        let mut board = self.board();
        loop {
            let (unit, next) = board.turn;
            if board.ended.get(&unit) == Some(&next) {
                board.ended.remove(&unit);
                board.turn = (unit + 1, 0);
                self.changed.notify_all();
                continue;
            }
            let failed = board.failure.as_ref().is_some_and(|(at, _)| board.turn >= *at);
            if board.stopped || failed || unit == self.units.len() {
                return None;
            }
            let turn = board.turn;
            if let Some(result) = board.ready.remove(&turn) {
                board.turn.1 += 1;
                board.pending -= 1;
                drop(board);
                self.changed.notify_all();
                return Some(result);
            }
            if !waits {
                return None;
            }
            board = self.nap(board);
        }
    }

    fn finish(self) -> Result<ReadReport> {
        let mut board = self.board.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = board.failure {
            return Err(error);
        }
        self.monitor.check()?;
        board.problems.sort();
        let problems = board.problems.into_iter().map(|(_, problem)| problem).take(REMEMBERED);
        let mut report = ReadReport { files: self.files, ..board.report };
        report.first_problems = problems.collect();
        if report.documents == 0 && !self.options.allow_empty {
            return Err(Error::data(self.first_path, report.why_nothing()));
        }
        Ok(report)
    }
}

/// Lets the other threads end when one panics, so that the panic can be passed on.
struct StopOnPanic<'a, 'b, T: Send>(&'a Crew<'b, T>);

impl<T: Send> Drop for StopOnPanic<'_, '_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.board().stopped = true;
            self.0.changed.notify_all();
        }
    }
}
