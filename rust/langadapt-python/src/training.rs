//! Pre-tokenizing and tokenizer training.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use langadapt_core::Error;
use langadapt_core::bpe::byte_level::characters_of;
use langadapt_core::bpe::cutting::Cutting;
use langadapt_core::bpe::normalize::{Form, Step};
use langadapt_core::bpe::tokenizer_json;
use langadapt_core::bpe::train::{
    ByteLevelOptions, Counted, Cutter, Existing, ExtendOptions, NewToken, PieceKind, SentenceOptions,
    SentencePieceOptions, Sentences, TrainedBpe, WordCounts, count_corpus, count_texts, derivations, extend,
    learn_byte_level, learn_parity, learn_sentencepiece, read_counts, write_counts,
};
use langadapt_core::corpus::Inputs;
use langadapt_core::pretokenize::Scanner;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyDict;

use crate::corpus::{Reading, report};
use crate::error::to_python;
use crate::gate;

/// Why the core cannot cut text as these parts of a `tokenizer.json` do; `None` if it can.
#[pyfunction]
pub fn foreign_cutting(normalizer: &str, pre_tokenizer: &str) -> PyResult<Option<String>> {
    Ok(cutter(normalizer, pre_tokenizer)?.err())
}

/// What cuts byte-level text as these parts of a `tokenizer.json` do, or what is foreign about them.
fn cutter(normalizer: &str, pre_tokenizer: &str) -> PyResult<Result<Cutter, String>> {
    let read = |json: &str| serde_json::from_str(json).map_err(|error| PyValueError::new_err(error.to_string()));
    let (normalizer, pre_tokenizer) = (read(normalizer)?, read(pre_tokenizer)?);
    Ok(tokenizer_json::steps(normalizer, pre_tokenizer).and_then(|spec| {
        if spec.prepend || spec.replace {
            return Err("a normalizer for \u{2581} with a byte-level pre-tokenizer".into());
        }
        Ok(Cutter::ByteLevel { normal: spec.normal, cutting: Cutting::new(&spec.splits)? })
    }))
}

/// The 256 characters that stand for bytes in a byte-level vocabulary, in the order of the bytes.
#[pyfunction]
pub fn byte_characters() -> String {
    characters_of(&(0..=255).collect::<Vec<u8>>())
}

fn forms(names: &[String]) -> PyResult<Vec<Step>> {
    let form = |name: &String| match name.as_str() {
        "NFC" => Ok(Form::Nfc),
        "NFD" => Ok(Form::Nfd),
        "NFKC" => Ok(Form::Nfkc),
        "NFKD" => Ok(Form::Nfkd),
        other => Err(PyValueError::new_err(format!("unknown normalization form: `{other}`"))),
    };
    names.iter().map(|name| form(name).map(Step::Form)).collect()
}

/// [`ByteLevelOptions`] by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct ByteLevelSettings {
    vocab_size: usize,
    min_frequency: u64,
    special_tokens: Vec<String>,
    given_tokens: Vec<String>,
    max_token_length: Option<usize>,
    full_alphabet: bool,
    accept_fewer: bool,
}

impl From<ByteLevelSettings> for ByteLevelOptions {
    fn from(named: ByteLevelSettings) -> Self {
        Self {
            vocab_size: named.vocab_size,
            min_frequency: named.min_frequency,
            special_tokens: named.special_tokens,
            given_tokens: named.given_tokens,
            max_token_length: named.max_token_length,
            full_alphabet: named.full_alphabet,
            accept_fewer: named.accept_fewer,
        }
    }
}

/// [`SentencePieceOptions`] by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct SentencePieceSettings {
    vocab_size: usize,
    min_frequency: u64,
    special_tokens: Vec<String>,
    required_chars: String,
    given_tokens: Vec<String>,
    character_coverage: f32,
    byte_fallback: bool,
    max_piece_length: usize,
    accept_fewer: bool,
}

impl From<SentencePieceSettings> for SentencePieceOptions {
    fn from(named: SentencePieceSettings) -> Self {
        Self {
            vocab_size: named.vocab_size,
            min_frequency: named.min_frequency,
            special_tokens: named.special_tokens,
            required_chars: named.required_chars,
            given_tokens: named.given_tokens,
            character_coverage: named.character_coverage,
            byte_fallback: named.byte_fallback,
            max_piece_length: named.max_piece_length,
            accept_fewer: named.accept_fewer,
        }
    }
}

/// [`ExtendOptions`], and what there is to know of the vocabulary, by name.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct ExtendSettings {
    byte_level: bool,
    ignore_merges: bool,
    apart: Vec<u32>,
    new_tokens: usize,
    min_frequency: u64,
    max_token_length: usize,
    accept_fewer: bool,
}

/// Counts words, then learns from the counts.
#[pyclass(module = "langadapt._core", frozen)]
pub struct WordCounter {
    cutter: Cutter,
    max_words: Option<usize>,
    threads: usize,
    counted: Mutex<Counted>,
}

/// A learnt vocabulary. Lists are made when asked for.
#[pyclass(module = "langadapt._core", frozen)]
pub struct TrainedTokens(TrainedBpe);

#[pymethods]
impl TrainedTokens {
    fn __len__(&self) -> usize {
        self.0.pieces.len()
    }

    /// Tokens by id.
    fn tokens(&self) -> Vec<&str> {
        self.0.pieces.iter().map(|piece| piece.text.as_str()).collect()
    }

    /// SentencePiece's scores by id.
    fn scores(&self) -> Vec<f32> {
        self.0.pieces.iter().map(|piece| piece.score).collect()
    }

    /// `"normal"`, `"special"` or `"byte"` by id.
    fn kinds(&self) -> Vec<&'static str> {
        let kind = |kind| match kind {
            PieceKind::Normal => "normal",
            PieceKind::Special => "special",
            PieceKind::Byte => "byte",
        };
        self.0.pieces.iter().map(|piece| kind(piece.kind)).collect()
    }

    /// Pairs of ids, best first.
    fn merges(&self) -> Vec<(u32, u32)> {
        self.0.merges.clone()
    }

    /// The field `vocab` of a `tokenizer.json`.
    fn vocab_json(&self) -> String {
        self.0.vocab_json()
    }

    /// The field `merges` of a `tokenizer.json`.
    fn merges_json(&self) -> String {
        self.0.merges_json()
    }
}

#[pymethods]
impl WordCounter {
    /// A counter of the words of a byte-level tokenizer, by its normalizer and pre-tokenizer as JSON.
    #[staticmethod]
    fn byte_level(normalizer: &str, pre_tokenizer: &str, max_words: Option<usize>, threads: usize) -> PyResult<Self> {
        let cutter = cutter(normalizer, pre_tokenizer)?.map_err(PyValueError::new_err)?;
        Ok(Self { cutter, max_words, threads, counted: Mutex::default() })
    }

    /// A counter of the words of lines.
    #[staticmethod]
    fn sentencepiece(
        py: Python<'_>,
        reserved: Vec<String>,
        normalization: Vec<String>,
        space_in_front: bool,
        max_sentence_length: usize,
        max_words: Option<usize>,
        threads: usize,
    ) -> PyResult<Self> {
        let options = SentenceOptions { max_sentence_length, space_in_front, forms: forms(&normalization)?, reserved };
        let cutter = Cutter::Sentences(Sentences::new(options).map_err(|error| to_python(py, error))?);
        Ok(Self { cutter, max_words, threads, counted: Mutex::default() })
    }

    /// Counts the words of files; the reader's report.
    fn count_files<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<String>,
        reading: Reading,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = reading.options()?;
        let read = gate::run(py, progress, |monitor| {
            let inputs = Inputs::expand(&inputs)?;
            let (counted, report) =
                count_corpus(&inputs, &options, &self.cutter, self.max_words, self.threads, monitor)?;
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).absorb(counted);
            Ok(report)
        })?;
        report(py, &read)
    }

    /// Counts the words of texts.
    fn count_texts(&self, py: Python<'_>, texts: Vec<PyBackedStr>, progress: Option<Py<PyAny>>) -> PyResult<()> {
        gate::run(py, progress, |monitor| {
            let done = self.counted.lock().unwrap_or_else(PoisonError::into_inner).documents;
            monitor.begin("count words", "documents", None);
            monitor.advance(done)?;
            let counted = count_texts(&texts, &self.cutter, self.max_words, self.threads, monitor)?;
            self.counted.lock().unwrap_or_else(PoisonError::into_inner).absorb(counted);
            Ok(())
        })
    }

    /// Adds words that were cut and counted elsewhere; `documents` and `bytes` say of how much text.
    fn add_words(&self, words: Vec<(PyBackedBytes, u64)>, documents: u64, bytes: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.documents += documents;
        counted.bytes += bytes;
        for (word, count) in words.iter().filter(|(word, _)| !word.is_empty()) {
            counted.words.add(word, 0, word.len(), *count);
        }
    }

    /// Adds the words of `other`, which is used up, each so often as `weight` says where own words count `own` times.
    fn absorb_weighted(&self, other: &Self, own: u64, weight: u64) {
        let mut added = std::mem::take(&mut *other.counted.lock().unwrap_or_else(PoisonError::into_inner));
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.words.scale(own);
        added.words.scale(weight);
        counted.absorb(added);
    }

    /// Writes the counts to a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        gate::run(py, None, |monitor| {
            write_counts(&self.counted.lock().unwrap_or_else(PoisonError::into_inner).words, &path, monitor)
        })
    }

    /// Adds the counts of a file, and what is known of their text.
    fn load(&self, py: Python<'_>, path: PathBuf, documents: u64, bytes: u64, too_long: u64) -> PyResult<()> {
        gate::run(py, None, |monitor| {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            read_counts(&path, &mut counted.words, monitor)?;
            counted.documents += documents;
            counted.bytes += bytes;
            counted.omitted.too_long += too_long;
            Ok(())
        })
    }

    /// How many of the different words a regex matches in.
    fn words_with(&self, regex: &str) -> PyResult<u64> {
        let scanner = Scanner::new(regex).map_err(|outside| PyValueError::new_err(outside.to_string()))?;
        let mut found = 0;
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).words.for_each(|word, _| {
            found += u64::from(std::str::from_utf8(word).is_ok() && scanner.is_in(word));
        });
        Ok(found)
    }

    /// What was counted, by name.
    fn summary(&self) -> Vec<(&'static str, u64)> {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        vec![
            ("documents", counted.documents),
            ("bytes", counted.bytes),
            ("words", counted.words.len() as u64),
            ("lines_too_long", counted.omitted.too_long),
            ("lines_reserved", counted.omitted.reserved),
            ("prunings", counted.prunings),
        ]
    }

    /// Learns byte-level merges and uses up the counts.
    fn learn_byte_level(
        &self,
        py: Python<'_>,
        settings: ByteLevelSettings,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<TrainedTokens> {
        let options = settings.into();
        self.learn(py, progress, |words, monitor| learn_byte_level(words, &options, monitor))
    }

    /// The same over the words of `others`, too, each merge for the counter that is worst off.
    fn learn_parity(
        &self,
        py: Python<'_>,
        others: Vec<Py<Self>>,
        settings: ByteLevelSettings,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<TrainedTokens> {
        let options = settings.into();
        let mut languages = Vec::new();
        for other in &others {
            languages.push(other.get().take_words().map_err(|error| to_python(py, error))?);
        }
        self.learn(py, progress, |words, monitor| {
            languages.insert(0, words);
            learn_parity(languages, &options, monitor)
        })
    }

    /// Learns SentencePiece-style pieces and uses up the counts.
    fn learn_sentencepiece(
        &self,
        py: Python<'_>,
        settings: SentencePieceSettings,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<TrainedTokens> {
        let options = settings.into();
        self.learn(py, progress, |words, monitor| learn_sentencepiece(words, &options, monitor))
    }

    /// Learns tokens to add to an existing vocabulary: each with the pair of ids that makes it. Uses up the counts.
    fn extend(
        &self,
        py: Python<'_>,
        tokens: Vec<String>,
        merges: Vec<(u32, u32, u32)>,
        settings: ExtendSettings,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<NewToken>> {
        let ExtendSettings { byte_level, ignore_merges, apart, .. } = settings;
        let existing = Existing { tokens: &tokens, merges: &merges, byte_level, ignore_merges, apart: &apart };
        let options = ExtendOptions {
            new_tokens: settings.new_tokens,
            min_frequency: settings.min_frequency,
            max_token_length: settings.max_token_length,
            accept_fewer: settings.accept_fewer,
        };
        gate::run(py, progress, |monitor| extend(self.take_words()?, &existing, &options, monitor))
    }
}

/// For every wanted token the tokens that an encoder goes through to make it.
#[pyfunction]
pub fn token_derivations(
    py: Python<'_>,
    tokens: Vec<String>,
    merges: Vec<(u32, u32, u32)>,
    wanted: Vec<u32>,
) -> PyResult<Vec<Vec<u32>>> {
    gate::run(py, None, |monitor| derivations(&tokens, &merges, &wanted, monitor))
}

impl WordCounter {
    fn take_words(&self) -> langadapt_core::Result<WordCounts> {
        let words = std::mem::take(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner).words);
        if words.is_empty() {
            return Err(Error::argument("no text to learn from: every document is empty or was left out"));
        }
        Ok(words)
    }

    fn learn(
        &self,
        py: Python<'_>,
        progress: Option<Py<PyAny>>,
        learn: impl FnOnce(WordCounts, &langadapt_core::Monitor) -> langadapt_core::Result<TrainedBpe> + Send,
    ) -> PyResult<TrainedTokens> {
        let result = gate::run(py, progress, |monitor| learn(self.take_words()?, monitor))?;
        Ok(TrainedTokens(result))
    }
}
