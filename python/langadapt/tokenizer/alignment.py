"""Where two tokenizers cut the same text alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langadapt.tokenizer.vocabulary import Vocabulary

Integers = NDArray[np.int64]

SPACE = np.frombuffer(b" \n\t\r", np.uint8)


@dataclass(frozen=True)
class Cuts:
    """A text in old tokens, and the cuts that both have inside of it: ``new[i]`` and ``old[i]`` are the tokens before
    cut ``i``."""

    tokens: Integers
    """Old tokens of the text."""
    new: Integers
    """Places in the new tokens."""
    old: Integers
    """Places in ``tokens``."""
    before_word: NDArray[np.bool_]
    """White space stands on one side of the cut."""


class Alignment:
    """Two vocabularies, the old one's of a model, the new one's of a text."""

    def __init__(self, old: Vocabulary, new: Vocabulary) -> None:
        self.old, self.new = old, new
        self.lengths = [np.array([len(text) for text in which.texts], np.int64) for which in (old, new)]

    def cuts(self, ids: Integers) -> Cuts | None:
        """Cuts inside the text that the new tokens ``ids`` spell; none where they are no whole characters, or where the
        old tokenizer would change the text."""
        text = b"".join(self.new.texts[token] for token in ids)
        try:
            spelt = self.spelt(text.decode())
        except UnicodeDecodeError:
            return None
        if spelt is None:
            return None
        tokens, more = spelt
        ends, places = np.cumsum(self.lengths[0][tokens]) - more, np.cumsum(self.lengths[1][ids])
        # Of several places between the same bytes, as tokens without text make them, the last is the cut.
        at = np.searchsorted(ends, places, side="right") - 1
        shared = (places > 0) & (places < len(text)) & (at >= 0)
        shared[shared] = ends[at[shared]] == places[shared]
        shared[:-1] &= places[:-1] != places[1:]
        new = np.flatnonzero(shared)
        white = np.isin(np.frombuffer(text, np.uint8), SPACE)
        return Cuts(tokens, new, at[new], white[places[new] - 1] | white[places[new]])

    def spelt(self, text: str) -> tuple[Integers, int] | None:
        """Old tokens of a text, and how many bytes they have before it: some tokenizers set a space first."""
        for tried in (text, text.removeprefix(" ")):
            ids = self.old.tokenizer.encode(tried).astype(np.int64)
            spelling = b"".join(self.old.texts[token] for token in ids)
            for more in (0, 1):
                if len(ids) and spelling == b" " * more + text.encode():
                    return ids, more
        return None
