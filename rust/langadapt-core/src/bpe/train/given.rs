//! Tokens that are there before anything is learnt: runs of white space, which code is full of and prose is not.

use crate::bpe::merges::{Merges, Scratch};

/// All ways to put each of `tokens` together from two others, as ids; `id` knows these tokens and single characters.
pub(super) fn given_merges(tokens: &[String], id: impl Fn(&str) -> Option<u32>) -> Vec<(u32, u32, u32)> {
    let splits = tokens.iter().flat_map(|token| token.char_indices().skip(1).map(move |(cut, _)| (token, cut)));
    splits.filter_map(|(token, cut)| Some((id(&token[..cut])?, id(&token[cut..])?, id(token)?))).collect()
}

/// Applies given merges to words.
pub(super) struct Given {
    merges: Option<Merges>,
    symbols: Vec<u32>,
    scratch: Scratch,
}

impl Given {
    /// For words of symbols below `symbols`.
    pub fn new(merges: &[(u32, u32, u32)], symbols: usize) -> Self {
        let parts = |made: u32| merges.iter().find(|merge| merge.2 == made).map(|&(left, right, _)| [left, right]);
        let merges = (!merges.is_empty()).then(|| {
            Merges::new(merges, symbols, |id, symbols| {
                let mut waiting = vec![id];
                while let Some(id) = waiting.pop() {
                    match parts(id) {
                        Some([left, right]) => waiting.extend([right, left]),
                        None => symbols.push(id),
                    }
                }
            })
        });
        Self { merges, symbols: Vec::new(), scratch: Scratch::default() }
    }

    /// A word's symbols after the given merges.
    pub fn applied(&mut self, symbols: impl Iterator<Item = u32>) -> &[u32] {
        self.symbols.clear();
        self.symbols.extend(symbols);
        if let Some(merges) = &self.merges {
            merges.apply(&mut self.symbols, &mut self.scratch);
        }
        &self.symbols
    }
}
