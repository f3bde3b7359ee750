//! Which tokens others are made of.

use std::collections::HashMap;

use crate::Monitor;
use crate::Result;
use crate::bpe::pair_ranks::{PairRanks, Replay};

/// For every token of `wanted`, in order, the tokens that an encoder goes through to make it, itself last and its
/// characters first. A token that the merges do not reach stands alone.
///
/// Inside a text a token is made by the same merges as alone: none of them reaches across its ends, or it would not
/// have come out. So a vocabulary that keeps these tokens and the merges between them encodes every text in which only
/// tokens of `wanted` come out as before.
///
/// # Errors
/// [`crate::Error::Interrupted`].
pub fn derivations(
    tokens: &[String],
    merges: &[(u32, u32, u32)],
    wanted: &[u32],
    monitor: &Monitor,
) -> Result<Vec<Vec<u32>>> {
    let ids: HashMap<&str, u32> =
        tokens.iter().map(String::as_str).zip(0..).filter(|(token, _)| !token.is_empty()).collect();
    let merges = PairRanks::new(merges);
    let mut all = Vec::with_capacity(wanted.len());
    for &token in wanted {
        monitor.check()?;
        all.push(derivation(token, &tokens[token as usize], &ids, &merges));
    }
    Ok(all)
}

fn derivation(token: u32, text: &str, ids: &HashMap<&str, u32>, merges: &PairRanks) -> Vec<u32> {
    let base = text.char_indices().map(|(at, c)| ids.get(&text[at..at + c.len_utf8()]).copied());
    let Some(symbols) = base.collect::<Option<Vec<u32>>>() else { return vec![token] };
    let mut through = symbols.clone();
    let mut replay = Replay::new(merges);
    replay.start(|to| *to = symbols);
    while let Some((at, _)) = replay.step() {
        through.push(replay.symbols[at]);
    }
    if replay.symbols == [token] { through } else { vec![token] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_through_what_the_ranks_say() {
        let tokens: Vec<String> = ["a", "b", "c", "ab", "bc", "abc", "x y"].map(str::to_owned).to_vec();
        let merges = [(1, 2, 4), (0, 1, 3), (0, 4, 5), (3, 2, 5)];
        let found = derivations(&tokens, &merges, &[5, 0, 6], &Monitor::default()).unwrap();
        assert_eq!(found, [vec![0, 1, 2, 4, 5], vec![0], vec![6]]);
    }
}
