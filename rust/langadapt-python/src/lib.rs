//! Python bindings: conversions only.
//!
//! | file | concern |
//! |---|---|
//! | `gate.rs` | the one way into long work: detach from Python, poll for Ctrl-C, report progress, map errors |
//! | `adamw.rs` | the optimizer's step on a CPU |
//! | `corpus.rs` | documents for Python, reports |
//! | `error.rs` | core errors to Python exceptions |
//! | `feed.rs` | work on documents out of files or a Python iterator |
//! | `fertility.rs` | token counts of corpora |
//! | `hash.rs` | fingerprints |
//! | `language.rs` | whether a text is in the language of a corpus |
//! | `memory.rs` | what happens where the system refuses memory |
//! | `store.rs` | writing token stores |
//! | `tokenizer.rs` | the native tokenizer |
//! | `training.rs` | tokenizer training |
//! | `vectors.rs` | CBOW, weights of FOCUS |
//! | `words.rs` | pre-tokenizing, files of word counts |

mod adamw;
mod corpus;
mod error;
mod feed;
mod fertility;
mod gate;
mod hash;
mod language;
mod memory;
mod simplex;
mod store;
mod tokenizer;
mod training;
mod vectors;
mod words;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::adamw::{adamw_step, square_sums};
    #[pymodule_export]
    use crate::corpus::{DocumentReader, build_corpus, build_part, expand_inputs, join_corpus};
    #[pymodule_export]
    use crate::fertility::{count_tokens, token_surfaces};
    #[pymodule_export]
    use crate::hash::{hash_bytes, hash_file};
    #[pymodule_export]
    use crate::language::PyLanguage;
    #[pymodule_export]
    use crate::simplex::{sparsemax, sparsemax_gradient};
    #[pymodule_export]
    use crate::store::PyStoreWriter;
    #[pymodule_export]
    use crate::tokenizer::PyTokenizer;
    #[pymodule_export]
    use crate::training::{TrainedTokens, WordCounter, byte_characters, foreign_cutting, token_derivations};
    #[pymodule_export]
    use crate::vectors::{choose_snippets, sparsemax_weights, train_cbow};
    #[pymodule_export]
    use crate::words::{merge_counts, pretokenize, pretokenize_patterns};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::error::quiet_panics();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
