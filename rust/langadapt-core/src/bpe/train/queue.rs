//! The queue of candidate pairs: an eight-way heap with the order given from outside.
//!
//! Counts of queued pairs change while they wait, so candidates are refreshed when they come to the front (see
//! [`super::learn`]). Pushing a pair that will never win, the usual case, looks at one parent and stops.

/// A pair that waits, with its count at the time it was queued.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub count: i64,
    /// Decides between equal counts, smaller first; what it means is up to the order.
    pub tie: u64,
    pub slot: u32,
    /// Where its occurrences are listed.
    pub segment: u32,
}

const ARITY: usize = 8;

/// `before(a, b)`: whether `a` comes out before `b`; the same closure must be given to every call.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: Vec<Candidate>,
}

impl Queue {
    pub fn first(&self) -> Option<Candidate> {
        self.heap.first().copied()
    }

    pub fn push(&mut self, candidate: Candidate, before: impl Fn(&Candidate, &Candidate) -> bool) {
        let mut at = self.heap.len();
        self.heap.push(candidate);
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if !before(&candidate, &self.heap[parent]) {
                break;
            }
            self.heap[at] = self.heap[parent];
            at = parent;
        }
        self.heap[at] = candidate;
    }

    /// Drops the first candidate.
    pub fn pop(&mut self, before: impl Fn(&Candidate, &Candidate) -> bool) {
        if let Some(last) = self.heap.pop()
            && !self.heap.is_empty()
        {
            self.replace_first(last, before);
        }
    }

    /// Puts `candidate` in the place of the first one.
    pub fn replace_first(&mut self, candidate: Candidate, before: impl Fn(&Candidate, &Candidate) -> bool) {
        let mut at = 0;
        loop {
            let first = at * ARITY + 1;
            if first >= self.heap.len() {
                break;
            }
            let mut best = first;
            for child in first + 1..(first + ARITY).min(self.heap.len()) {
                if before(&self.heap[child], &self.heap[best]) {
                    best = child;
                }
            }
            if !before(&self.heap[best], &candidate) {
                break;
            }
            self.heap[at] = self.heap[best];
            at = best;
        }
        self.heap[at] = candidate;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn before(a: &Candidate, b: &Candidate) -> bool {
        (b.count, a.tie) < (a.count, b.tie)
    }

    proptest! {
        #[test]
        fn comes_out_sorted(mut pairs in prop::collection::vec((0i64..20, 0u64..1000), 0..200)) {
            let mut queue = Queue::default();
            for &(count, tie) in &pairs {
                queue.push(Candidate { count, tie, slot: 0, segment: 0 }, before);
            }
            pairs.sort_by_key(|&(count, tie)| (-count, tie));
            for (count, tie) in pairs {
                prop_assert_eq!(queue.first().map(|c| (c.count, c.tie)), Some((count, tie)));
                queue.pop(before);
            }
            prop_assert!(queue.first().is_none());
        }
    }
}
