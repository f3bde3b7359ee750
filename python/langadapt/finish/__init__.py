"""From an adapted base model to one that chats: what an instruct model learnt, added to the weights.

:func:`finish_folder` works on files: tensors are streamed, no model is ever in memory unless scales are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.finish.files import finish_folder

__all__ = ["finish_folder"]

_HOMES = {"langadapt.finish.files": ("finish_folder",)}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
