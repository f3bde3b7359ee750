//! Many texts at once, on several threads, with the same result as one after the other.

use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::encode::NativeTokenizer;
use super::huge;
use super::piece_cache::Cache;
use crate::{Monitor, Result, threads};

/// Text given to a thread at a time: long enough to make hand-over free, short enough to share work out evenly and to
/// see a stop soon.
const CHUNK_BYTES: usize = 256 << 10;

/// Caches that outlive a call, so that the next one starts warm. At most as many as threads ever worked at once.
///
/// Every cache has a place, which is empty while the cache is lent.
#[derive(Debug, Default)]
pub struct CachePool(Mutex<Vec<Option<Cache>>>);

impl CachePool {
    /// A cache that nobody else uses until it is dropped; whatever uses it returns early once `monitor` is asked to
    /// stop (see [`Cache::watch`]).
    pub fn lend(&self, monitor: &Monitor) -> LentCache<'_> {
        let place = self.lock().iter().position(Option::is_some);
        // Should another thread take it meanwhile, this one gets a new cache.
        self.lend_at(place.unwrap_or(0), monitor)
    }

    /// The cache at a place: threads that share work out as in the call before find the pieces they had then.
    fn lend_at(&self, place: usize, monitor: &Monitor) -> LentCache<'_> {
        let mut cache = self.lock().get_mut(place).and_then(Option::take).unwrap_or_default();
        cache.watch(monitor);
        LentCache { cache: Some(cache), place, pool: self }
    }

    fn give_back(&self, cache: Cache, place: usize) {
        let mut caches = self.lock();
        // Whichever thread ends first, each finds its own again.
        if caches.len() <= place {
            caches.resize_with(place + 1, || None);
        }
        let free = || caches.iter().position(Option::is_none);
        match if caches[place].is_none() { Some(place) } else { free() } {
            Some(place) => caches[place] = Some(cache),
            None => caches.push(Some(cache)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Cache>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Cache`] that goes back to its pool when dropped.
#[derive(Debug)]
pub struct LentCache<'a> {
    /// Always there but while being dropped.
    cache: Option<Cache>,
    place: usize,
    pool: &'a CachePool,
}

impl Deref for LentCache<'_> {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        self.cache.as_ref().expect("lent until dropped")
    }
}

impl DerefMut for LentCache<'_> {
    fn deref_mut(&mut self) -> &mut Cache {
        self.cache.as_mut().expect("lent until dropped")
    }
}

impl Drop for LentCache<'_> {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.take() {
            self.pool.give_back(cache, self.place);
        }
    }
}

/// A text to encode, which may still be on its way.
pub trait Text: Sync {
    /// About how long it is, known at once: bytes or characters.
    fn size(&self) -> usize;

    /// The text; waits for it.
    fn get(&self) -> &str;
}

impl<T: AsRef<str> + Sync> Text for T {
    fn size(&self) -> usize {
        self.as_ref().len()
    }

    fn get(&self) -> &str {
        self.as_ref()
    }
}

/// A text that another thread brings while the first ones are encoded already.
#[derive(Debug)]
pub struct Late<T> {
    size: usize,
    text: OnceLock<Option<T>>,
}

impl<T> Late<T> {
    /// A text of about this size.
    pub fn new(size: usize) -> Self {
        Self { size, text: OnceLock::new() }
    }

    /// Brings the text; `None` says that it will not come. Only the first call counts.
    pub fn bring(&self, text: Option<T>) {
        let _ = self.text.set(text);
    }
}

impl<T: AsRef<str> + Send + Sync> Text for Late<T> {
    fn size(&self) -> usize {
        self.size
    }

    fn get(&self) -> &str {
        self.text.wait().as_ref().map_or("", AsRef::as_ref)
    }
}

/// Ids of all texts in a row, and where each text begins and ends: text `i` has ids `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// One more than there are texts; begins with 0.
    pub offsets: Vec<u64>,
}

impl NativeTokenizer {
    /// Encodes `texts` on the threads of `shares`, which are theirs. With `add_special_tokens` each text gets the
    /// template's ids around it. Progress counts in their sizes.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) on a stop.
    pub fn encode_batch<T: Text>(
        &self,
        texts: &[T],
        shares: &Shares,
        add_special_tokens: bool,
        pool: &CachePool,
        monitor: &Monitor,
    ) -> Result<Encoded> {
        let Shares { chunks, threads, size } = shares;
        let threads = *threads;
        let parts: Vec<Part> = (0..threads)
            .map(|thread| Part {
                next: AtomicUsize::new(shares.first_chunk(thread)),
                end: shares.first_chunk(thread + 1),
            })
            .collect();
        let work = |thread: usize| -> Result<Vec<Run>> {
            let mut cache = pool.lend_at(thread, monitor);
            cache.expect(*size / threads as u64);
            let mut runs: Vec<Run> = Vec::new();
            for part in parts[thread..].iter().chain(&parts[..thread]) {
                while let Some(at) = part.take() {
                    if runs.last().is_none_or(|run| run.chunks.end != at) {
                        // Room that is not used is never touched; where all texts are one run, nothing is copied.
                        let bytes = texts[chunks[at].start..].iter().map(Text::size).sum();
                        runs.push(Run::new(at, if at == 0 || threads == 1 { bytes } else { bytes / threads }));
                    }
                    let Some(run) = runs.last_mut() else { continue };
                    let texts = &texts[chunks[at].clone()];
                    self.encode_chunk(texts, add_special_tokens, &mut cache, &mut run.encoded);
                    run.chunks.end = at + 1;
                    monitor.advance(texts.iter().map(|text| text.size() as u64).sum())?;
                }
            }
            Ok(runs)
        };
        let runs: Result<Vec<_>> = threads::each(0..threads, work).into_iter().collect();
        let mut runs: Vec<Run> = runs?.into_iter().flatten().collect();
        runs.sort_by_key(|run| run.chunks.start);
        Ok(join(runs))
    }

    fn encode_chunk<T: Text>(&self, texts: &[T], special: bool, cache: &mut Cache, encoded: &mut Encoded) {
        for text in texts {
            if special {
                self.encode_with_template(text.get(), cache, &mut encoded.ids);
            } else {
                self.encode_into(text.get(), cache, &mut encoded.ids);
            }
            encoded.offsets.push(encoded.ids.len() as u64);
        }
    }

    /// Appends the ids of `text` with the template's special tokens around them.
    pub fn encode_with_template(&self, text: &str, cache: &mut Cache, out: &mut Vec<u32>) {
        let (prefix, suffix) = self.template();
        out.extend_from_slice(prefix);
        self.encode_into(text, cache, out);
        out.extend_from_slice(suffix);
    }
}

/// The chunks that one thread works on first. A thread that is through with its own goes on with those of others.
struct Part {
    next: AtomicUsize,
    end: usize,
}

impl Part {
    fn take(&self) -> Option<usize> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        (at < self.end).then_some(at)
    }
}

/// Neighbouring chunks that one thread encoded, one after the other.
struct Run {
    chunks: Range<usize>,
    encoded: Encoded,
}

impl Run {
    /// The run that begins with chunk `first`, of texts of about `bytes` bytes.
    fn new(first: usize, bytes: usize) -> Self {
        // Texts have at most an id for every two bytes, or nearly all have; where not, the room grows.
        let encoded = Encoded { ids: huge::with_capacity(bytes / 2), offsets: vec![0] };
        Self { chunks: first..first, encoded }
    }
}

/// How texts are shared out between threads.
#[derive(Debug)]
pub struct Shares {
    /// About [`CHUNK_BYTES`] each.
    chunks: Vec<Range<usize>>,
    threads: usize,
    size: u64,
}

impl Shares {
    /// The shares of at most `threads` threads.
    pub fn new<T: Text>(texts: &[T], threads: usize) -> Self {
        let mut chunks = Vec::new();
        let (mut start, mut bytes, mut size) = (0, 0, 0);
        for (at, text) in texts.iter().enumerate() {
            bytes += text.size();
            size += text.size() as u64;
            if bytes >= CHUNK_BYTES {
                chunks.push(start..at + 1);
                (start, bytes) = (at + 1, 0);
            }
        }
        if start < texts.len() {
            chunks.push(start..texts.len());
        }
        let threads = threads.clamp(1, chunks.len().max(1));
        Self { chunks, threads, size }
    }

    /// The sizes of all texts together.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All texts in the order in which they had best arrive, those first that are needed first: a chunk for every
    /// thread in turn.
    pub fn order(&self) -> impl Iterator<Item = usize> {
        let longest = self.chunks.len().div_ceil(self.threads);
        let turns = (0..longest).flat_map(|turn| (0..self.threads).map(move |thread| (turn, thread)));
        let chunks = turns.filter_map(|(turn, thread)| {
            let at = self.first_chunk(thread) + turn;
            (at < self.first_chunk(thread + 1)).then(|| self.chunks[at].clone())
        });
        chunks.flatten()
    }

    /// The first chunk of a thread's share.
    fn first_chunk(&self, thread: usize) -> usize {
        self.chunks.len() * thread / self.threads
    }
}

/// The runs in a row; the first takes in the others.
fn join(runs: Vec<Run>) -> Encoded {
    let mut runs = runs.into_iter().map(|run| run.encoded);
    let mut all = runs.next().unwrap_or_else(|| Encoded { ids: Vec::new(), offsets: vec![0] });
    for run in runs {
        let base = all.ids.len() as u64;
        all.ids.extend_from_slice(&run.ids);
        all.offsets.extend(run.offsets[1..].iter().map(|offset| base + offset));
    }
    all.ids.shrink_to_fit();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_has_its_turn() {
        for (count, threads) in [(0, 2), (1, 3), (7, 2), (50, 4), (50, 1)] {
            let texts: Vec<Late<String>> = (0..count).map(|at| Late::new(CHUNK_BYTES / 3 + at)).collect();
            let shares = Shares::new(&texts, threads);
            let order: Vec<usize> = shares.order().collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            if threads == 1 {
                assert_eq!(order, sorted);
            }
        }
    }

    #[test]
    fn every_thread_finds_its_own_cache_again() {
        let (pool, monitor) = (CachePool::default(), Monitor::default());
        let lend = |place| pool.lend_at(place, &monitor);
        let (mut first, mut second) = (lend(0), lend(1));
        first.encode_piece(b"first", &mut Vec::new(), |_, ids, _| ids.push(1));
        second.encode_piece(b"second", &mut Vec::new(), |_, ids, _| ids.extend([1, 2]));
        second.encode_piece(b"third", &mut Vec::new(), |_, ids, _| ids.push(3));
        drop(second);
        drop(first);
        assert_eq!((lend(0).statistics().0, lend(1).statistics().0), (1, 2));
    }

    #[test]
    fn a_text_that_will_not_come_is_empty() {
        let text = Late::new(5);
        text.bring(None);
        text.bring(Some("later"));
        assert_eq!((text.size(), text.get()), (5, ""));
    }
}
