//! Which documents are set aside for validation: those with the smallest hashes.
//!
//! Whether a document is set aside depends on its text and on the set of all documents, never on their order or on the
//! number of threads; equal texts always go the same way, so nothing leaks by exact repetition.

use std::collections::BinaryHeap;

/// A document on its way to a split.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Small hashes are set aside.
    pub key: u64,
    /// Place among all documents.
    pub number: u64,
    /// UTF-8 bytes of the text.
    pub bytes: u64,
    /// The finished line.
    pub line: Vec<u8>,
}

/// Picks the documents with keys below `share` of all keys, and of those the longest run by ascending key that stays
/// within the limits. A document larger than the limit of bytes is not eligible.
pub(super) struct Split {
    /// Keys from here on belong to training.
    limit: Option<u64>,
    max_bytes: u64,
    max_documents: u64,
    held: BinaryHeap<Candidate>,
    bytes: u64,
    /// The smallest key of all with its repeats, while nothing is set aside: a small corpus shall have a validation
    /// text too.
    reserve: Vec<Candidate>,
    offered: u64,
}

impl Split {
    /// `share` is in `0.0..=1.0`; zero sets nothing aside.
    pub fn new(share: f64, max_bytes: Option<u64>, max_documents: Option<u64>) -> Self {
        // 2^64 times a share of one saturates to the largest key, which then stays in training: one in 2^64.
        let limit = (share * 18_446_744_073_709_551_616.0) as u64;
        Self {
            limit: (share > 0.0).then_some(limit),
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            max_documents: max_documents.unwrap_or(u64::MAX),
            held: BinaryHeap::new(),
            bytes: 0,
            reserve: Vec::new(),
            offered: 0,
        }
    }

    /// Takes a document and calls `train` for each that is now known to belong to training.
    pub fn offer<E>(
        &mut self,
        document: Candidate,
        mut train: impl FnMut(Candidate) -> Result<(), E>,
    ) -> Result<(), E> {
        self.offered += 1;
        let Some(limit) = self.limit.filter(|_| document.bytes <= self.max_bytes) else { return train(document) };
        if document.key >= limit {
            return self.offer_reserve(document, train);
        }
        self.bytes += document.bytes;
        self.held.push(document);
        while self.bytes > self.max_bytes || self.held.len() as u64 > self.max_documents {
            let Some(top) = self.held.pop() else { break };
            let key = top.key;
            self.limit = Some(key);
            self.release(top, &mut train)?;
            // Equal texts go together.
            while self.held.peek().is_some_and(|next| next.key == key) {
                if let Some(next) = self.held.pop() {
                    self.release(next, &mut train)?;
                }
            }
        }
        if self.held.is_empty() { Ok(()) } else { self.reserve.drain(..).try_for_each(train) }
    }

    fn release<E>(&mut self, document: Candidate, train: &mut impl FnMut(Candidate) -> Result<(), E>) -> Result<(), E> {
        self.bytes -= document.bytes;
        train(document)
    }

    fn offer_reserve<E>(
        &mut self,
        document: Candidate,
        mut train: impl FnMut(Candidate) -> Result<(), E>,
    ) -> Result<(), E> {
        let lowest = self.reserve.first().map_or(u64::MAX, |reserve| reserve.key);
        // A text whose repeats were pushed out by a limit has the limit as its key: all of them go to training.
        if !self.held.is_empty() || document.key > lowest || self.limit == Some(document.key) {
            return train(document);
        }
        if document.key < lowest {
            self.reserve.drain(..).try_for_each(train)?;
        }
        self.reserve.push(document);
        Ok(())
    }

    /// The documents set aside, in their first order, and those that belong to training after all.
    pub fn finish(mut self) -> (Vec<Candidate>, Vec<Candidate>) {
        let mut held = std::mem::take(&mut self.held).into_vec();
        let bytes: u64 = self.reserve.iter().map(|document| document.bytes).sum();
        let count = self.reserve.len() as u64;
        if held.is_empty() && count < self.offered && count <= self.max_documents && bytes <= self.max_bytes {
            held.append(&mut self.reserve);
        }
        held.sort_by_key(|document| document.number);
        (held, self.reserve)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn run(
        documents: &[(u64, u64)],
        share: f64,
        max_bytes: Option<u64>,
        max_documents: Option<u64>,
    ) -> Vec<(u64, u64)> {
        let mut split = Split::new(share, max_bytes, max_documents);
        let mut train = Vec::new();
        for (number, &(key, bytes)) in documents.iter().enumerate() {
            let document = Candidate { key, number: number as u64, bytes, line: Vec::new() };
            let Ok(()) = split.offer(document, |document| {
                train.push((document.key, document.bytes));
                Ok::<(), Infallible>(())
            });
        }
        let (held, left) = split.finish();
        train.extend(left.iter().map(|document| (document.key, document.bytes)));
        let mut held: Vec<_> = held.iter().map(|document| (document.key, document.bytes)).collect();
        assert_eq!(train.len() + held.len(), documents.len());
        held.sort_unstable();
        held
    }

    /// The definition: by ascending key, equal keys together, as long as the limits hold.
    fn naive(documents: &[(u64, u64)], share: f64, max_bytes: u64, max_documents: usize) -> Vec<(u64, u64)> {
        let limit = (share * 18_446_744_073_709_551_616.0) as u64;
        let eligible = || documents.iter().copied().filter(|&(_, bytes)| bytes <= max_bytes);
        let mut keys: Vec<u64> = eligible().map(|(key, _)| key).filter(|&key| key < limit).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut best = Vec::new();
        for &key in &keys {
            let mut run: Vec<_> = eligible().filter(|&(other, _)| other <= key).collect();
            run.sort_unstable();
            if run.iter().map(|&(_, bytes)| bytes).sum::<u64>() > max_bytes || run.len() > max_documents {
                break;
            }
            best = run;
        }
        best
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_the_definition_holds(
            documents in prop::collection::vec((0u64..40, 1u64..30), 0..60).prop_map(|all| {
                // Equal keys mean equal texts.
                all.into_iter().map(|(key, _)| (key << 58, key * 7 % 23 + 1)).collect::<Vec<_>>()
            }),
            share in 0.05f64..1.0, max_bytes in 1u64..200, max_documents in 1u64..20, seed in any::<u64>(),
        ) {
            let expected = naive(&documents, share, max_bytes, max_documents as usize);
            let mut shuffled = documents.clone();
            shuffled.sort_by_key(|&(key, bytes)| (key ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(bytes));
            for order in [&documents, &shuffled] {
                let held = run(order, share, Some(max_bytes), Some(max_documents));
                if expected.is_empty() {
                    prop_assert!(held.windows(2).all(|pair| pair[0] == pair[1]));
                } else {
                    prop_assert_eq!(&held, &expected);
                }
            }
        }
    }

    #[test]
    fn a_small_corpus_has_a_validation_text_too() {
        let documents: Vec<_> = (1..10).map(|n| (n << 60, 5)).collect();
        assert_eq!(run(&documents, 0.001, None, None), [(1 << 60, 5)]);
        assert_eq!(run(&documents[..1], 0.001, None, None), []);
        assert_eq!(run(&documents, 0.0, None, None), []);
        let repeats = [documents[1], documents[0], documents[2], documents[0]];
        assert_eq!(run(&repeats, 0.001, None, None), [(1 << 60, 5); 2]);
        assert_eq!(run(&repeats, 0.001, None, Some(1)), []);
    }
}
