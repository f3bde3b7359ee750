//! How byte-level text becomes words: the steps of a pre-tokenizer, put together for one pass.
//!
//! Steps that come after `ByteLevel` see the characters that stand for bytes, not the text: there `Digits` also splits
//! at bytes whose stand-ins are `²³¹¼½¾`. What they cut depends on the word alone, so words are remembered or counted
//! before these steps.

use super::alphabet::CHARACTERS;
use super::spec;
use crate::pretokenize::{Behavior, Outside, Pattern, Split, Steps};

/// Cuts text into words.
#[derive(Debug, Default)]
pub struct Cutting {
    /// Before a space is put in front of what does not begin with one; none = no space is.
    spaced: Option<Steps>,
    /// On the text.
    words: Steps,
    /// On the characters of a word's bytes.
    within: Steps,
}

impl Cutting {
    /// The steps of a pre-tokenizer, of which one is `ByteLevel`.
    ///
    /// # Errors
    /// The reason why they are not for here.
    pub fn new(splits: &[spec::Split]) -> Result<Self, String> {
        let (mut this, mut mapped) = (Self::default(), false);
        for split in splits {
            match split {
                spec::Split::ByteLevel { .. } if mapped => return Err("two pre-tokenizers of type ByteLevel".into()),
                spec::Split::ByteLevel { add_prefix_space, use_regex } => {
                    if *add_prefix_space {
                        this.spaced = Some(std::mem::take(&mut this.words));
                    }
                    if *use_regex {
                        this.words.0.push(compiled(Split::new(Pattern::Gpt2.regex(), Behavior::Isolated, false), "")?);
                    }
                    mapped = true;
                }
                other if mapped => this.within.0.push(step(other)?.over(*CHARACTERS)),
                other => this.words.0.push(step(other)?),
            }
        }
        this.words = this.words.fused();
        if mapped { Ok(this) } else { Err(format!("pre-tokenizer {splits:?} without ByteLevel or Metaspace")) }
    }

    /// Cuts by a regex alone.
    ///
    /// # Errors
    /// What in the regex is outside the subset.
    pub fn by(regex: &str) -> Result<Self, Outside> {
        let words = Steps(vec![Split::new(regex, Behavior::Isolated, false)?]);
        Ok(Self { words, ..Self::default() })
    }

    /// Calls `section` with every stretch of text that [`Cutting::words`] is for.
    #[inline]
    pub fn each_section(&self, text: &str, mut section: impl FnMut(&str)) {
        let Some(before) = &self.spaced else { return section(text) };
        before.for_each(text.as_bytes(), |from, to| match &text[from..to] {
            spaced if spaced.starts_with(' ') => section(spaced),
            other => section(&format!(" {other}")),
        });
    }

    /// The steps that cut a section into words.
    pub fn words(&self) -> &Steps {
        &self.words
    }

    /// The steps that cut the bytes of a word.
    pub fn within(&self) -> &Steps {
        &self.within
    }
}

fn step(split: &spec::Split) -> Result<Split, String> {
    let isolated = |individual: bool| if individual { Behavior::Isolated } else { Behavior::Contiguous };
    let too_large = || format!("pre-tokenizer {split:?} is too large to compile");
    match split {
        spec::Split::At { at: spec::Target::Regex(regex), behavior, invert } => {
            compiled(Split::new(regex, *behavior, *invert), regex)
        }
        spec::Split::At { at: spec::Target::Text(text), behavior, invert } => {
            Split::at_text(text, *behavior, *invert).ok_or_else(too_large)
        }
        spec::Split::Digits { individual } => {
            Split::at_characters(char::is_numeric, isolated(*individual)).ok_or_else(too_large)
        }
        spec::Split::Punctuation(behavior) => Split::at_characters(is_punctuation, *behavior).ok_or_else(too_large),
        spec::Split::Metaspace { .. } => Err("pre-tokenizer with both Metaspace and ByteLevel".into()),
        spec::Split::ByteLevel { .. } => Err("two pre-tokenizers of type ByteLevel".into()),
    }
}

fn compiled(split: Result<Split, Outside>, regex: &str) -> Result<Split, String> {
    split.map_err(|outside| format!("{outside} of the regex {regex}"))
}

/// Punctuation as `tokenizers` understands it, by the tables of the crate that it uses.
fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || unicode_categories::UnicodeCategories::is_punctuation(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_characters_are_neither_number_nor_punctuation() {
        assert!(('\u{32400}'..=char::MAX).all(|c| !c.is_numeric() && !is_punctuation(c)));
    }
}
