"""Tables of a model with a row per token: which parameters they are, and how many rows they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from langadapt.errors import ConfigError, MismatchError
from langadapt.models.lookups import IDS, tables_by_id


@dataclass(frozen=True)
class TokenTables:
    """Parameters with a row per token, by their names in the model."""

    input: str
    """The input matrix."""
    rows: int
    """Its rows."""
    output: str | None
    """The output matrix, where it is one of its own."""
    bias: str | None
    """The output bias."""
    others: dict[str, int]
    """Further tables that token ids index, such as Gemma 3n's per-layer inputs, with their rows."""

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [name for name in (self.input, self.output, *self.others, self.bias) if name is not None]

    def size_keys(self, config: dict[str, Any]) -> list[str]:
        """The keys of a text configuration that hold the number of rows of a table."""
        sizes = {self.rows, *self.others.values()}
        return [key for key, value in config.items() if "vocab_size" in key and type(value) is int and value in sizes]


def padded_size(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple."""
    if multiple < 1:
        raise ConfigError(f"rows cannot be padded to a multiple of {multiple}")
    return -(-size // multiple) * multiple


def check_largest(largest: int, rows: int) -> None:
    """Raise MismatchError for an id without a row, which would be a fault inside a GPU kernel, long after."""
    if largest >= rows:
        raise MismatchError(
            f"the tokenizer gives id {largest}, but the model has {rows} embedding rows; this tokenizer does not "
            "belong to this model"
        )


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


def token_weights(model: Any) -> list[nn.Parameter]:
    """Weights of input and output embeddings, once each (tied ones are one)."""
    found: dict[int, nn.Parameter] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            found[id(weight)] = weight
    return list(found.values())


def body_layers(model: Any, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> dict[str, Any]:
    """Layers of these classes by name, without those whose weight is of tokens."""
    tokens = {id(weight) for weight in token_weights(model)}
    named = model.named_modules()
    return {name: module for name, module in named if isinstance(module, kinds) and id(module.weight) not in tokens}


def find_token_tables(skeleton: Any) -> TokenTables:
    """All tables by token id of a causal LM on the meta device, see :mod:`langadapt.models.lookups`.

    Raises:
        ConfigError: there are no embeddings that can be swapped, or a table that rows cannot be made for: it would keep
            speaking the old vocabulary.
        MismatchError: input and output matrices differ in rows.
    """
    table, head = embedding_modules(skeleton)
    names = {id(tensor): name for name, tensor in skeleton.named_parameters()}
    tied = head is None or head.weight is table.weight
    tables = [table.weight] if tied else [table.weight, head.weight]
    others: dict[str, int] = {}
    found, complete = tables_by_id(skeleton)
    for name, kind in found.items():
        tensor = attribute(skeleton, name)
        if any(tensor is known for known in tables):
            continue
        if kind != IDS or not tensor.is_floating_point() or tensor.dim() != 2 or id(tensor) not in names:
            raise ConfigError(
                f"`{name}` {list(tensor.shape)} is a table by token id for which no rows can be made; "
                f"{type(skeleton).__name__} cannot be swapped; train it with its own tokenizer (`method: keep`)"
            )
        others[names[id(tensor)]] = len(tensor)
    for name in () if complete else similar_tables(skeleton, tables):
        if name not in others:
            raise ConfigError(
                f"`{name}` is another table with a row per token; this model cannot be swapped; train it with its own "
                "tokenizer (`method: keep`)"
            )
    bias = getattr(head, "bias", None)
    return TokenTables(
        names[id(table.weight)],
        len(table.weight),
        None if tied else names[id(head.weight)],
        None if bias is None else names[id(bias)],
        others,
    )


def similar_tables(model: Any, known: list[Tensor]) -> Iterator[str]:
    """Tables as long as the input matrix that are neither of ``known`` nor of positions."""
    for name, module in model.named_modules():
        positions = any(part in name.rsplit(".", 1)[-1] for part in ("pos", "wpe"))
        if isinstance(module, nn.Embedding) and not positions and len(module.weight) == len(known[0]):
            yield from () if any(module.weight is tensor for tensor in known) else (f"{name}.weight",)


def attribute(model: Any, name: str) -> Any:
    """The parameter or buffer of that name."""
    owner, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(owner), leaf)


def count_parameters(model: Any) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
