//! Which rows of the input matrix make up a token: its own, and those of the character n-grams of its surface.
//!
//! fastText gives every n-gram a row (or shares rows at random, by hashing). Here n-grams that occur in exactly the
//! same tokens share one: they would always be summed together and always be moved by the same gradient, so only their
//! sum matters. An n-gram of a single token joins that token's own row. This changes nothing but the number of rows,
//! which falls to a third, and with it the memory traffic that training consists of.

use std::collections::HashMap;

/// Rows of all tokens, one list after another.
#[derive(Debug)]
pub struct Subwords {
    starts: Vec<u32>,
    rows: Vec<u32>,
    /// How many n-grams (the token itself counted as one) each row is the sum of.
    members: Vec<f32>,
    /// Members of all rows of each token.
    totals: Vec<f32>,
}

impl Subwords {
    /// Token `i` of `surfaces` owns row `i`; rows of n-grams follow in the order in which they are first met, so the
    /// numbering depends on nothing else. As in fastText, a surface is set in `<` and `>` and a lone marker is no
    /// n-gram.
    pub fn new<'a>(surfaces: impl ExactSizeIterator<Item = &'a str>, (shortest, longest): (usize, usize)) -> Self {
        let n_tokens = surfaces.len();
        let occurrences = Occurrences::new(surfaces, shortest, longest);
        // What tokens a row is for: the key under which n-grams share one.
        let mut row_of: HashMap<Vec<u32>, u32> = (0..n_tokens as u32).map(|token| (vec![token], token)).collect();
        let mut members = vec![1.0; n_tokens];
        let mut token_rows: Vec<Vec<u32>> = (0..n_tokens as u32).map(|token| vec![token]).collect();
        for ngram in 0..occurrences.n_ngrams() {
            let tokens = occurrences.tokens_of(ngram);
            if let Some(&row) = row_of.get(tokens) {
                members[row as usize] += 1.0;
                continue;
            }
            let row = members.len() as u32;
            members.push(1.0);
            row_of.insert(tokens.to_vec(), row);
            tokens.iter().for_each(|&token| token_rows[token as usize].push(row));
        }
        let total = |rows: &Vec<u32>| rows.iter().map(|&row| members[row as usize]).sum();
        let totals = token_rows.iter().map(total).collect();
        let mut starts = vec![0];
        let mut rows = Vec::new();
        for of_token in token_rows {
            rows.extend(of_token);
            starts.push(rows.len() as u32);
        }
        Self { starts, rows, members, totals }
    }

    /// Rows of token `i`. A row comes twice where its n-gram does.
    #[inline]
    pub fn of(&self, token: u32) -> &[u32] {
        let token = token as usize;
        &self.rows[self.starts[token] as usize..self.starts[token + 1] as usize]
    }

    /// How many n-grams a row is the sum of.
    #[inline]
    pub fn members(&self, row: u32) -> f32 {
        self.members[row as usize]
    }

    /// How many n-grams a token is the sum of, itself counted as one.
    #[inline]
    pub fn total(&self, token: u32) -> f32 {
        self.totals[token as usize]
    }

    /// Rows of the input matrix.
    pub fn n_rows(&self) -> usize {
        self.members.len()
    }
}

/// In which tokens each n-gram occurs.
struct Occurrences {
    starts: Vec<usize>,
    tokens: Vec<u32>,
}

impl Occurrences {
    fn new<'a>(surfaces: impl Iterator<Item = &'a str>, shortest: usize, longest: usize) -> Self {
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut met: Vec<(u32, u32)> = Vec::new();
        for (token, surface) in surfaces.enumerate() {
            for_each_ngram(surface, shortest, longest, |ngram| {
                let next = known.len() as u32;
                let ngram = known.get(ngram).copied().unwrap_or_else(|| {
                    known.insert(ngram.to_owned(), next);
                    next
                });
                met.push((ngram, token as u32));
            });
        }
        // Stable, so the tokens of an n-gram stay in order.
        met.sort_by_key(|&(ngram, _)| ngram);
        let mut starts = vec![0; known.len() + 1];
        met.iter().for_each(|&(ngram, _)| starts[ngram as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        Self { starts, tokens: met.into_iter().map(|(_, token)| token).collect() }
    }

    fn n_ngrams(&self) -> usize {
        self.starts.len() - 1
    }

    fn tokens_of(&self, ngram: usize) -> &[u32] {
        &self.tokens[self.starts[ngram]..self.starts[ngram + 1]]
    }
}

fn for_each_ngram(surface: &str, shortest: usize, longest: usize, mut visit: impl FnMut(&str)) {
    if longest == 0 || surface.is_empty() {
        return;
    }
    let word = format!("<{surface}>");
    let mut borders: Vec<usize> = word.char_indices().map(|(at, _)| at).collect();
    borders.push(word.len());
    let n_chars = borders.len() - 1;
    for start in 0..n_chars {
        for length in shortest..=longest.min(n_chars - start) {
            let lone_marker = length == 1 && (start == 0 || start + 1 == n_chars);
            if !lone_marker {
                visit(&word[borders[start]..borders[start + length]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ngrams(surface: &str, shortest: usize, longest: usize) -> Vec<String> {
        let mut found = Vec::new();
        for_each_ngram(surface, shortest, longest, |ngram| found.push(ngram.to_owned()));
        found
    }

    #[test]
    fn ngrams_are_of_characters_and_include_the_markers() {
        assert_eq!(ngrams("größe", 3, 3), ["<gr", "grö", "röß", "öße", "ße>"]);
        assert_eq!(ngrams("a", 3, 6), ["<a>"]);
        assert_eq!(ngrams("ab", 1, 2), ["<a", "a", "ab", "b", "b>"]);
        assert!(ngrams("", 3, 6).is_empty() && ngrams("abc", 0, 0).is_empty());
    }

    #[test]
    fn ngrams_of_the_same_tokens_share_a_row() {
        // <abc> has <ab abc bc> and <abd> has <ab abd bd>; only <ab is in both.
        let subwords = Subwords::new(["abc", "", "abd", "abc"].into_iter(), (3, 3));
        assert_eq!(subwords.of(0), [0, 4, 5]);
        assert_eq!(subwords.of(1), [1]);
        assert_eq!(subwords.of(2), [2, 4]);
        assert_eq!(subwords.of(3), [3, 4, 5]);
        // abc and bc> in tokens 0 and 3; token 2 itself with abd and bd>.
        assert_eq!((0..6).map(|row| subwords.members(row)).collect::<Vec<_>>(), [1.0, 1.0, 3.0, 1.0, 1.0, 2.0]);
        assert_eq!((0..4).map(|token| subwords.total(token)).collect::<Vec<_>>(), [4.0, 1.0, 4.0, 4.0]);
        assert_eq!(subwords.n_rows(), 6);
    }

    #[test]
    fn every_token_is_the_sum_of_all_its_ngrams() {
        let surfaces = ["▁haus", "haus", "häuser", "aaaaaa", "▁hausboot", "boot", "x"];
        let subwords = Subwords::new(surfaces.into_iter(), (3, 6));
        for (token, surface) in surfaces.into_iter().enumerate() {
            assert_eq!(subwords.total(token as u32) as usize, 1 + ngrams(surface, 3, 6).len(), "{surface}");
        }
    }
}
