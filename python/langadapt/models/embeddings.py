"""Tables of a loaded model with a row per token: where they are, and how many rows they need."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from langadapt.errors import ConfigError, MismatchError


def padded_size(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple."""
    if multiple < 1:
        raise ConfigError(f"rows cannot be padded to a multiple of {multiple}")
    return -(-size // multiple) * multiple


def embedding_modules(model: Any) -> tuple[nn.Embedding, Any]:
    """The table of input rows and the head with the output rows (none where there is no head).

    Raises:
        ConfigError: the model does not say where they are, or they are quantised.
    """
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if table is None or not isinstance(getattr(table, "weight", None), Tensor) or table.weight.dim() != 2:
        raise ConfigError(f"{type(model).__name__} has no table of input embeddings that can be swapped")
    for module in (table, head):
        if module is not None and not module.weight.is_floating_point():
            raise ConfigError(f"the embeddings are stored as {module.weight.dtype}; swap the unquantised model")
    if head is not None and len(head.weight) != len(table.weight):
        raise MismatchError(f"{len(table.weight)} input rows but {len(head.weight)} output rows; they must be as many")
    return table, head


def check_other_tables(model: Any, table: nn.Embedding, head: Any) -> None:
    """Refuse models with further tables of one row per token: they would keep speaking the old vocabulary."""
    for name, module in model.named_modules():
        positions = any(part in name.rsplit(".", 1)[-1] for part in ("pos", "wpe"))
        other = isinstance(module, nn.Embedding) and module not in (table, head) and not positions
        if other and module.num_embeddings == len(table.weight):
            raise ConfigError(f"`{name}` is another table with a row per token; this model cannot be swapped")


def count_parameters(model: Any) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
