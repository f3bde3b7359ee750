"""Which tensors of a model token ids index, found by use: the model runs on the meta device, where nothing is computed.

Names and sizes would mislead: a table by token id may have fewer rows than the vocabulary (per-layer inputs of
Gemma 3n), be no ``nn.Embedding`` (experts by token in DeepSeek V4), or be read at hashes of ids (BLT).
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

IDS, COMPUTED = "ids", "computed"
"""What a table is read at: token ids themselves, or numbers computed from them."""
READS = ("embedding", "index", "index_select", "gather", "_embedding_bag")
MOVES = re.compile(
    r"_?(unsafe_)?view|reshape|flatten|expand|slice|select|index|where|cat|stack|split|unbind|unsqueeze|squeeze|permute|"
    r"transpose|t|clone|detach|alias|_to_copy|copy_|lift_fresh|clamp(_min|_max)?|masked_fill_?|constant_pad_nd"
)
"""Operations after which ids are still ids."""
SHAPES = ("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")
"""Operations that only ask for a shape."""


class Lookups(TorchDispatchMode):
    """Follows token ids through integer tensors to the tensors that they index."""

    def __init__(self, ids: Tensor) -> None:
        super().__init__()
        self.kinds = {id(ids): IDS}
        self.alive: list[Any] = [ids]
        self.reads: list[tuple[Tensor, str]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``function``; questions about values, which meta tensors cannot answer, are answered with one."""
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense":
            return 1.0 if args[0].is_floating_point() else args[0].dtype == torch.bool or 1
        if name == "nonzero":
            return torch.zeros((1, args[0].dim()), dtype=torch.int64, device="meta")
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = {self.kinds[id(tensor)] for tensor in tensors if id(tensor) in self.kinds}
        if kinds:
            if name in READS and id(tensors[0]) not in self.kinds:
                self.reads.append((tensors[0], COMPUTED if COMPUTED in kinds else IDS))
            elif name not in SHAPES:
                self.follow(result, IDS if MOVES.fullmatch(name) and COMPUTED not in kinds else COMPUTED)
        return result

    def follow(self, result: Any, kind: str) -> None:
        """Integers made of ids are followed on; comparisons and everything floating are not."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor.is_floating_point() and tensor.dtype != torch.bool:
                self.kinds[id(tensor)] = kind
                self.alive.append(tensor)  # another tensor must not get its id


@torch.no_grad()
def tables_by_id(skeleton: Any) -> tuple[dict[str, str], bool]:
    """Parameters and buffers that one forward pass reads at token ids.

    Args:
        skeleton: a causal LM of transformers on the meta device.

    Returns:
        Name to :data:`IDS` or :data:`COMPUTED`, and whether the pass came to its end; what a model reads before its
        layers is there in any case.
    """
    ids = torch.zeros((1, 5), dtype=torch.int64, device="meta")
    lookups, complete = Lookups(ids), False
    with suppress(Exception), lookups:
        skeleton.eval()(input_ids=ids, use_cache=False)
        complete = True
    names: dict[int, str] = {}
    for name, tensor in (*skeleton.named_parameters(), *skeleton.named_buffers()):
        names.setdefault(id(tensor), name)
    found: dict[str, str] = {}
    for tensor, kind in lookups.reads:
        if id(tensor) in names and found.get(names[id(tensor)]) != COMPUTED:
            found[names[id(tensor)]] = kind
    return found, complete
