//! Which pieces no text can ever become.
//!
//! A piece that its own merges do not lead to is a row of the embedding matrix that is never read or trained. Such
//! pieces come from conversions, from vocabularies that were edited by hand, and from merges that lost their turn.

use super::encode::NativeTokenizer;
use super::merges::Scratch;

impl NativeTokenizer {
    /// Ids of pieces that the merges cannot make from their own characters, in rising order.
    ///
    /// Added tokens, byte tokens and the unknown token are not asked about: they are made in other ways. A piece that
    /// the merges can make but that the pre-tokenizer always splits is not found here.
    pub fn unreachable(&self) -> Vec<u32> {
        let mut scratch = Scratch::default();
        let mut ids = Vec::new();
        let mut unreachable: Vec<u32> = self
            .vocab()
            .iter()
            .filter(|(piece, id)| {
                if self.is_added(*id) || self.is_made_otherwise(piece, *id) {
                    return false;
                }
                ids.clear();
                self.encode_alone(std::str::from_utf8(piece).unwrap_or_default(), &mut ids, &mut scratch);
                ids != [*id]
            })
            .map(|(_, id)| id)
            .collect();
        unreachable.sort_unstable();
        unreachable
    }
}

#[cfg(test)]
mod tests {
    use crate::bpe::{Load, NativeTokenizer};

    #[test]
    fn pieces_without_a_way_to_them() {
        // `abc` has a merge, but `b c` comes first; `xy` has none; `<0x41>` is a byte token.
        let json = r#"{"added_tokens": [], "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "model": {"type": "BPE", "unk_token": "?", "byte_fallback": true, "vocab": {"?": 0, "<0x41>": 1, "a": 2,
            "b": 3, "c": 4, "x": 5, "y": 6, "bc": 7, "ab": 8, "abc": 9, "xy": 10, "▁": 11, "▁a": 12},
            "merges": [["b", "c"], ["a", "b"], ["ab", "c"], ["▁", "a"]]}}"#;
        let Ok(Load::Native(tokenizer)) = NativeTokenizer::load(json.as_bytes(), "tokenizer.json".as_ref()) else {
            panic!("not native")
        };
        assert_eq!(tokenizer.unreachable(), [9, 10]);
    }
}
