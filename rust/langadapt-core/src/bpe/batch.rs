//! Many texts at once, on several threads, with the same result as one after the other.

use std::ops::{Deref, DerefMut, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::encode::NativeTokenizer;
use super::piece_cache::Cache;
use crate::{Monitor, Result};

/// Text given to a thread at a time: long enough to make hand-over free, short enough to share work out evenly and to
/// see a stop soon.
const CHUNK_BYTES: usize = 256 << 10;

/// Caches that outlive a call, so that the next one starts warm. At most as many as threads ever worked at once.
#[derive(Debug, Default)]
pub struct CachePool(Mutex<Vec<Cache>>);

impl CachePool {
    /// A cache that nobody else uses until it is dropped.
    pub fn lend(&self) -> LentCache<'_> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        LentCache { cache: cache.unwrap_or_default(), pool: self }
    }
}

/// A [`Cache`] that goes back to its pool when dropped.
#[derive(Debug)]
pub struct LentCache<'a> {
    cache: Cache,
    pool: &'a CachePool,
}

impl Deref for LentCache<'_> {
    type Target = Cache;

    fn deref(&self) -> &Cache {
        &self.cache
    }
}

impl DerefMut for LentCache<'_> {
    fn deref_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }
}

impl Drop for LentCache<'_> {
    fn drop(&mut self) {
        let cache = std::mem::take(&mut self.cache);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
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
    /// Encodes `texts` on `threads` threads. With `add_special_tokens` each text gets the template's ids around it.
    ///
    /// # Errors
    /// [`Error::Interrupted`](crate::Error::Interrupted) on a stop.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        add_special_tokens: bool,
        threads: usize,
        pool: &CachePool,
        monitor: &Monitor,
    ) -> Result<Encoded> {
        let chunks = chunks(texts);
        let threads = threads.clamp(1, chunks.len().max(1));
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut cache = pool.lend();
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let texts = &texts[chunk.texts.clone()];
                let encoded = self.encode_chunk(texts, add_special_tokens, &mut cache);
                *chunk.encoded.lock().unwrap_or_else(PoisonError::into_inner) = encoded;
                monitor.advance(texts.iter().map(|text| text.as_ref().len() as u64).sum())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let theirs = helpers
                .into_iter()
                .map(|helper| helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            theirs.fold(mine, Result::and)
        })?;
        Ok(join(chunks.into_iter().map(|chunk| chunk.encoded.into_inner().unwrap_or_else(PoisonError::into_inner))))
    }

    fn encode_chunk<T: AsRef<str>>(&self, texts: &[T], add_special_tokens: bool, cache: &mut Cache) -> Encoded {
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let mut encoded = Encoded { ids: Vec::with_capacity(bytes / 3), offsets: Vec::with_capacity(texts.len() + 1) };
        encoded.offsets.push(0);
        for text in texts {
            if add_special_tokens {
                self.encode_with_template(text.as_ref(), cache, &mut encoded.ids);
            } else {
                self.encode_into(text.as_ref(), cache, &mut encoded.ids);
            }
            encoded.offsets.push(encoded.ids.len() as u64);
        }
        encoded
    }

    /// Appends the ids of `text` with the template's special tokens around them.
    pub fn encode_with_template(&self, text: &str, cache: &mut Cache, out: &mut Vec<u32>) {
        let (prefix, suffix) = self.template();
        out.extend_from_slice(prefix);
        self.encode_into(text, cache, out);
        out.extend_from_slice(suffix);
    }
}

/// Some of the texts, and what becomes of them.
struct Chunk {
    texts: Range<usize>,
    encoded: Mutex<Encoded>,
}

/// All texts in chunks of about [`CHUNK_BYTES`] each.
fn chunks<T: AsRef<str>>(texts: &[T]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut end_chunk = |texts| chunks.push(Chunk { texts, encoded: Mutex::default() });
    let (mut start, mut bytes) = (0, 0);
    for (at, text) in texts.iter().enumerate() {
        bytes += text.as_ref().len();
        if bytes >= CHUNK_BYTES {
            end_chunk(start..at + 1);
            (start, bytes) = (at + 1, 0);
        }
    }
    if start < texts.len() {
        end_chunk(start..texts.len());
    }
    chunks
}

fn join(chunks: impl Iterator<Item = Encoded>) -> Encoded {
    let chunks: Vec<Encoded> = chunks.collect();
    let mut all = Encoded {
        ids: Vec::with_capacity(chunks.iter().map(|chunk| chunk.ids.len()).sum()),
        offsets: Vec::with_capacity(chunks.iter().map(|chunk| chunk.offsets.len()).sum::<usize>() + 1),
    };
    all.offsets.push(0);
    for chunk in chunks {
        let base = all.ids.len() as u64;
        all.ids.extend_from_slice(&chunk.ids);
        all.offsets.extend(chunk.offsets.iter().skip(1).map(|offset| base + offset));
    }
    all
}
