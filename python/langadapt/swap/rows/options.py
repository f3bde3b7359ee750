"""Everything that may be chosen about a swap, in one object that is checked where it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from langadapt.checks import seed_fits
from langadapt.errors import ConfigError, nearest
from langadapt.swap.rows.names import METHODS

RENAMED = {"calibrate": "scale_rows"}
"""Keywords of earlier releases, which are still taken."""


@dataclass(frozen=True, eq=False)
class SwapOptions:
    """Options of :func:`langadapt.swap_tokenizer`, :func:`langadapt.swap_folder` and
    :func:`langadapt.initialize_embeddings`, which take them as keywords."""

    method: str = "focus"
    """How new rows are made, see :mod:`langadapt.swap.rows.initialize`."""
    output_method: str | None = None
    """The same for the output matrix, where it is another one; none = ``method``."""
    vectors: Any = None
    """float32 ``[target vocabulary, dim]``, array or tensor, where the method needs them; a zero row means "no vector".
    For a folder, a file of ``save_vectors`` will do."""
    seed: int = 0
    """Of the draws."""
    pad_to_multiple_of: int = 128
    """Rows are rounded up to this, and the padding is filled like rows without an anchor."""
    scale_rows: bool = False
    """Scale combined rows to the mean norm of the copied ones."""
    fuzzy: bool = False
    """Match tokens up to case and leading space, too."""
    weighting: str = "uniform"
    """Of ``subword_mean``: ``uniform``, or ``characters``: by the pieces' lengths."""
    counts: Any = None
    """``[target vocabulary]``: how often each target token occurs, for ``zipf`` and the report; none = by id, whose
    order is that of merges and so roughly that of frequency."""
    source_counts: Any = None
    """Likewise for source tokens."""
    source_vectors: Any = None
    """Of ``wechsel``: float32 ``[source vocabulary, dim]`` in the space of ``vectors`` (see
    :func:`langadapt.swap.rows.wechsel.aligned_token_vectors`)."""
    helper_rows: Any = None
    """Of ``clp``: ``[target vocabulary, any]``: input embeddings of a model with the target tokenizer."""
    neighbours: int = 10
    """Of ``wechsel``: source tokens per target token."""
    temperature: float = 0.1
    """Of ``wechsel``: of the softmax."""
    learnt_rows: Any = None
    """Of ``distill``: what :func:`langadapt.swap.distill.distil_rows` gives."""
    logit_shift: Any = None
    """What :func:`langadapt.swap.frequencies.fit_frequencies` gives: added to rows of new tokens that make logits."""
    atoms: int | None = None
    """Of ``omp``: shared tokens per new token, see :func:`langadapt.swap.rows.omp.plan_omp`."""
    ridge: float = 1.0
    """Of ``omp``: how far large coefficients are held back, see :mod:`langadapt.swap.rows.omp`."""

    def __post_init__(self) -> None:
        seed_fits(self.seed)
        for method in (self.method, self.output_method or self.method):
            if method not in METHODS:
                raise ConfigError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
        if self.weighting not in ("uniform", "characters"):
            raise ConfigError(f"unknown weighting {self.weighting!r}; there are uniform and characters")
        if self.pad_to_multiple_of < 1:
            raise ConfigError(f"rows cannot be padded to a multiple of {self.pad_to_multiple_of}")

    def updated(self, keywords: Mapping[str, Any]) -> SwapOptions:
        """These options with some others.

        Raises:
            ConfigError: an option that there is not, with the nearest one; or a value that cannot be.
        """
        names = [field.name for field in fields(self)]
        changes = {RENAMED.get(name, name): value for name, value in keywords.items()}
        for name in changes:
            if name not in names:
                near = nearest(name, names)
                raise ConfigError(
                    f"unknown option `{name}` of a swap; "
                    + (f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}")
                )
        return replace(self, **changes)

    @property
    def start(self) -> str:
        """What ``distill`` begins with."""
        return "subword_mean" if self.vectors is None else "focus"

    @property
    def methods(self) -> tuple[str, str]:
        """Of the input and of the output matrix."""
        return self.method, self.output_method or self.method


DEFAULTS = SwapOptions()
