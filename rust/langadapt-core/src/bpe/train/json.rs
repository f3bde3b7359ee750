//! What was learnt, as the two long fields of a `tokenizer.json`. Python's writer takes longer than the merge loop.

use super::TrainedBpe;

impl TrainedBpe {
    /// `{"token":id,...}`
    pub fn vocab_json(&self) -> String {
        let mut json = String::with_capacity(self.pieces.len() * 20);
        for (id, piece) in self.pieces.iter().enumerate() {
            json.push(if id == 0 { '{' } else { ',' });
            push_string(&mut json, &piece.text);
            json.push(':');
            json.push_str(&id.to_string());
        }
        json.push_str(if self.pieces.is_empty() { "{}" } else { "}" });
        json
    }

    /// `[["left","right"],...]`
    pub fn merges_json(&self) -> String {
        let mut json = String::with_capacity(2 + self.merges.len() * 24);
        json.push('[');
        for (rank, &(left, right)) in self.merges.iter().enumerate() {
            json.push_str(if rank == 0 { "[" } else { ",[" });
            push_string(&mut json, &self.pieces[left as usize].text);
            json.push(',');
            push_string(&mut json, &self.pieces[right as usize].text);
            json.push(']');
        }
        json.push(']');
        json
    }
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::{Piece, PieceKind};
    use super::*;

    #[test]
    fn json_is_read_back() {
        let texts = ["a", "\"", "\\n", "\u{1f}\n", "ä中😀\u{2028}\u{7f}"];
        let pieces = texts.map(|text| Piece { text: text.to_owned(), score: 0.0, kind: PieceKind::Normal }).to_vec();
        let trained = TrainedBpe { pieces, merges: vec![(0, 1), (4, 3)] };
        let vocab: std::collections::BTreeMap<String, usize> = serde_json::from_str(&trained.vocab_json()).unwrap();
        assert!(texts.iter().enumerate().all(|(id, text)| vocab[*text] == id) && vocab.len() == texts.len());
        let merges: Vec<(String, String)> = serde_json::from_str(&trained.merges_json()).unwrap();
        assert_eq!(merges[1], (texts[4].to_owned(), texts[3].to_owned()));
        let empty = TrainedBpe { pieces: Vec::new(), merges: Vec::new() };
        assert_eq!((empty.vocab_json().as_str(), empty.merges_json().as_str()), ("{}", "[]"));
    }
}
