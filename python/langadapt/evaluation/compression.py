"""What a general-purpose compressor makes of a text: a line that any language model should be below."""

from __future__ import annotations

import lzma
from collections.abc import Iterable

MOST_BYTES = 4_000_000
"""Text that is compressed, at most: about two seconds."""


def xz_bits_per_byte(texts: Iterable[str]) -> float | None:
    """Bits that ``xz -6`` (LZMA2) needs per UTF-8 byte of ``texts``, put together with a newline between them.

    The first :data:`MOST_BYTES` bytes are compressed in one piece. A compressor knows no language before it begins, and
    learns as it goes: the longer the text, the better it gets. None for no text.
    """
    compressor = lzma.LZMACompressor(preset=6)
    size = packed = 0
    for text in texts:
        data = (text + "\n").encode()[: MOST_BYTES - size]
        size += len(data)
        packed += len(compressor.compress(data))
        if size >= MOST_BYTES:
            break
    return 8 * (packed + len(compressor.flush())) / size if size else None
