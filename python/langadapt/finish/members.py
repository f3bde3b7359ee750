"""The models that take part: the adapted one, its base, and an instruct model of that base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.skeleton import LoadedNames, loaded_names
from langadapt.models.weights import DTYPES, Entry, read_elements
from langadapt.swap.files import StoredModel, read_model
from langadapt.tokenizer.encoder import Tokenizer

SAMPLE = 1 << 16
"""Leading elements of each matrix by which models are compared."""
LEAST_COSINE = {"instruct": 0.5, "adapted": 0.2}
"""Between a base and what was trained from it, over all matrices. Instruct models stay above 0.9; models that were
drawn apart from each other are at 0. Continued pretraining of a small model may go far."""
NAMED = 3
"""Tensors that an error names."""


@dataclass(frozen=True)
class Member:
    """One model on disk, its tensors by the names that the model's class gives them."""

    folder: Path
    stored: StoredModel

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return Tokenizer.from_pretrained(self.folder)

    @cached_property
    def keys(self) -> dict[str, str]:
        """Name in the model to name in the files; of a tied table that is stored twice, the last one."""
        return {name: key for key, name in self.names.items()}

    @cached_property
    def names(self) -> dict[str, str]:
        """Name in the files to name in the model; the same where loading computes with a tensor, or skips it."""
        return {key: self.stored.names.get(key) or self.loaded.same.get(key, key) for key in self.stored.entries}

    @cached_property
    def loaded(self) -> LoadedNames:
        """What transformers makes of the files' names."""
        return loaded_names(self.stored.skeleton, self.stored.entries)

    def entry(self, name: str) -> Entry:
        """A tensor by its name in the model."""
        return self.stored.entries[self.keys[name]]

    @cached_property
    def body(self) -> dict[str, Entry]:
        """All floating tensors without a row per token; those that loading skips, such as buffers that older releases
        stored, are in one model's files and not in another's."""
        tables, read = self.stored.tables.names, self.loaded.same.keys() | self.loaded.computed
        named = ((self.names[key], entry) for key, entry in self.stored.entries.items() if key in read)
        return {name: entry for name, entry in named if name not in tables and entry.dtype in DTYPES}


def open_member(folder: Path, *, trust_remote_code: bool = False) -> Member:
    """A model in its folder.

    Raises:
        DataError, ConfigError: see :func:`langadapt.swap.files.read_model`.
    """
    return Member(folder, read_model(folder, trust_remote_code))


def check_kin(base: Member, other: Member, role: str) -> None:
    """Make sure that ``other`` was trained from ``base``.

    Args:
        base: the base model.
        other: a model that is said to be made from it.
        role: ``instruct`` or ``adapted``.

    Raises:
        ConfigError: tensors of other names or shapes, or weights that have nothing to do with each other; names them.
        DataError: weights that are not finite.
    """
    differing = list(differences(base, other))
    if differing:
        shown = "; ".join(differing[:NAMED]) + (f"; and {len(differing) - NAMED} more" if differing[NAMED:] else "")
        raise ConfigError(f"{other.folder}: not made from {base.folder}: {shown}")
    if (base.stored.tables.output is None) != (other.stored.tables.output is None):
        raise ConfigError(f"{other.folder}: not made from {base.folder}: only one of them has an output matrix apart")
    alike = {name: products(base.body[name], other.body[name]) for name in base.body if len(base.body[name].shape) > 1}
    damaged = next((name for name, sums in alike.items() if not sums.isfinite().all()), None)
    if damaged is not None:
        raise DataError(
            f"`{damaged}` of {base.folder} or {other.folder} holds numbers that are not finite; get it again"
        )
    whole = sum(alike.values(), torch.zeros(3, dtype=torch.float64))
    if alike and cosine(whole) < LEAST_COSINE[role]:
        least = sorted(alike, key=lambda name: cosine(alike[name]))[:NAMED]
        shown = ", ".join(f"`{name}` ({cosine(alike[name]):.2f})" for name in least)
        raise ConfigError(
            f"{other.folder}: not made from {base.folder}: their weights point elsewhere, least alike (cosine): {shown}"
        )


def differences(base: Member, other: Member) -> Iterator[str]:
    """Tensors that only one of two models has, or that have another shape."""
    for name in sorted(base.body.keys() | other.body.keys()):
        if name not in base.body or name not in other.body:
            yield f"`{name}` is only in {(other if name not in base.body else base).folder.name}"
        elif base.body[name].shape != other.body[name].shape:
            yield f"`{name}` is {list(base.body[name].shape)} in the one, {list(other.body[name].shape)} in the other"


def products(one: Entry, other: Entry) -> Tensor:
    """Of the first elements of two tensors: <one, other>, <one, one>, <other, other>, float64."""
    count = min(SAMPLE, one.size)
    if count == 0:
        return torch.zeros(3, dtype=torch.float64)
    a, b = (read_elements(entry, 0, count).double() for entry in (one, other))
    return torch.stack([a @ b, a @ a, b @ b])


def cosine(sums: Tensor) -> float:
    """From what :func:`products` gives; two tensors of zeros are alike."""
    norms = float((sums[1] * sums[2]).sqrt())
    return float(sums[0]) / norms if norms > 0 else 1.0


def check_width(base: Member, other: Member) -> None:
    """Raise MismatchError where rows of two models are of different width."""
    widths = [member.stored.input.shape[1] for member in (base, other)]
    if widths[0] != widths[1]:
        raise MismatchError(f"rows of {base.folder} are {widths[0]} wide, those of {other.folder} {widths[1]}")
