//! Python bindings: conversions only.
//!
//! | file | concern |
//! |---|---|
//! | `gate.rs` | the one way into long work: detach from Python, poll for Ctrl-C, report progress, map errors |
//! | `corpus.rs` | documents for Python, reports |
//! | `error.rs` | core errors to Python exceptions |
//! | `feed.rs` | work on documents out of files or a Python iterator |
//! | `fertility.rs` | token counts of corpora |
//! | `hash.rs` | fingerprints |
//! | `store.rs` | writing token stores |
//! | `tokenizer.rs` | the native tokenizer |
//! | `training.rs` | pre-tokenizing and tokenizer training |
//! | `vectors.rs` | CBOW, weights of FOCUS |

mod corpus;
mod error;
mod feed;
mod fertility;
mod gate;
mod hash;
mod store;
mod tokenizer;
mod training;
mod vectors;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::corpus::{DocumentReader, build_corpus, expand_inputs};
    #[pymodule_export]
    use crate::fertility::{count_tokens, token_surfaces};
    #[pymodule_export]
    use crate::hash::{hash_bytes, hash_file};
    #[pymodule_export]
    use crate::store::PyStoreWriter;
    #[pymodule_export]
    use crate::tokenizer::PyTokenizer;
    #[pymodule_export]
    use crate::training::{
        TrainedTokens, WordCounter, byte_characters, pretokenize, pretokenize_patterns, token_derivations,
    };
    #[pymodule_export]
    use crate::vectors::{sparsemax_weights, train_cbow};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::error::quiet_panics();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
