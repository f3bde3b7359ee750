//! Text to pieces for byte-level tokenizers (GPT-2, Llama-3, Qwen): every byte is a symbol.
//!
//! The files write bytes as printable characters (`Ġ` is a space); here pieces are kept as bytes, and text is never
//! rewritten. Steps that come after the byte characters see those, not the text: after `ByteLevel` the step `Digits`
//! also splits at bytes whose stand-ins are `²³¹¼½¾`.

use std::ops::Range;
use std::sync::LazyLock;

use super::merges::{Merges, Scratch};
use super::piece_cache::Cache;
use super::spec::{Model, Split};
use super::vocab::Vocab;
use crate::pretokenize::{Gpt2Ends, Pattern};

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

/// A step before bytes are mapped.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Put a space in front of what does not begin with one.
    Space,
    Pattern(Pattern),
    /// Characters of a class apart from others, one by one or in runs.
    Class(fn(char) -> bool, Individual),
}

/// A step behind `ByteLevel`.
#[derive(Debug, Clone, Copy)]
enum ByteStep {
    Digits(Individual),
    /// Split by [`THREE_DIGITS`].
    ThreeDigits,
}

type Individual = bool;

/// In place of an id.
const NONE: u32 = u32::MAX;

/// Falcon's last step; the only regex known behind `ByteLevel`.
const THREE_DIGITS: &str = "[0-9][0-9][0-9]";

/// How this tokenizer turns text into pieces and pieces into ids.
#[derive(Debug)]
pub struct ByteLevel {
    steps: Vec<Step>,
    byte_steps: Vec<ByteStep>,
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
            *symbol = match vocab.id(character.as_bytes()) {
                Some(id) => id,
                // Without an unknown token, such bytes vanish; with one, they would fuse in ways not done here.
                None if model.unk_token.is_none() && model.byte_fallback != Some(true) => NONE,
                None => return Err(format!("the vocabulary has no piece for byte {byte} ({character})")),
            };
        }
        let whole_pieces = (model.ignore_merges == Some(true)).then(|| {
            Vocab::new(vocab.iter().filter_map(|(piece, id)| Some((bytes_of(std::str::from_utf8(piece).ok()?)?, id))))
        });
        let (steps, byte_steps) = steps(splits)?;
        Ok(Self { steps, byte_steps, symbols, whole_pieces })
    }

    /// Appends the ids of one section of text.
    pub fn encode(&self, text: &str, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        self.run(&self.steps, text, merges, cache, out);
    }

    fn run(&self, steps: &[Step], text: &str, merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        let Some((step, rest)) = steps.split_first() else {
            return self.run_bytes(&self.byte_steps, text.as_bytes(), merges, cache, out);
        };
        let last = rest.is_empty() && self.byte_steps.is_empty();
        let mut start = 0;
        match step {
            // One loop for each pattern: choosing anew at every piece costs a tenth of the speed.
            Step::Pattern(pattern) if last => {
                let bytes = text.as_bytes();
                let encode = |piece: Range<usize>, ids: &mut Vec<u32>, scratch: &mut Scratch| {
                    self.encode_piece(&bytes[piece], merges, ids, scratch);
                };
                match pattern {
                    Pattern::Gpt2 => {
                        let mut ends = Gpt2Ends::new(text);
                        cache.encode_pieces(bytes, out, |at| ends.next(at), encode);
                    }
                    Pattern::Gpt4 | Pattern::Llama3 => {
                        cache.encode_pieces(bytes, out, |at| Pattern::Llama3.next(text, at), encode);
                    }
                    Pattern::Qwen2 => cache.encode_pieces(bytes, out, |at| Pattern::Qwen2.next(text, at), encode),
                    Pattern::O200k => cache.encode_pieces(bytes, out, |at| Pattern::O200k.next(text, at), encode),
                }
            }
            Step::Pattern(pattern) => {
                while start < text.len() {
                    let end = pattern.next(text, start);
                    self.run(rest, &text[start..end], merges, cache, out);
                    start = end;
                }
            }
            Step::Class(class, individual) => {
                while start < text.len() {
                    let end = start + class_end(&text[start..], *class, *individual);
                    self.run(rest, &text[start..end], merges, cache, out);
                    start = end;
                }
            }
            Step::Space if text.starts_with(' ') => self.run(rest, text, merges, cache, out),
            Step::Space => self.run(rest, &format!(" {text}"), merges, cache, out),
        }
    }

    fn run_bytes(&self, steps: &[ByteStep], text: &[u8], merges: &Merges, cache: &mut Cache, out: &mut Vec<u32>) {
        let Some((step, rest)) = steps.split_first() else {
            return cache.encode_piece(text, out, |_, ids, scratch| self.encode_piece(text, merges, ids, scratch));
        };
        let mut start = 0;
        while start < text.len() {
            let end = start
                + match step {
                    ByteStep::Digits(individual) => byte_digits_end(&text[start..], *individual),
                    ByteStep::ThreeDigits => three_digits_end(&text[start..]),
                };
            self.run_bytes(rest, &text[start..end], merges, cache, out);
            start = end;
        }
    }

    /// The ids of a piece as the vocabulary writes it; none where its characters do not stand for bytes.
    pub(super) fn encode_alone(&self, piece: &str, merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if let Some(bytes) = bytes_of(piece) {
            self.encode_piece(&bytes, merges, ids, scratch);
        }
    }

    fn encode_piece(&self, piece: &[u8], merges: &Merges, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if let Some(id) = self.whole_pieces.as_ref().and_then(|pieces| pieces.id(piece)) {
            ids.push(id);
            return;
        }
        self.push_symbols(piece, ids);
        merges.apply(ids, scratch);
    }

    /// The bytes of a piece as ids.
    pub(super) fn push_symbols(&self, piece: &[u8], ids: &mut Vec<u32>) {
        ids.extend(piece.iter().map(|byte| self.symbols[usize::from(*byte)]).filter(|id| *id != NONE));
    }
}

fn steps(splits: &[Split]) -> Result<(Vec<Step>, Vec<ByteStep>), String> {
    let mut steps = Vec::new();
    let mut byte_steps = Vec::new();
    let mut mapped = false;
    for split in splits {
        match split {
            Split::Digits { individual } if mapped => byte_steps.push(ByteStep::Digits(*individual)),
            Split::Regex(regex) if mapped && regex == THREE_DIGITS => byte_steps.push(ByteStep::ThreeDigits),
            _ if mapped => return Err(format!("pre-tokenizer step {split:?} behind ByteLevel")),
            Split::ByteLevel { add_prefix_space, use_regex } => {
                steps.extend(add_prefix_space.then_some(Step::Space));
                steps.extend(use_regex.then_some(Step::Pattern(Pattern::Gpt2)));
                mapped = true;
            }
            Split::Regex(regex) => {
                let pattern = Pattern::from_regex(regex).ok_or_else(|| format!("pre-tokenizer regex {regex}"))?;
                steps.push(Step::Pattern(pattern));
            }
            Split::Digits { individual } => steps.push(Step::Class(char::is_numeric, *individual)),
            Split::Punctuation { individual } => steps.push(Step::Class(is_punctuation, *individual)),
            Split::Metaspace { .. } => return Err("pre-tokenizer with both Metaspace and ByteLevel".into()),
        }
    }
    Ok((steps, byte_steps))
}

/// Punctuation as `tokenizers` understands it, by the tables of the crate that it uses.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || unicode_categories::UnicodeCategories::is_punctuation(character)
}

/// End of the first part of `text` (not empty): one character of the class, a run of them, or a run of others.
fn class_end(text: &str, class: fn(char) -> bool, individual: bool) -> usize {
    let mut characters = text.char_indices();
    let first = characters.next().is_some_and(|(_, character)| class(character));
    if first && individual {
        return characters.next().map_or(text.len(), |(at, _)| at);
    }
    characters.find(|(_, character)| class(*character) != first).map_or(text.len(), |(at, _)| at)
}

fn byte_digits_end(bytes: &[u8], individual: bool) -> usize {
    let is_digit = |byte: &u8| CHARACTERS[usize::from(*byte)].is_numeric();
    let first = is_digit(&bytes[0]);
    if first && individual {
        return 1;
    }
    bytes.iter().position(|byte| is_digit(byte) != first).unwrap_or(bytes.len())
}

fn three_digits_end(bytes: &[u8]) -> usize {
    match bytes.windows(3).position(|three| three.iter().all(u8::is_ascii_digit)) {
        Some(0) => 3,
        Some(at) => at,
        None => bytes.len(),
    }
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
    fn classes() {
        let numeric: fn(char) -> bool = char::is_numeric;
        assert_eq!(class_end("12a", numeric, false), 2);
        assert_eq!(class_end("12a", numeric, true), 1);
        assert_eq!(class_end("ab½", numeric, true), 2);
        assert_eq!(class_end("½", numeric, true), 2);
        assert_eq!(class_end("¿?!a", is_punctuation, false), 4);
        // The byte 0xBD, second of `½`, looks like a digit; the first does not.
        assert_eq!(byte_digits_end("½".as_bytes(), false), 1);
        assert_eq!(byte_digits_end(b"12a", true), 1);
        assert_eq!(three_digits_end(b"12a3456"), 3);
        assert_eq!(three_digits_end(b"3456"), 3);
    }
}
