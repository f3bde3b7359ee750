//! Which merges ever happen, and numbers for symbols that are ranks.
//!
//! **One merge for a token.** Converted SentencePiece models list a merge for every way to cut a token in two. All but
//! one of them never happen: while a token grows no merge reaches across its ends, so it grows as it would alone, by
//! the same merges, the last of which is always the same. The others are never the lowest pair that is there, so
//! leaving them out changes nothing, and halves the tables. Tokens that do not come out of their own characters are
//! never made at all.
//!
//! **Numbers.** Since a merge and the token it makes are one, symbols are numbered anew: first what no merge makes,
//! then the tokens that merges make in order of rank. The number of a token is then its rank, and a table from pairs to
//! numbers is all there is: eight bytes a slot.

use super::pair_ranks::{PairRanks, Replay};

/// The merges without those that never happen: at most one for each token, in order of rank.
pub fn one_for_a_token(
    merges: &[(u32, u32, u32)],
    id_limit: usize,
    spell: impl Fn(u32, &mut Vec<u32>),
) -> Vec<(u32, u32, u32)> {
    let mut ways = vec![0u32; id_limit];
    merges.iter().for_each(|merge| ways[merge.2 as usize] += 1);
    if ways.iter().all(|ways| *ways <= 1) {
        return merges.to_vec();
    }
    let ranks = PairRanks::new(merges);
    let mut last = vec![None; id_limit];
    let mut replay = Replay::new(&ranks);
    for token in (0..id_limit as u32).filter(|token| ways[*token as usize] > 1) {
        replay.start(|symbols| spell(token, symbols));
        let pair = std::iter::from_fn(|| replay.step()).last().map(|(_, pair)| pair);
        last[token as usize] = pair.filter(|_| replay.symbols == [token]);
    }
    let mut kept: Vec<_> = merges.to_vec();
    kept.retain(|&(left, right, token)| ways[token as usize] == 1 || last[token as usize] == Some((left, right)));
    // A merge that is listed twice counts where it comes last.
    kept.reverse();
    kept.retain(|merge| std::mem::replace(&mut ways[merge.2 as usize], 0) > 0);
    kept.reverse();
    kept
}

/// Numbers by id and ids by number: symbols that no merge makes as they first come in the merges, the other symbols
/// that no merge makes, then tokens by the rank of their merge.
pub fn renumber(merges: &[(u32, u32, u32)], id_limit: usize) -> (Vec<u32>, Vec<u32>) {
    let mut made = vec![false; id_limit];
    merges.iter().for_each(|merge| made[merge.2 as usize] = true);
    let mut ids = Vec::with_capacity(id_limit);
    let mut seen = made;
    let parts = merges.iter().flat_map(|merge| [merge.0, merge.1]);
    for id in parts.chain(0..id_limit as u32) {
        if !std::mem::replace(&mut seen[id as usize], true) {
            ids.push(id);
        }
    }
    ids.extend(merges.iter().map(|merge| merge.2));
    let mut numbers = vec![0; id_limit];
    ids.iter().zip(0..).for_each(|(&id, number)| numbers[id as usize] = number);
    (numbers, ids)
}
