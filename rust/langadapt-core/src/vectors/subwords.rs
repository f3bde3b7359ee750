//! Which rows of the input matrix make up a token: its own, then one for each character n-gram of its surface.

use std::collections::HashMap;

/// Rows of all tokens, one list after another.
#[derive(Debug)]
pub struct Subwords {
    starts: Vec<u32>,
    rows: Vec<u32>,
    /// Rows of the input matrix.
    pub n_rows: usize,
}

impl Subwords {
    /// Token `i` of `surfaces` owns row `i`; n-grams follow in the order in which they are first met, so the numbering
    /// depends on nothing else. As in fastText, a surface is set in `<` and `>` and a lone marker is no n-gram.
    pub fn new<'a>(surfaces: impl ExactSizeIterator<Item = &'a str>, (shortest, longest): (usize, usize)) -> Self {
        let mut n_rows = surfaces.len();
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut starts = vec![0];
        let mut rows = Vec::new();
        for (token, surface) in surfaces.enumerate() {
            rows.push(token as u32);
            if longest > 0 && !surface.is_empty() {
                for_each_ngram(surface, shortest, longest, |ngram| {
                    let row = known.get(ngram).copied().unwrap_or_else(|| {
                        let row = n_rows as u32;
                        n_rows += 1;
                        known.insert(ngram.to_owned(), row);
                        row
                    });
                    rows.push(row);
                });
            }
            starts.push(rows.len() as u32);
        }
        Self { starts, rows, n_rows }
    }

    /// Rows of token `i`.
    #[inline]
    pub fn of(&self, token: u32) -> &[u32] {
        let token = token as usize;
        &self.rows[self.starts[token] as usize..self.starts[token + 1] as usize]
    }
}

fn for_each_ngram(surface: &str, shortest: usize, longest: usize, mut visit: impl FnMut(&str)) {
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
    }

    #[test]
    fn shared_ngrams_share_a_row() {
        let subwords = Subwords::new(["ab", "", "abc"].into_iter(), (3, 3));
        assert_eq!(subwords.of(0), [0, 3, 4]); // <ab ab>
        assert_eq!(subwords.of(1), [1]);
        assert_eq!(subwords.of(2), [2, 3, 5, 6]); // <ab abc bc>
        assert_eq!(subwords.n_rows, 7);
    }
}
