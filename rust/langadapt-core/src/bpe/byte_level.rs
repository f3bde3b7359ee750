//! Text to pieces for byte-level tokenizers (GPT-2, Llama-3, Qwen): every byte is a symbol.
//!
//! The files write bytes as printable characters (`Ġ` is a space); here pieces are kept as bytes, and text is never
//! rewritten. Steps that come after the byte characters see those, not the text: after `ByteLevel` the step `Digits`
//! also splits at bytes whose stand-ins are `²³¹¼½¾`.

use std::sync::LazyLock;

use super::merges::{Merges, Scratch};
use super::piece_cache::Cache;
use super::tokenizer_json::{Model, Split};
use super::vocab::Vocab;
use crate::pretokenize::Pattern;

/// The printable characters that stand for the bytes: printable Latin-1 for itself, the rest from U+0100 on.
static CHARACTERS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte as u8 {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or_default()
        }
    })
});

static BYTES: LazyLock<[Option<u8>; 0x180]> = LazyLock::new(|| {
    let mut bytes = [None; 0x180];
    for (byte, character) in CHARACTERS.iter().enumerate() {
        bytes[*character as usize] = Some(byte as u8);
    }
    bytes
});

/// The byte that `character` stands for.
pub fn byte_of(character: char) -> Option<u8> {
    BYTES.get(character as usize).copied().flatten()
}

/// The bytes that a piece of the vocabulary stands for, where all its characters do.
pub fn bytes_of(piece: &str) -> Option<Vec<u8>> {
    piece.chars().map(byte_of).collect()
}

/// `bytes` as their stand-ins.
pub fn characters_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| CHARACTERS[usize::from(*byte)]).collect()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Put a space in front of what does not begin with one.
    Space,
    Pattern(Pattern),
    Digits {
        individual: bool,
    },
}

/// How this tokenizer turns text into pieces and pieces into ids.
#[derive(Debug)]
pub struct ByteLevel {
    steps: Vec<Step>,
    symbols: Box<[u32; 256]>,
    /// With `ignore_merges`: ids of whole pieces, by their bytes.
    whole_pieces: Option<Vocab>,
}

impl ByteLevel {
    /// # Errors
    /// The reason why this tokenizer cannot be encoded here.
    pub fn new(model: &Model, vocab: &Vocab, splits: &[Split]) -> Result<Self, String> {
        let mut symbols = Box::new([0; 256]);
        for (byte, symbol) in symbols.iter_mut().enumerate() {
            let character = CHARACTERS[byte].to_string();
            let missing = || format!("the vocabulary has no piece for byte {byte} ({character})");
            *symbol = vocab.id(character.as_bytes()).ok_or_else(missing)?;
        }
        let whole_pieces = (model.ignore_merges == Some(true)).then(|| {
            Vocab::new(vocab.iter().filter_map(|(piece, id)| Some((bytes_of(std::str::from_utf8(piece).ok()?)?, id))))
        });
        Ok(Self { steps: steps(splits)?, symbols, whole_pieces })
    }

    /// Appends the ids of one section of text.
    pub fn encode(&self, text: &str, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        self.run(&self.steps, text, merges, cache, out);
    }

    fn run(&self, steps: &[Step], text: &str, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        match steps {
            [] => self.piece(text.as_bytes(), 0, text.len(), merges, cache, out),
            [Step::Pattern(pattern)] => {
                let mut start = 0;
                while start < text.len() {
                    let end = pattern.next(text, start);
                    self.piece(text.as_bytes(), start, end, merges, cache, out);
                    start = end;
                }
            }
            [Step::Pattern(pattern), rest @ ..] => {
                let mut start = 0;
                while start < text.len() {
                    let end = pattern.next(text, start);
                    self.run(rest, &text[start..end], merges, cache, out);
                    start = end;
                }
            }
            [Step::Digits { individual }, rest @ ..] => {
                let mut start = 0;
                while start < text.len() {
                    let end = start + digits_end(&text[start..], *individual);
                    self.run(rest, &text[start..end], merges, cache, out);
                    start = end;
                }
            }
            [Step::Space, rest @ ..] if text.starts_with(' ') => self.run(rest, text, merges, cache, out),
            [Step::Space, rest @ ..] => self.run(rest, &format!(" {text}"), merges, cache, out),
        }
    }

    #[inline]
    fn piece(&self, text: &[u8], start: usize, end: usize, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        cache.encode(text, start, end, out, |piece, ids, scratch| self.encode_piece(piece, merges, ids, scratch));
    }

    fn encode_piece(&self, piece: &[u8], merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if let Some(id) = self.whole_pieces.as_ref().and_then(|pieces| pieces.id(piece)) {
            ids.push(id);
            return;
        }
        ids.extend(piece.iter().map(|byte| self.symbols[usize::from(*byte)]));
        merges.apply(ids, scratch);
    }
}

fn steps(splits: &[Split]) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut mapped = false;
    for split in splits {
        if mapped {
            return Err(format!("pre-tokenizer step {split:?} behind ByteLevel"));
        }
        match split {
            Split::ByteLevel { add_prefix_space, use_regex } => {
                steps.extend(add_prefix_space.then_some(Step::Space));
                steps.extend(use_regex.then_some(Step::Pattern(Pattern::Gpt2)));
                mapped = true;
            }
            Split::Regex(regex) => {
                let pattern = Pattern::from_regex(regex).ok_or_else(|| format!("pre-tokenizer regex {regex}"))?;
                steps.push(Step::Pattern(pattern));
            }
            Split::Digits { individual } => steps.push(Step::Digits { individual: *individual }),
            Split::Metaspace { .. } => return Err("pre-tokenizer with both Metaspace and ByteLevel".into()),
        }
    }
    Ok(steps)
}

/// End of the first part of `text` (not empty) as `Digits` splits it.
fn digits_end(text: &str, individual: bool) -> usize {
    let mut characters = text.char_indices();
    let first = characters.next().is_some_and(|(_, character)| character.is_numeric());
    if first && individual {
        return characters.next().map_or(text.len(), |(at, _)| at);
    }
    characters.find(|(_, character)| character.is_numeric() != first).map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_characters() {
        assert_eq!(characters_of("ü a\n".as_bytes()), "Ã¼ĠaĊ");
        assert_eq!(bytes_of("Ã¼ĠaĊ").as_deref(), Some("ü a\n".as_bytes()));
        assert_eq!(bytes_of("▁"), None);
        for byte in 0..=255u8 {
            assert_eq!(bytes_of(&characters_of(&[byte])), Some(vec![byte]));
        }
    }

    #[test]
    fn digits() {
        assert_eq!(digits_end("12a", false), 2);
        assert_eq!(digits_end("12a", true), 1);
        assert_eq!(digits_end("ab½", true), 2);
        assert_eq!(digits_end("½", true), 2);
    }
}
