//! Unicode normalization forms and replacements, as the `tokenizers` package applies them.
//!
//! Its tables are those of Unicode 9, frozen in the crate that is used here too: with newer tables a few thousand
//! characters (later scripts and emoji modifiers) would come out different, and ids with them.

use std::borrow::Cow;

use unicode_normalization_alignments::{
    IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick,
};

use crate::pretokenize::Scanner;

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

/// A step of a normalizer.
#[derive(Debug)]
pub enum Step {
    /// A Unicode form.
    Form(Form),
    /// Matches of a regex, or a text, replaced.
    Replace {
        /// What goes, as pieces: those that are matches.
        from: Box<Scanner>,
        /// What comes.
        to: String,
    },
}

impl Step {
    /// `text` after this step, borrowed where it stays.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self {
            Self::Form(form) => form.apply(text),
            Self::Replace { from, to } => {
                let (mut replaced, mut copied) = (String::new(), 0);
                from.for_each(text.as_bytes(), |start, end| {
                    replaced.push_str(&text[copied..start]);
                    replaced.push_str(to);
                    copied = end;
                });
                match copied {
                    0 => Cow::Borrowed(text),
                    _ => Cow::Owned(replaced + &text[copied..]),
                }
            }
        }
    }
}

/// `text` after all `steps` in order.
pub fn apply_all<'a>(steps: &[Step], text: &'a str) -> Cow<'a, str> {
    steps.iter().fold(Cow::Borrowed(text), |text, step| match text {
        Cow::Borrowed(text) => step.apply(text),
        Cow::Owned(text) => Cow::Owned(step.apply(&text).into_owned()),
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
        let replace = |from, to: &str| Step::Replace { from: Box::new(Scanner::new(from).unwrap()), to: to.into() };
        assert_eq!(apply_all(&[Step::Form(Form::Nfkd), Step::Form(Form::Nfc)], "ﬁü"), "fiü");
        assert_eq!(
            apply_all(&[replace(r"\s+", "_"), Step::Form(Form::Nfd), replace("u", "")], "ü \n a "),
            "\u{308}_a_"
        );
        assert!(matches!(apply_all(&[replace("x", "y")], "abc"), Cow::Borrowed(_)));
        assert_eq!(apply_all(&[], "ü"), "ü");
    }
}
