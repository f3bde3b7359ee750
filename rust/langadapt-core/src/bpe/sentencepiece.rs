//! Text to pieces for SentencePiece-style tokenizers: a space becomes `▁`, characters without a piece become bytes.
//!
//! These tokenizers have no pre-tokenizer: by the letter a whole document is one word of a million symbols. It need not
//! be merged as one: `cuts` tells where it may be cut without changing a single id. In practice that is before nearly
//! every space, around punctuation and digits, and between scripts. The parts are short, repeat and are remembered
//! ([`Cache`]).
//!
//! The text is never rewritten: a space in it stands for `▁` from the first look-up to the last. Only text that holds a
//! literal `▁` is copied, with spaces in its place, which means the same.

use super::cuts::{CutRules, Cuts};
use super::merges::{Merges, Scratch};
use super::piece_cache::Cache;
use super::spec::{METASPACE, Model, Prepend};
use super::vocab::Vocab;

const NONE: u32 = u32::MAX;

/// How this tokenizer turns text into pieces and pieces into ids.
#[derive(Debug)]
pub struct SentencePiece {
    cuts: Cuts,
    /// Ids of characters below U+10000.
    characters: Vec<u32>,
    /// Ids of `<0x00>` to `<0xFF>`; empty without byte fallback.
    byte_ids: Vec<u32>,
    unknown: Option<u32>,
    fuse_unknown: bool,
    /// Where a space is put in front of a section.
    prepend: Option<Prepend>,
    /// Every space begins a piece, and a piece that is in the vocabulary is taken whole.
    whole_pieces: bool,
    /// A section that is in the vocabulary is taken whole; the longest such piece in bytes.
    whole_sections: Option<usize>,
}

impl SentencePiece {
    /// `prepend` and `split` are those of `Metaspace`, if there is one.
    ///
    /// # Errors
    /// The reason why this model cannot be encoded here.
    pub fn new(
        model: &Model,
        vocab: &Vocab,
        merges: &[(u32, u32, u32)],
        prepend: Option<Prepend>,
        split: bool,
    ) -> Result<Self, String> {
        let byte_ids = if model.byte_fallback == Some(true) { byte_ids(vocab) } else { Vec::new() };
        let unknown = match &model.unk_token {
            None => None,
            Some(token) => {
                Some(vocab.id(token.as_bytes()).ok_or(format!("unk_token {token} is not in the vocabulary"))?)
            }
        };
        let mut made_up = vec![false; vocab.id_limit()];
        byte_ids.iter().filter(|id| **id != NONE).chain(&unknown).for_each(|id| made_up[*id as usize] = true);
        if merges.iter().any(|(left, right, _)| made_up[*left as usize] || made_up[*right as usize]) {
            return Err("a merge joins byte or unknown tokens".into());
        }
        let ignore_merges = model.ignore_merges == Some(true);
        let characters = characters(vocab);
        let whole_pieces = ignore_merges && split;
        let all_bytes = byte_ids.len() == 256 && !byte_ids.contains(&NONE);
        let rules = CutRules {
            everywhere: all_bytes && !whole_pieces,
            // Characters that vanish let their neighbours meet, whatever stands between them in the text.
            before_spaces: characters['▁' as usize] != NONE && (all_bytes || unknown.is_some()),
            before_all_spaces: split,
        };
        Ok(Self {
            cuts: cuts(rules, vocab, merges),
            characters,
            unknown,
            fuse_unknown: model.fuse_unk == Some(true),
            prepend,
            whole_pieces,
            whole_sections: (ignore_merges && !split)
                .then(|| vocab.iter().map(|(piece, _)| piece.len()).max().unwrap_or(0)),
            byte_ids,
        })
    }

    /// Appends the ids of one section of text.
    ///
    /// `space_in_front` says that the normalizer puts a `▁` there, `first` that the section begins the text.
    pub fn encode(
        &self,
        text: &str,
        mut space_in_front: bool,
        first: bool,
        tables: (&Vocab, &Merges),
        cache: &mut Cache,
        out: &mut Vec<u32>,
    ) {
        let replaced;
        let mut text = text;
        if text.contains(METASPACE) {
            replaced = text.replace(METASPACE, " ");
            text = &replaced;
        }
        space_in_front |= match self.prepend {
            Some(Prepend::Always) => !text.starts_with(' '),
            Some(Prepend::First) => first && !text.starts_with(' '),
            Some(Prepend::Never) | None => false,
        };
        let bytes = text.as_bytes();
        if self.whole_sections.is_some_and(|longest| bytes.len() <= longest) {
            let section = if space_in_front { format!(" {text}") } else { text.to_owned() };
            if let Some(id) = tables.0.id(section.replace(' ', METASPACE).as_bytes()) {
                out.push(id);
                return;
            }
        }
        if space_in_front {
            let (first, rest) = text.split_at(self.cuts.first(text.as_bytes(), b' '));
            let mut piece = std::mem::take(&mut cache.text);
            piece.clear();
            piece.push(' ');
            piece.push_str(first);
            cache
                .encode_piece(piece.as_bytes(), out, |_, ids, scratch| self.encode_piece(&piece, tables, ids, scratch));
            cache.text = piece;
            text = rest;
        }
        let bytes = text.as_bytes();
        let mut ends = self.cuts.ends(bytes);
        cache.encode_pieces(
            bytes,
            out,
            |start| (start < bytes.len()).then(|| (start, ends.next())),
            |piece, ids, scratch| self.encode_piece(&text[piece], tables, ids, scratch),
        );
    }

    fn encode_piece(&self, piece: &str, (vocab, merges): (&Vocab, &Merges), ids: &mut Vec<u32>, scratch: &mut Scratch) {
        if self.whole_pieces
            && let Some(id) = vocab.id(piece.replace(' ', METASPACE).as_bytes())
        {
            ids.push(id);
            return;
        }
        self.push_symbols(piece, vocab, ids);
        merges.apply(ids, scratch);
    }

    /// The ids of a piece as the vocabulary writes it.
    pub(super) fn encode_alone(
        &self,
        piece: &str,
        tables: (&Vocab, &Merges),
        ids: &mut Vec<u32>,
        scratch: &mut Scratch,
    ) {
        self.encode_piece(&piece.replace(METASPACE, " "), tables, ids, scratch);
    }

    /// Whether an id is that of the unknown token or of a byte.
    pub(super) fn is_made_otherwise(&self, id: u32) -> bool {
        self.unknown == Some(id) || self.byte_ids.contains(&id)
    }

    /// The characters of a piece as ids; those without one as bytes, or as the unknown token.
    ///
    /// A pending unknown is written before the next known character, not before bytes: `tokenizers` does the same.
    pub(super) fn push_symbols(&self, piece: &str, vocab: &Vocab, ids: &mut Vec<u32>) {
        let mut pending = None;
        let mut buffer = [0; 4];
        for character in piece.chars() {
            let character = if character == ' ' { '▁' } else { character };
            let id = match self.characters.get(character as usize) {
                Some(&id) => id,
                None => vocab.id(character.encode_utf8(&mut buffer).as_bytes()).unwrap_or(NONE),
            };
            if id != NONE {
                ids.extend(pending.take());
                ids.push(id);
                continue;
            }
            let bytes = character.encode_utf8(&mut buffer).as_bytes();
            let known = |byte: &u8| self.byte_ids.get(usize::from(*byte)).is_some_and(|id| *id != NONE);
            if bytes.iter().all(known) {
                ids.extend(bytes.iter().map(|byte| self.byte_ids[usize::from(*byte)]));
            } else if !(self.fuse_unknown && pending.is_some()) {
                ids.extend(pending.take());
                pending = self.unknown;
            }
        }
        ids.extend(pending);
    }
}

fn cuts(rules: CutRules, vocab: &Vocab, merges: &[(u32, u32, u32)]) -> Cuts {
    let mut seen = vec![false; vocab.id_limit()];
    let made = merges.iter().filter(|merge| !std::mem::replace(&mut seen[merge.2 as usize], true));
    Cuts::new(rules, made.map(|merge| vocab.piece(merge.2).unwrap_or_default()))
}

fn byte_ids(vocab: &Vocab) -> Vec<u32> {
    (0..=255u8).map(|byte| vocab.id(format!("<0x{byte:02X}>").as_bytes()).unwrap_or(NONE)).collect()
}

fn characters(vocab: &Vocab) -> Vec<u32> {
    let mut ids = vec![NONE; 1 << 16];
    for (piece, id) in vocab.iter().filter(|(piece, _)| piece.len() <= 4) {
        let mut characters = std::str::from_utf8(piece).unwrap_or_default().chars();
        if let (Some(character), None) = (characters.next(), characters.next())
            && let Some(place) = ids.get_mut(character as usize)
        {
            *place = id;
        }
    }
    ids
}
