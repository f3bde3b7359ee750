use proptest::prelude::*;

use super::*;

/// The rule, word for word.
fn naive(merges: &[(u32, u32, u32)], symbols: &[u32]) -> Vec<u32> {
    let mut symbols = symbols.to_vec();
    loop {
        let candidates = symbols.windows(2).enumerate().filter_map(|(at, pair)| {
            let rank = merges.iter().rposition(|merge| (merge.0, merge.1) == (pair[0], pair[1]))?;
            Some((rank, at))
        });
        let Some((rank, at)) = candidates.min() else { return symbols };
        symbols.splice(at..at + 2, [merges[rank].2]);
    }
}

/// The characters of each piece of [`some_merges`].
const PIECES: [&str; 13] = ["a", "b", "c", "ab", "aa", "bc", "aab", "abc", "aaaa", "aabc", "bb", "bbb", "abab"];

fn spell(id: u32, symbols: &mut Vec<u32>) {
    symbols.extend(PIECES[id as usize].bytes().map(|byte| u32::from(byte - b'a')));
}

/// Merges that always make a longer piece, several of them the same one, as converted SentencePiece models have.
fn some_merges() -> Vec<(u32, u32, u32)> {
    let mut merges = Vec::new();
    for (joined, id) in PIECES.into_iter().zip(0..).skip(3) {
        for cut in 1..joined.len() {
            let left = PIECES.iter().position(|piece| *piece == &joined[..cut]);
            let right = PIECES.iter().position(|piece| *piece == &joined[cut..]);
            if let (Some(left), Some(right)) = (left, right) {
                merges.push((left as u32, right as u32, id));
            }
        }
    }
    merges
}

/// Tokens that texts over `abc` may have, each with the merges of some of its cuts, ranked in any order.
fn any_merges() -> impl Strategy<Value = (Vec<String>, Vec<(u32, u32, u32)>)> {
    let tokens = proptest::collection::btree_set("[abc]{2,6}", 1..25);
    let tokens = tokens.prop_map(|tokens| ["a", "b", "c"].map(String::from).into_iter().chain(tokens).collect());
    let merges = tokens.prop_flat_map(|tokens: Vec<String>| {
        let id = |piece: &str| tokens.iter().position(|token| token == piece).map(|id| id as u32);
        let cuts = tokens.iter().flat_map(|token| (1..token.len()).map(move |at| (token, token.split_at(at))));
        let merges = cuts.filter_map(|(token, (left, right))| Some((id(left)?, id(right)?, id(token)?)));
        let merges: Vec<_> = merges.collect();
        let count = merges.len();
        (Just(tokens), proptest::sample::subsequence(merges, 0..=count).prop_shuffle())
    });
    merges.boxed()
}

proptest! {
    #[test]
    fn one_merge_for_a_token_is_enough(
        (tokens, merges) in any_merges(), symbols in proptest::collection::vec(0u32..3, 1..80),
    ) {
        let spell = |id: u32, symbols: &mut Vec<u32>| {
            symbols.extend(tokens[id as usize].bytes().map(|byte| u32::from(byte - b'a')));
        };
        let table = Merges::new(&merges, tokens.len(), spell);
        let mut applied = symbols.clone();
        table.apply(&mut applied, &mut Scratch::default());
        prop_assert_eq!(applied, naive(&merges, &symbols));
    }

    #[test]
    fn all_ways_agree(symbols in proptest::collection::vec(0u32..3, 0..200), cut in 0usize..200) {
        let merges = some_merges();
        let table = Merges::new(&merges, PIECES.len(), spell);
        let symbols = &symbols[..cut.min(symbols.len())];
        let expected = naive(&merges, symbols);
        let mut scratch = Scratch::default();
        let mut by_heap = symbols.to_vec();
        if !by_heap.is_empty() {
            table.apply_by_heap(&mut by_heap, &mut scratch);
        }
        prop_assert_eq!(&by_heap, &expected);
        if (2..=SCAN_LIMIT).contains(&symbols.len()) {
            let mut by_scanning = symbols.to_vec();
            table.apply_by_scanning(&mut by_scanning);
            prop_assert_eq!(&by_scanning, &expected);
        }
        let mut applied = symbols.to_vec();
        table.apply(&mut applied, &mut scratch);
        prop_assert_eq!(&applied, &expected);
    }
}
