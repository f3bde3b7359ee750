//! [`NativeTokenizer`]: text to ids, identical to Hugging Face `tokenizers` on the same `tokenizer.json`.
//!
//! Two families are done here, SentencePiece-style and byte-level BPE; [`NativeTokenizer::load`] says of any other
//! file why it is none of them. Every text takes the same way: added tokens that match as they are, normalization,
//! added tokens that match normalized text, pieces, merges.
//!
//! Cost: linear in the text, plus n log n in the longest stretch without a cut.
//!
//! ```
//! use langadapt_core::bpe::{Load, NativeTokenizer};
//!
//! let json = r#"{"added_tokens": [], "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
//!     "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": {"type": "BPE", "unk_token": "?",
//!     "vocab": {"?": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4}, "merges": ["▁ a"]}}"#;
//! let Load::Native(tokenizer) = NativeTokenizer::load(json.as_bytes(), "tokenizer.json".as_ref())? else { panic!() };
//! let mut ids = Vec::new();
//! tokenizer.encode_into("b ab", &mut Default::default(), &mut ids);
//! assert_eq!(ids, [3, 4, 3]);
//! # Ok::<(), langadapt_core::Error>(())
//! ```

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::added::{AddedToken, Finder, Section};
use super::byte_level::{ByteLevel, bytes_of};
use super::decode::decode;
use super::merges::{ID_LIMIT, Merges, Scratch};
use super::normalize::{Step, apply_all};
use super::piece_cache::Cache;
use super::sentencepiece::SentencePiece;
use super::spec::{DecodeStep, METASPACE, Prepend, Spec, Split};
use super::tokenizer_json;
use super::vocab::Vocab;
use crate::{Error, Result};

/// What [`NativeTokenizer::load`] made of a file.
#[derive(Debug)]
pub enum Load {
    /// One of the two families.
    Native(Box<NativeTokenizer>),
    /// A sound file of another kind, and what is foreign about it.
    Foreign(String),
}

/// Bytes. The longest pieces of published vocabularies have some hundreds, most of them spaces.
const LONGEST_PIECE: usize = 4096;

#[derive(Debug)]
enum Family {
    SentencePiece(SentencePiece),
    ByteLevel(ByteLevel),
}

impl Family {
    /// Appends what a piece of the vocabulary is cut to before the first merge.
    fn spell(&self, id: u32, vocab: &Vocab, symbols: &mut Vec<u32>) {
        let piece = std::str::from_utf8(vocab.piece(id).unwrap_or_default()).unwrap_or_default();
        match self {
            Self::SentencePiece(family) => family.push_symbols(piece, vocab, symbols),
            Self::ByteLevel(family) => family.push_symbols(&bytes_of(piece).unwrap_or_default(), symbols),
        }
    }
}

/// An exact BPE tokenizer. Immutable: one serves all threads, each with its own [`Cache`].
#[derive(Debug)]
pub struct NativeTokenizer {
    /// Tells caches of different tokenizers apart.
    number: u64,
    vocab: Vocab,
    merges: Merges,
    family: Family,
    normal: Vec<Step>,
    prepend: bool,
    replace: bool,
    added: Vec<AddedToken>,
    added_ids: HashMap<String, u32>,
    /// Added tokens that match text as it is.
    raw: Option<Finder>,
    /// Added tokens that match normalized text.
    normalized: Option<Finder>,
    /// Where spaces become `▁`: finds text that may hold a token of `normalized`, without normalizing it.
    candidates: Option<Finder>,
    decoder: Option<Vec<DecodeStep>>,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl NativeTokenizer {
    /// Builds the tokenizer of a `tokenizer.json`; `path` is named in errors.
    ///
    /// `truncation` and `padding` in the file are ignored: text is never cut short here.
    ///
    /// # Errors
    /// [`Error::Data`] where `tokenizers` would not read the file either.
    pub fn load(json: &[u8], path: &Path) -> Result<Load> {
        let spec = match tokenizer_json::read(json, path)? {
            Ok(spec) => spec,
            Err(reason) => return Ok(Load::Foreign(reason)),
        };
        // Tables go by id: what a few pieces can make them hold is bounded.
        let (count, largest) = spec.model.vocab.iter().fold((0, 0), |(n, largest), (_, id)| (n + 1, id.max(largest)));
        if largest as usize >= ID_LIMIT && largest as usize / 4 >= count {
            let detail = format!("an id of {largest} in a vocabulary of {count} pieces: the file is damaged");
            return Err(Error::data(path, detail));
        }
        let vocab = Vocab::new(spec.model.vocab.iter());
        let merges = resolve_merges(&spec, &vocab).map_err(|detail| Error::data(path, detail))?;
        Ok(match Self::build(spec, vocab, &merges) {
            Ok(tokenizer) => Load::Native(Box::new(tokenizer)),
            Err(reason) => Load::Foreign(reason),
        })
    }

    fn build(mut spec: Spec, vocab: Vocab, merges: &[(u32, u32, u32)]) -> std::result::Result<Self, String> {
        if !vocab.is_one_to_one() || vocab.id(b"").is_some() {
            return Err("the vocabulary has an empty piece or two pieces with one id".into());
        }
        if vocab.id_limit() > ID_LIMIT {
            return Err("the vocabulary is too large".into());
        }
        // Which merge makes a piece is found in n^2 steps.
        if vocab.iter().any(|(piece, _)| piece.len() > LONGEST_PIECE) {
            return Err(format!("a piece is longer than {LONGEST_PIECE} bytes"));
        }
        let family = family(&spec, &vocab, merges)?;
        let added = resolve_added(std::mem::take(&mut spec.added), &vocab)?;
        // A token that is a part of the first character: the rest of that is still the first section for `tokenizers`.
        let first = |split: &Split| matches!(split, Split::Metaspace { prepend: Prepend::First, .. });
        if !spec.normal.is_empty() && added.iter().any(|token| token.normalized) && spec.splits.iter().any(first) {
            return Err("added tokens may be parts of characters, and the first section has a space in front".into());
        }
        let mut this = Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            merges: Merges::new(merges, vocab.id_limit(), |id, symbols| family.spell(id, &vocab, symbols)),
            vocab,
            family,
            normal: spec.normal,
            prepend: spec.prepend,
            replace: spec.replace,
            added_ids: added.iter().map(|token| (token.content.clone(), token.id)).collect(),
            added,
            raw: None,
            normalized: None,
            candidates: None,
            decoder: spec.decoder,
            prefix: spec.prefix,
            suffix: spec.suffix,
        };
        this.build_finders().map_err(|error| error.to_string())?;
        Ok(this)
    }

    fn build_finders(&mut self) -> Result<()> {
        let (normalized, raw): (Vec<AddedToken>, Vec<AddedToken>) =
            self.added.iter().cloned().partition(|token| token.normalized);
        let patterns: Vec<String> = raw.iter().map(|token| token.content.clone()).collect();
        self.raw = Finder::new(raw, &patterns, true)?;
        let patterns: Vec<String> =
            normalized.iter().map(|token| self.normalize(&token.content).into_owned()).collect();
        if patterns.iter().collect::<HashSet<_>>().len() < patterns.len() {
            return Err(Error::argument("two added tokens are the same once normalized"));
        }
        if self.replace {
            // The longest stretch of each pattern that a space or `▁` cannot be part of.
            let parts: Vec<String> = patterns
                .iter()
                .map(|pattern| pattern.split(' ').max_by_key(|part| part.len()).unwrap_or_default().to_owned())
                .collect();
            self.candidates = Finder::new(normalized.clone(), &parts, true)?;
        }
        self.normalized = Finder::new(normalized, &patterns, !self.replace)?;
        Ok(())
    }

    /// `text` as the normalizer leaves it, with spaces where that has `▁` for spaces.
    fn normalize<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = apply_all(&self.normal, text);
        if self.replace && text.contains(METASPACE) {
            text = Cow::Owned(text.replace(METASPACE, " "));
        }
        if self.prepend && !text.is_empty() {
            text = Cow::Owned(format!(" {text}"));
        }
        text
    }

    /// Appends the ids of `text` to `out`, without the special tokens of the template.
    pub fn encode_into(&self, text: &str, cache: &mut Cache, out: &mut Vec<u32>) {
        if cache.owner != self.number {
            cache.clear();
            cache.owner = self.number;
        }
        match &self.raw {
            None if text.is_empty() => {}
            None => self.encode_section(text, true, cache, out),
            Some(finder) => finder.split(text, |section| match section {
                Section::Text(start, end) => self.encode_section(&text[start..end], start == 0, cache, out),
                Section::Token(id) => out.push(id),
            }),
        }
    }

    /// Text between added tokens that match as they are. `first`: it begins the document.
    fn encode_section(&self, text: &str, first: bool, cache: &mut Cache, out: &mut Vec<u32>) {
        let formed = apply_all(&self.normal, text);
        let Some(finder) = &self.normalized else {
            return self.encode_text(&formed, self.prepend, first, cache, out);
        };
        if self.candidates.as_ref().is_some_and(|candidates| !candidates.occurs_in(&formed)) {
            return self.encode_text(&formed, self.prepend, first, cache, out);
        }
        let normalized = self.normalize(text);
        finder.split(&normalized, |section| match section {
            Section::Text(start, end) => {
                self.encode_text(&normalized[start..end], false, first && start == 0, cache, out);
            }
            Section::Token(id) => out.push(id),
        });
    }

    fn encode_text(&self, text: &str, space_in_front: bool, first: bool, cache: &mut Cache, out: &mut Vec<u32>) {
        match &self.family {
            Family::SentencePiece(family) => {
                family.encode(text, space_in_front, first, (&self.vocab, &self.merges), cache, out);
            }
            Family::ByteLevel(family) => family.encode(text, &self.merges, cache, out),
        }
    }

    /// Text of `ids`; ids that stand for nothing are left out.
    ///
    /// `skip_special_tokens` leaves out all tokens marked special. (`tokenizers` 0.23 keeps those that are both special
    /// and normalized by a normalizer that changes them, against what its option says.)
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let tokens = ids.iter().filter(|id| !(skip_special_tokens && self.is_special(**id)));
        decode(self.decoder.as_deref(), tokens.filter_map(|id| self.decoded_token(*id)).collect())
    }

    fn decoded_token(&self, id: u32) -> Option<String> {
        match self.added_token(id) {
            // What was normalized on the way in is decoded from its normalized form.
            Some(token) if token.normalized && self.replace => {
                Some(self.normalize(&token.content).replace(' ', METASPACE))
            }
            Some(token) if token.normalized => Some(self.normalize(&token.content).into_owned()),
            _ => self.id_to_token(id).map(str::to_owned),
        }
    }

    /// The string of an id, as written in the file.
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        match self.added_token(id) {
            Some(token) => Some(&token.content),
            None => self.vocab.piece(id).and_then(|piece| std::str::from_utf8(piece).ok()),
        }
    }

    /// The id of a string, as written in the file.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        let added = self.added_ids.get(token).copied();
        added.or_else(|| self.vocab.id(token.as_bytes()))
    }

    fn added_token(&self, id: u32) -> Option<&AddedToken> {
        self.added.binary_search_by_key(&id, |token| token.id).ok().map(|at| &self.added[at])
    }

    /// Whether an id is marked special.
    pub fn is_special(&self, id: u32) -> bool {
        self.added_token(id).is_some_and(|token| token.special)
    }

    /// Whether an id is that of an added token.
    pub fn is_added(&self, id: u32) -> bool {
        self.added_token(id).is_some()
    }

    /// Whether a piece is the unknown token or stands for a byte.
    pub(super) fn is_made_otherwise(&self, piece: &[u8], id: u32) -> bool {
        match &self.family {
            Family::SentencePiece(family) => family.is_made_otherwise(id),
            Family::ByteLevel(_) => piece == b"<unk>",
        }
    }

    /// The ids of one piece of the vocabulary, as if the text had been cut around it.
    pub(super) fn encode_alone(&self, piece: &str, ids: &mut Vec<u32>, scratch: &mut Scratch) {
        match &self.family {
            Family::SentencePiece(family) => family.encode_alone(piece, (&self.vocab, &self.merges), ids, scratch),
            Family::ByteLevel(family) => family.encode_alone(piece, &self.merges, ids, scratch),
        }
    }

    /// Added tokens by id.
    pub fn added_tokens(&self) -> &[AddedToken] {
        &self.added
    }

    /// One more than the largest id, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.vocab.id_limit().max(self.added.last().map_or(0, |token| token.id as usize + 1))
    }

    /// Ids that the template puts before and behind a text.
    pub fn template(&self) -> (&[u32], &[u32]) {
        (&self.prefix, &self.suffix)
    }

    /// Pieces and ids of the model, without added tokens.
    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    /// Whether pieces of the vocabulary are bytes in disguise (`Ġ` for a space).
    pub fn is_byte_level(&self) -> bool {
        matches!(self.family, Family::ByteLevel(_))
    }
}

fn family(spec: &Spec, vocab: &Vocab, merges: &[(u32, u32, u32)]) -> std::result::Result<Family, String> {
    let sentencepiece = |prepend: Option<Prepend>, split| {
        SentencePiece::new(&spec.model, vocab, merges, prepend, split).map(Family::SentencePiece)
    };
    match spec.splits.as_slice() {
        [] if spec.replace => sentencepiece(None, false),
        [Split::Metaspace { prepend, split }] => sentencepiece(Some(*prepend), *split),
        splits if spec.prepend || spec.replace => Err(format!("a normalizer for ▁ with pre-tokenizer {splits:?}")),
        splits => ByteLevel::new(&spec.model, vocab, splits).map(Family::ByteLevel),
    }
}

/// Merges as ids.
fn resolve_merges(spec: &Spec, vocab: &Vocab) -> std::result::Result<Vec<(u32, u32, u32)>, String> {
    let listed = spec.model.merges.iter();
    let mut merges = Vec::with_capacity(listed.len());
    for (rank, (left, right, made)) in listed.enumerate() {
        let id = |piece: &str| {
            let missing = || format!("merge {}: `{piece}` is not in the vocabulary; the file is damaged", rank + 1);
            vocab.id(piece.as_bytes()).ok_or_else(missing)
        };
        merges.push((id(left)?, id(right)?, id(made)?));
    }
    Ok(merges)
}

/// Added tokens with the ids that `tokenizers` gives them, sorted by id.
///
/// A token that the vocabulary has gets the vocabulary's id, others are numbered on; the ids of the file do not count.
fn resolve_added(tokens: Vec<AddedToken>, vocab: &Vocab) -> std::result::Result<Vec<AddedToken>, String> {
    let mut next = vocab.len() as u32;
    let mut added: Vec<AddedToken> = Vec::with_capacity(tokens.len());
    for mut token in tokens {
        if token.content.is_empty() {
            continue;
        }
        token.id = vocab.id(token.content.as_bytes()).unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        added.push(token);
    }
    added.sort_by_key(|token| token.id);
    if added.windows(2).any(|pair| pair[0].id == pair[1].id) {
        return Err("two added tokens are the same".into());
    }
    let mut contents: Vec<&str> = added.iter().map(|token| token.content.as_str()).collect();
    contents.sort_unstable();
    if contents.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("two added tokens are the same".into());
    }
    Ok(added)
}
