"""A :class:`langadapt.Tokenizer` out of any of the forms in which callers have one."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from langadapt.errors import ConfigError
from langadapt.tokenizer.encoder import Tokenizer


def open_tokenizer(source: Any, argument: str = "tokenizer") -> Tokenizer:
    """Open ``source``.

    Args:
        source: a :class:`Tokenizer`, a fast tokenizer of transformers, a ``tokenizers.Tokenizer``, or the folder, file
            or hub id of one.
        argument: what it is called where it was passed, for the error.

    Raises:
        ConfigError: something else.
        DataError, FileNotFoundError: see :meth:`Tokenizer.from_pretrained`.
    """
    if isinstance(source, Tokenizer):
        return source
    if isinstance(source, str | os.PathLike):
        return Tokenizer.from_pretrained(os.fspath(source))
    if hasattr(source, "backend_tokenizer") and hasattr(source, "save_pretrained"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_pretrained(folder)
            opened = Tokenizer.from_pretrained(folder)
        # Not by the name of that folder, which differs from run to run.
        opened.name = getattr(source, "name_or_path", "") or argument
        return opened
    if hasattr(source, "to_str"):
        return Tokenizer(source.to_str().encode(), name=argument)
    kind = type(source).__name__
    raise ConfigError(f"{argument}: {kind}; give a path, a Tokenizer, or a fast tokenizer of transformers")
