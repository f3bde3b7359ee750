//! Which documents are set aside for validation: those with the smallest hashes.
//!
//! Whether a document is set aside depends on its text and on the set of all documents, never on their order, on the
//! number of threads or on how the corpus was cut into shards; equal texts always go the same way, so nothing leaks by
//! exact repetition.
//!
//! Two steps: a [`Block`] puts documents aside that might be chosen, looking at nothing but its own; a [`Choice`] then
//! sees those of all blocks and takes the smallest that fit the limits.

use std::collections::BinaryHeap;

/// A document on its way to a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Small hashes are set aside.
    pub key: u64,
    /// UTF-8 bytes of the text.
    pub bytes: u64,
    /// The finished line.
    pub line: &'a [u8],
}

/// Where a document goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Train,
    Aside,
}

/// Keys below `share` of all keys may be set aside, and of those the longest run by ascending key that stays within the
/// limits is. A document larger than the limit of bytes is not eligible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Keys from here on belong to training.
    limit: Option<u64>,
    max_bytes: u64,
    max_documents: u64,
}

impl Rule {
    /// `share` is in `0.0..=1.0`; zero sets nothing aside.
    pub fn new(share: f64, max_bytes: Option<u64>, max_documents: Option<u64>) -> Self {
        // 2^64 times a share of one saturates to the largest key, which then stays in training: one in 2^64.
        let limit = (share * 18_446_744_073_709_551_616.0) as u64;
        Self {
            limit: (share > 0.0).then_some(limit),
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            max_documents: max_documents.unwrap_or(u64::MAX),
        }
    }

    fn is_candidate(&self, key: u64, bytes: u64) -> bool {
        bytes <= self.max_bytes && self.limit.is_some_and(|limit| key < limit)
    }
}

/// Documents read together.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The smallest key with its repeats, while there is no candidate: a small corpus shall have a validation text too.
    reserve: Vec<(u64, u64, Vec<u8>)>,
    has_candidate: bool,
}

impl Block {
    /// Takes a document and calls `put` for each whose way is known now.
    pub fn offer<E>(
        &mut self,
        rule: &Rule,
        document: Line<'_>,
        mut put: impl FnMut(Way, Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Line { key, bytes, line } = document;
        if rule.is_candidate(key, bytes) {
            self.has_candidate = true;
            self.release(Way::Train, &mut put)?;
            return put(Way::Aside, document);
        }
        let lowest = self.reserve.first().map_or(u64::MAX, |first| first.0);
        if self.has_candidate || rule.limit.is_none() || bytes > rule.max_bytes || key > lowest {
            return put(Way::Train, document);
        }
        if key < lowest {
            self.release(Way::Train, &mut put)?;
        }
        self.reserve.push((key, bytes, line.to_vec()));
        Ok(())
    }

    /// Ends the block; the next document begins another.
    pub fn end<E>(&mut self, mut put: impl FnMut(Way, Line<'_>) -> Result<(), E>) -> Result<(), E> {
        self.has_candidate = false;
        self.release(Way::Aside, &mut put)
    }

    fn release<E>(&mut self, way: Way, put: &mut impl FnMut(Way, Line<'_>) -> Result<(), E>) -> Result<(), E> {
        self.reserve.drain(..).try_for_each(|(key, bytes, line)| put(way, Line { key, bytes, line: &line }))
    }
}

/// Picks among all documents that blocks have put aside.
pub(super) struct Choice {
    rule: Rule,
    limit: u64,
    held: BinaryHeap<(u64, u64)>,
    bytes: u64,
    has_candidate: bool,
    /// The smallest key of all where there is no candidate: key, documents, bytes.
    reserve: (u64, u64, u64),
}

/// What is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Candidates with smaller keys.
    Below(u64),
    /// The text with this key.
    Exactly(u64),
    Nothing,
}

impl Choice {
    pub fn new(rule: Rule) -> Self {
        let limit = rule.limit.unwrap_or(0);
        Self { rule, limit, held: BinaryHeap::new(), bytes: 0, has_candidate: false, reserve: (u64::MAX, 0, 0) }
    }

    /// Takes the key of a document that was put aside, in any order.
    pub fn note(&mut self, key: u64, bytes: u64) {
        if !self.rule.is_candidate(key, bytes) {
            if key < self.reserve.0 {
                self.reserve = (key, 0, 0);
            }
            if key == self.reserve.0 {
                self.reserve = (key, self.reserve.1 + 1, self.reserve.2 + bytes);
            }
            return;
        }
        self.has_candidate = true;
        if key >= self.limit {
            return;
        }
        self.held.push((key, bytes));
        self.bytes += bytes;
        while self.bytes > self.rule.max_bytes || self.held.len() as u64 > self.rule.max_documents {
            let Some(&(key, _)) = self.held.peek() else { break };
            self.limit = key;
            // Equal texts go together.
            while let Some(&(top, bytes)) = self.held.peek()
                && top == key
            {
                self.bytes -= bytes;
                self.held.pop();
            }
        }
    }

    /// What is set aside of `documents` in all.
    pub fn finish(self, documents: u64) -> Held {
        let (key, count, bytes) = self.reserve;
        if !self.held.is_empty() {
            Held::Below(self.limit)
        } else if !self.has_candidate
            && (1..documents).contains(&count)
            && count <= self.rule.max_documents
            && bytes <= self.rule.max_bytes
        {
            Held::Exactly(key)
        } else {
            Held::Nothing
        }
    }
}

impl Held {
    /// Whether a document that was put aside is set aside.
    pub fn holds(self, rule: &Rule, key: u64, bytes: u64) -> bool {
        match self {
            Self::Below(limit) => key < limit && rule.is_candidate(key, bytes),
            Self::Exactly(only) => key == only && bytes <= rule.max_bytes,
            Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// What is set aside of documents in blocks of `size`.
    fn run(documents: &[(u64, u64)], rule: Rule, size: usize) -> Vec<(u64, u64)> {
        let (mut train, mut aside, mut block) = (Vec::new(), Vec::new(), Block::default());
        let mut put = |way, line: Line<'_>| {
            if way == Way::Train { &mut train } else { &mut aside }.push((line.key, line.bytes));
            Ok::<(), Infallible>(())
        };
        for part in documents.chunks(size) {
            for &(key, bytes) in part {
                let Ok(()) = block.offer(&rule, Line { key, bytes, line: &[] }, &mut put);
            }
            let Ok(()) = block.end(&mut put);
        }
        assert_eq!(train.len() + aside.len(), documents.len());
        let mut choice = Choice::new(rule);
        aside.iter().for_each(|&(key, bytes)| choice.note(key, bytes));
        let held = choice.finish(documents.len() as u64);
        aside.retain(|&(key, bytes)| held.holds(&rule, key, bytes));
        aside.sort_unstable();
        aside
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
        fn neither_order_nor_blocks_matter_and_the_definition_holds(
            documents in prop::collection::vec((0u64..40, 1u64..30), 0..60).prop_map(|all| {
                // Equal keys mean equal texts.
                all.into_iter().map(|(key, _)| (key << 58, key * 7 % 23 + 1)).collect::<Vec<_>>()
            }),
            share in 0.05f64..1.0, max_bytes in 1u64..200, max_documents in 1u64..20, seed in any::<u64>(), size in 1usize..70,
        ) {
            let rule = Rule::new(share, Some(max_bytes), Some(max_documents));
            let expected = naive(&documents, share, max_bytes, max_documents as usize);
            let mut shuffled = documents.clone();
            shuffled.sort_by_key(|&(key, bytes)| (key ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(bytes));
            let held = run(&documents, rule, size);
            prop_assert_eq!(&run(&shuffled, rule, 7), &held);
            if expected.is_empty() {
                prop_assert!(held.windows(2).all(|pair| pair[0] == pair[1]));
            } else {
                prop_assert_eq!(&held, &expected);
            }
        }
    }

    #[test]
    fn a_small_corpus_has_a_validation_text_too() {
        let documents: Vec<_> = (1..10).map(|n| (n << 60, 5)).collect();
        for size in [1, 4, 20] {
            let run = |documents: &[(u64, u64)], share, most| run(documents, Rule::new(share, None, most), size);
            assert_eq!(run(&documents, 0.001, None), [(1 << 60, 5)]);
            assert_eq!(run(&documents[..1], 0.001, None), []);
            assert_eq!(run(&documents, 0.0, None), []);
            let repeats = [documents[1], documents[0], documents[2], documents[0]];
            assert_eq!(run(&repeats, 0.001, None), [(1 << 60, 5); 2]);
            assert_eq!(run(&repeats, 0.001, Some(1)), []);
        }
    }
}
