//! What is asked of a corpus.

use super::sift::Filters;
use super::split::Rule;
use crate::{Error, Result};

/// What is left out and what is set aside.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// Texts left out.
    pub filters: Filters,
    /// Share of the documents set aside for validation, 0 to 1; above 0, at least one document is.
    pub validation_share: f64,
    /// At most so many UTF-8 bytes of text are set aside.
    pub validation_bytes: Option<u64>,
    /// At most so many documents are set aside.
    pub validation_documents: Option<u64>,
    /// Bytes of files that make a block, see [`Inputs::blocks`].
    pub block_bytes: u64,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            filters: Filters::default(),
            validation_share: 0.0,
            validation_bytes: None,
            validation_documents: None,
            block_bytes: 64 << 20,
        }
    }
}

/// Which documents may be set aside.
///
/// # Errors
/// [`Error::Argument`] for a share outside `0.0..=1.0`.
pub(super) fn rule_of(settings: &BuildSettings) -> Result<Rule> {
    let share = settings.validation_share;
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::argument(format!("validation_share: {share} is not in 0..=1")));
    }
    Ok(Rule::new(share, settings.validation_bytes, settings.validation_documents))
}
