//! Snippets of a token store that show chosen tokens: what their rows are learnt from.
//!
//! Documents are cut into stretches of one length, which are visited in an order of their own for each seed; a stretch
//! is taken if it holds a chosen token that fewer than `each` taken ones show. So frequent tokens do not crowd out rare
//! ones, and the whole is as short as a greedy choice makes it.
//!
//! Time: one look at every stretch at most. Memory: eight bytes for each, of which there are at most [`STRETCHES`].

use crate::vectors::sampling::Random;
use crate::{Error, Monitor, Result};

/// Of larger stores every second, third, ... stretch is looked at.
const STRETCHES: u64 = 1 << 24;
/// Stretches between two looks at the monitor.
const ROUND: usize = 4096;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Tokens of a snippet.
    pub length: usize,
    /// Snippets for each token.
    pub each: u32,
    /// Snippets in all, at most.
    pub most: usize,
    /// Of the order.
    pub seed: u64,
}

/// Places of the first tokens of the chosen snippets, in the order of choice.
///
/// `tokens` and `offsets` are a token store; `wanted` says for each id whether it is one to be shown. Documents shorter
/// than a snippet are passed over.
///
/// # Errors
/// [`Error::Argument`] where offsets do not fit the tokens, an id is out of range or snippets have no length;
/// [`Error::Interrupted`] on a stop.
pub fn choose<T: Copy + Into<u32>>(
    tokens: &[T],
    offsets: &[u64],
    wanted: &[bool],
    wish: Wish,
    monitor: &Monitor,
) -> Result<Vec<u64>> {
    let whole = offsets.first() == Some(&0) && offsets.last() == Some(&(tokens.len() as u64)) && offsets.is_sorted();
    if !whole || wish.length == 0 {
        return Err(Error::argument("offsets do not fit the tokens, or snippets have no length"));
    }
    let mut starts = stretches(offsets, wish.length as u64);
    let mut random = Random::new(wish.seed, 0);
    let mut left = wanted.iter().filter(|&&wanted| wanted).count();
    let (mut shown, mut chosen) = (vec![0u32; wanted.len()], Vec::new());
    for visited in 0..starts.len() {
        if chosen.len() == wish.most || left == 0 {
            break;
        }
        if visited % ROUND == 0 {
            monitor.check()?;
        }
        // Fisher and Yates, as far as it is needed.
        let rest = (starts.len() - visited) as u32;
        starts.swap(visited, visited + random.below(rest) as usize);
        let start = starts[visited];
        let snippet = &tokens[start as usize..start as usize + wish.length];
        let mut needed = false;
        for &token in snippet {
            let id: usize = token.into() as usize;
            let wanted = wanted.get(id).ok_or_else(|| Error::argument(format!("id {id} is out of range")))?;
            needed |= *wanted && shown[id] < wish.each;
        }
        if !needed {
            continue;
        }
        chosen.push(start);
        for &token in snippet {
            let id = token.into() as usize;
            if wanted[id] {
                shown[id] = shown[id].saturating_add(1);
                left -= usize::from(shown[id] == wish.each);
            }
        }
    }
    Ok(chosen)
}

/// First tokens of all stretches that are looked at.
fn stretches(offsets: &[u64], length: u64) -> Vec<u64> {
    let each = offsets.windows(2).map(|pair| (pair[0], (pair[1] - pair[0]) / length));
    let every = each.clone().map(|(_, count)| count).sum::<u64>().div_ceil(STRETCHES).max(1);
    let all = each.flat_map(|(first, count)| (0..count).map(move |number| first + number * length));
    all.step_by(every as usize).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WISH: Wish = Wish { length: 8, each: 3, most: 1000, seed: 1 };

    fn store() -> (Vec<u16>, Vec<u64>) {
        let mut random = Random::new(7, 1);
        let offsets: Vec<u64> = [0, 5, 5, 300, 308, 2000, 4003].into();
        // Squares: low ids are frequent, high ones rare.
        let tokens = (0..4003).map(|_| (random.unit() * random.unit() * 200.0) as u16).collect();
        (tokens, offsets)
    }

    fn run(wanted: &[bool], wish: Wish) -> Vec<u64> {
        let (tokens, offsets) = store();
        choose(&tokens, &offsets, wanted, wish, &Monitor::default()).unwrap()
    }

    #[test]
    fn each_token_is_shown_as_often_as_wanted_or_as_it_can_be_and_nothing_is_taken_in_vain() {
        let (tokens, offsets) = store();
        let wanted: Vec<bool> = (0..200).map(|id| id % 3 == 0).collect();
        let chosen = run(&wanted, WISH);
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
        let all = stretches(&offsets, 8);
        assert!(chosen.iter().all(|start| all.contains(start)));
        let shown = |starts: &[u64], id: u16| -> u32 {
            starts.iter().map(|&s| tokens[s as usize..s as usize + 8].iter().filter(|&&t| t == id).count() as u32).sum()
        };
        for id in (0..200u16).filter(|id| id % 3 == 0) {
            assert!(shown(&chosen, id) >= shown(&all, id).min(3), "{id}");
        }
        for (number, &start) in chosen.iter().enumerate() {
            let before = &chosen[..number];
            let snippet = &tokens[start as usize..start as usize + 8];
            assert!(snippet.iter().any(|&id| wanted[usize::from(id)] && shown(before, id) < 3), "{start}");
        }
    }

    #[test]
    fn a_seed_is_an_order_and_what_cannot_be_is_refused() {
        let wanted = vec![true; 200];
        assert_eq!(run(&wanted, WISH), run(&wanted, WISH));
        assert_ne!(run(&wanted, WISH), run(&wanted, Wish { seed: 2, ..WISH }));
        assert_eq!(run(&wanted, Wish { most: 4, ..WISH }), run(&wanted, WISH)[..4]);
        assert!(run(&[false; 200], WISH).is_empty());
        let refused = |tokens: &[u16], offsets: &[u64], length| {
            choose(tokens, offsets, &[true; 4], Wish { length, ..WISH }, &Monitor::default()).is_err()
        };
        assert!(refused(&[1, 2, 3], &[0, 2], 2) && refused(&[1, 2, 3], &[0, 3], 0) && refused(&[9; 8], &[0, 8], 2));
        assert!(!refused(&[1, 2, 3], &[0, 3], 2));
    }
}
