//! The long lists of a `tokenizer.json`, its vocabulary and its merges, without an allocation for every string.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Strings in a row.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<u32>,
}

impl Strings {
    fn end_one<E: Error>(&mut self) -> Result<(), E> {
        let end = u32::try_from(self.text.len()).map_err(|_| E::custom("more than 4 GiB of pieces"))?;
        self.ends.push(end);
        Ok(())
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    fn between(&self, from: usize, to: usize) -> &str {
        &self.text[self.start(from)..self.start(to)]
    }
}

/// Puts a string behind the others.
struct Append<'a>(&'a mut Strings);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a piece")
    }

    fn visit_str<E: Error>(self, piece: &str) -> Result<(), E> {
        self.0.text.push_str(piece);
        self.0.end_one()
    }
}

/// Pieces and ids, in the order of the file.
#[derive(Debug, Default)]
pub struct PieceList {
    pieces: Strings,
    ids: Vec<u32>,
}

impl PieceList {
    /// All pieces with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().enumerate().map(|(at, id)| (self.pieces.between(at, at + 1), *id))
    }
}

impl<'de> Deserialize<'de> for PieceList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces(PieceList);
        impl<'de> Visitor<'de> for Pieces {
            type Value = PieceList;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of pieces to ids")
            }

            fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<PieceList, A::Error> {
                while map.next_key_seed(Append(&mut self.0.pieces))?.is_some() {
                    self.0.ids.push(map.next_value()?);
                }
                Ok(self.0)
            }
        }
        deserializer.deserialize_map(Pieces(PieceList::default()))
    }
}

/// Left and right piece of every merge, in order of rank.
#[derive(Debug, Default)]
pub struct MergeList(Strings);

impl MergeList {
    /// All merges as left piece, right piece and what they make.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str, &str)> {
        let pieces = &self.0;
        (0..pieces.ends.len())
            .step_by(2)
            .map(|at| (pieces.between(at, at + 1), pieces.between(at + 1, at + 2), pieces.between(at, at + 2)))
    }
}

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges(MergeList);
        impl<'de> Visitor<'de> for Merges {
            type Value = MergeList;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<MergeList, A::Error> {
                while list.next_element_seed(Merge(&mut self.0.0))?.is_some() {}
                Ok(self.0)
            }
        }
        deserializer.deserialize_seq(Merges(Self::default()))
    }
}

/// A pair, as a list of two or, in old files, as a line; the line that names the version is left out.
// By hand: an untagged enum would keep a copy of every merge before it looks at it.
struct Merge<'a>(&'a mut Strings);

impl<'de> DeserializeSeed<'de> for Merge<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a pair of pieces")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<(), E> {
        match line.split_once(' ') {
            _ if line.starts_with("#version") => Ok(()),
            Some((left, right)) if !right.contains(' ') => {
                Append(&mut *self.0).visit_str(left)?;
                Append(self.0).visit_str(right)
            }
            _ => Err(E::custom(format!("merge `{line}` is no pair"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let left = list.next_element_seed(Append(&mut *self.0))?;
        let right = list.next_element_seed(Append(self.0))?;
        match (left, right, list.next_element::<IgnoredAny>()?) {
            (Some(()), Some(()), None) => Ok(()),
            _ => Err(A::Error::custom("a merge is no pair")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_with_and_without_escapes() {
        let list: PieceList = serde_json::from_str(r#"{"a": 3, "": 1, "\u2581\"": 2}"#).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [("a", 3), ("", 1), ("▁\"", 2)]);
    }

    #[test]
    fn merges_in_both_spellings() {
        let list: MergeList =
            serde_json::from_str(r##"["#version: 0.2", "a b", ["a ", "\u2581"], ["", "c"]]"##).unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [("a", "b", "ab"), ("a ", "▁", "a ▁"), ("", "c", "c")]);
        assert_eq!(list.iter().len(), 3);
        for wrong in [r#"["a b c"]"#, r#"["ab"]"#, r#"[["a"]]"#, r#"[["a", "b", "c"]]"#, r#"[1]"#, r#"[["a", 1]]"#] {
            assert!(serde_json::from_str::<MergeList>(wrong).is_err(), "{wrong}");
        }
    }
}
