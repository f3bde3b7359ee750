//! Unicode normalization forms, as the `tokenizers` package applies them.
//!
//! Its tables are those of Unicode 9, frozen in the crate that is used here too: with newer tables a few thousand
//! characters (later scripts and emoji modifiers) would come out different, and ids with them.

use std::borrow::Cow;

use unicode_normalization_alignments::{
    IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick,
};

/// A Unicode normalization form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Form {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl Form {
    /// `text` in this form, borrowed where it already is.
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        if text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let answer = match self {
            Self::Nfc => is_nfc_quick(text.chars()),
            Self::Nfd => is_nfd_quick(text.chars()),
            Self::Nfkc => is_nfkc_quick(text.chars()),
            Self::Nfkd => is_nfkd_quick(text.chars()),
        };
        if answer == IsNormalized::Yes {
            return Cow::Borrowed(text);
        }
        Cow::Owned(match self {
            Self::Nfc => text.nfc().map(|(character, _)| character).collect(),
            Self::Nfd => text.nfd().map(|(character, _)| character).collect(),
            Self::Nfkc => text.nfkc().map(|(character, _)| character).collect(),
            Self::Nfkd => text.nfkd().map(|(character, _)| character).collect(),
        })
    }
}

/// `text` after all `forms` in order.
pub fn apply_all<'a>(forms: &[Form], text: &'a str) -> Cow<'a, str> {
    forms.iter().fold(Cow::Borrowed(text), |text, form| match text {
        Cow::Borrowed(text) => form.apply(text),
        Cow::Owned(text) => Cow::Owned(form.apply(&text).into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(Form::Nfc.apply("u\u{308}ber"), "über");
        assert!(matches!(Form::Nfc.apply("über"), Cow::Borrowed(_)));
        assert_eq!(Form::Nfkc.apply("ﬁ²"), "fi2");
        assert_eq!(apply_all(&[Form::Nfkd, Form::Nfc], "ﬁü"), "fiü");
        assert_eq!(apply_all(&[], "ü"), "ü");
    }
}
