//! Filters that look at one text alone; they run on the workers.

use std::sync::Arc;

use regex::Regex;

use super::language::{Judged, Language};
use super::repetition::{RepetitionLimits, is_within};
use crate::words::{Word, hashes};
use crate::{Error, Monitor, Result};

/// Which texts are left out. Nothing is by default.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// Texts with fewer characters.
    pub min_chars: Option<u64>,
    /// Texts with more characters.
    pub max_chars: Option<u64>,
    /// Texts in which this pattern finds nothing.
    pub keep_pattern: Option<Regex>,
    /// Texts in which this pattern finds something.
    pub drop_pattern: Option<Regex>,
    /// Texts of another language or script.
    pub language: Option<Arc<Language>>,
    /// Texts that repeat themselves.
    pub repetition: Option<RepetitionLimits>,
    /// Texts that occurred before.
    pub exact_duplicates: bool,
    /// Texts that resemble an earlier one.
    pub near_duplicates: bool,
}

/// Texts left out, by the first filter that spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Too few characters.
    pub too_short: u64,
    /// Too many characters.
    pub too_long: u64,
    /// By one of the patterns.
    pub pattern: u64,
    /// Of another language.
    pub foreign: u64,
    /// Of another script.
    pub script: u64,
    /// Repeats itself.
    pub repetition: u64,
    /// Occurred before.
    pub exact_duplicate: u64,
    /// Resembles an earlier text.
    pub near_duplicate: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.by_name().iter().map(|&(_, count)| count).sum()
    }

    /// Each filter that spoke, by name.
    pub fn by_name(&self) -> [(&'static str, u64); 8] {
        [
            ("too_short", self.too_short),
            ("too_long", self.too_long),
            ("pattern", self.pattern),
            ("foreign", self.foreign),
            ("script", self.script),
            ("repetition", self.repetition),
            ("exact_duplicate", self.exact_duplicate),
            ("near_duplicate", self.near_duplicate),
        ]
    }

    pub(super) fn describe(&self) -> String {
        let spoke = self.by_name().into_iter().filter(|&(_, count)| count > 0);
        spoke.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.too_short += other.too_short;
        self.too_long += other.too_long;
        self.pattern += other.pattern;
        self.foreign += other.foreign;
        self.script += other.script;
        self.repetition += other.repetition;
        self.exact_duplicate += other.exact_duplicate;
        self.near_duplicate += other.near_duplicate;
    }
}

impl Filters {
    /// A pattern from its text.
    ///
    /// # Errors
    /// [`Error::Argument`] with the place of the mistake.
    pub fn pattern(text: &str) -> Result<Regex> {
        Regex::new(text).map_err(|error| Error::argument(format!("pattern `{text}`: {error}")))
    }

    /// Lower-cased words of a text that passes, where a later filter needs them; `None` for a text left out.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(super) fn sift(&self, text: &str, dropped: &mut Dropped, monitor: &Monitor) -> Result<Option<Vec<Word>>> {
        if self.min_chars.is_some() || self.max_chars.is_some() {
            let characters = text.chars().count() as u64;
            if self.min_chars.is_some_and(|least| characters < least) {
                dropped.too_short += 1;
                return Ok(None);
            }
            if self.max_chars.is_some_and(|most| characters > most) {
                dropped.too_long += 1;
                return Ok(None);
            }
        }
        let lacks = self.keep_pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text));
        if lacks || self.drop_pattern.as_ref().is_some_and(|pattern| pattern.is_match(text)) {
            dropped.pattern += 1;
            return Ok(None);
        }
        match self.language.as_ref().map(|language| language.judge(text)) {
            Some(Judged::Foreign) => dropped.foreign += 1,
            Some(Judged::Script) => dropped.script += 1,
            _ => return self.sift_words(text, dropped, monitor),
        }
        Ok(None)
    }

    /// What looks at words.
    fn sift_words(&self, text: &str, dropped: &mut Dropped, monitor: &Monitor) -> Result<Option<Vec<Word>>> {
        let found =
            if self.repetition.is_some() || self.near_duplicates { hashes(text, true, monitor)? } else { Vec::new() };
        if let Some(limits) = &self.repetition
            && !is_within(text, &found, limits, monitor)?
        {
            dropped.repetition += 1;
            return Ok(None);
        }
        Ok(Some(found))
    }
}
