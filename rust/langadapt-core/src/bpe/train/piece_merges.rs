//! Ranked merges for a vocabulary that was learnt as scored pieces.

use std::collections::HashMap;

use super::{Piece, PieceKind};
use crate::{Monitor, Result};

/// All ways to put a piece together from two others, in the order in which an encoder should try them: by id of the
/// piece, then by the lengths of the parts. This is how `transformers` turns a SentencePiece model into merges; with
/// ids in the order of scores it makes the same choices as SentencePiece.
///
/// # Errors
/// [`crate::Error::Interrupted`].
pub fn piece_merges(pieces: &[Piece], monitor: &Monitor) -> Result<Vec<(u32, u32)>> {
    let normal = || (0u32..).zip(pieces).filter(|(_, piece)| piece.kind == PieceKind::Normal);
    let ids: HashMap<&str, u32> = normal().map(|(id, piece)| (piece.text.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (_, piece) in normal() {
        monitor.check()?;
        for (cut, _) in piece.text.char_indices().skip(1) {
            let (left, right) = piece.text.split_at(cut);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                merges.push((left, right));
            }
        }
    }
    Ok(merges)
}
