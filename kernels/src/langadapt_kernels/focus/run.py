"""The launches of the FOCUS combination, and how they are cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ..backend import interpreting
from . import reference
from .kernel import bounds_kernel, candidates_kernel, gather_kernel, weights_kernel

# Candidates kept per new token, and words of 32 anchors in which they may lie. The search notes its finds as words
# of bits: packing bits costs two instructions per similarity, a place in a list for each of them would cost twenty.
CAPACITY = 256
WORDS = 256

# Similarity of every new token to what is padding among the anchors: no threshold lies this low, since each is at most
# one below a cosine.
_FAR = -4.0

# New tokens that are left to the reference at a time.
_LEFT_ROWS = 4096


@dataclass(frozen=True)
class Tile:
    """How the search is cut; results do not depend on it, but for the order of float32 sums (`step`)."""

    rows: int = 128
    """New tokens of a program."""
    columns: int = 128
    """Anchors at a time, a multiple of 64."""
    step: int = 64
    """Coordinates at a time."""
    warps: int = 8
    kept: bool = False
    """New tokens stay in shared memory, beside two tiles of anchors: `shared_bytes` must be there."""

    def padded(self, width: int) -> int:
        """Coordinates of vectors of `width` in whole steps, with room for one more."""
        return triton.cdiv(width + 1, self.step) * self.step

    def shared_bytes(self, width: int) -> int:
        """Shared memory of a program if `kept`; 2 KB are for sums."""
        return (self.rows + 2 * self.columns) * self.padded(width) * torch.bfloat16.itemsize + (2 << 10)

    def stages(self, generation: int) -> int:
        """For the compiler; `generation`: of the GPU, its major compute capability.

        Matrix units that read shared memory by themselves (9 and 10) keep one copy more than stages say.
        """
        return 2 if self.kept and generation in (9, 10) else 3


# A Hopper's, as which the interpreter passes.
_GENERATION, _SHARED_BYTES = 9, 227 << 10


def _generation(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else _GENERATION


def tile_for(width: int, device: torch.device) -> Tile:
    """The tile that keeps new tokens in shared memory, if vectors of `width` are short enough for that."""
    there, kept = _SHARED_BYTES, Tile(columns=64, kept=True)
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return kept if kept.shared_bytes(width) <= there else Tile()


def _unit_rows(new: Tensor, anchors: Tensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """float32 unit rows in whole tiles: `[multiple of rows, WIDTH]` and `[multiple of columns, WIDTH]`.

    One more coordinate holds new tokens' similarity to what is padding among the anchors: 1 for new tokens, 0 for
    anchors, so that nothing else changes.
    """
    width, padding = new.shape[1], -len(anchors) % tile.columns
    full = tile.padded(width) if padding else triton.cdiv(width, tile.step) * tile.step
    left = new.new_zeros(triton.cdiv(len(new), tile.rows) * tile.rows, full, dtype=torch.float32)
    right = new.new_zeros(len(anchors) + padding, full, dtype=torch.float32)
    left[: len(new), :width] = reference.normalized(new)
    right[: len(anchors), :width] = reference.normalized(anchors)
    if padding:
        left[:, width] = 1.0
        right[len(anchors) :, width] = _FAR
    return left, right


def _search(
    new: Tensor, anchors: Tensor, *, n_new: int, n_anchor: int, words: int, tile: Tile
) -> tuple[Tensor, Tensor, Tensor]:
    """Words of candidates int32 `[n_new, words]`, which they are, and their numbers `[n_new]`, of unit rows."""
    found, index = torch.empty(2, n_new, words, dtype=torch.int32, device=new.device).unbind()
    counts = torch.empty(n_new, dtype=torch.int32, device=new.device)
    bounds = torch.empty(n_new, device=new.device)
    # The interpreter cannot multiply bfloat16: there, the rounded values come as float32.
    operands = [v.bfloat16().float() if interpreting() else v.bfloat16() for v in (new, anchors)]
    grid = (triton.cdiv(n_new, tile.rows),)
    cut: dict[str, int] = {"WIDTH": new.shape[1], "ROWS": tile.rows, "COLUMNS": tile.columns, "STEP": tile.step}
    cut |= {"KEPT": tile.kept, "num_warps": tile.warps, "num_stages": tile.stages(_generation(new.device))}
    bounds_kernel[grid](*operands, bounds, n_new, n_anchor, **cut)
    candidates_kernel[grid](*operands, bounds, found, index, counts, n_new, n_anchor, WORDS=words, **cut)
    return found, index, counts


def support(
    new_vectors: Tensor,
    anchor_vectors: Tensor,
    *,
    capacity: int = CAPACITY,
    words: int = WORDS,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The anchors of each new token and their weights.

    Returns:
        int32 `[n_new, capacity]` anchors, int32 `[n_new]` how many of them count, or -1 where they were too many
        for the buffers and nothing is known, and float32 `[n_new, capacity]` weights.
    """
    n_new, device = len(new_vectors), new_vectors.device
    tile = tile or tile_for(new_vectors.shape[1], device)
    new, anchors = _unit_rows(new_vectors, anchor_vectors, tile)
    sizes = torch.empty(n_new, dtype=torch.int32, device=device)
    candidates = torch.empty(n_new, capacity, dtype=torch.int32, device=device)
    weights = torch.empty(n_new, capacity, device=device)
    with torch.cuda.device_of(new):
        weights_kernel[(n_new,)](
            new,
            anchors,
            *_search(new, anchors, n_new=n_new, n_anchor=len(anchor_vectors), words=words, tile=tile),
            candidates,
            weights,
            sizes,
            WIDTH=new.shape[1],
            CAPACITY=capacity,
            WORDS=words,
            GROUP=16,
            STEP=tile.step,
            num_warps=2,
        )
    return candidates, sizes, weights


def focus_combine(new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """See `langadapt_kernels.focus_combine`."""
    candidates, sizes, weights = support(new_vectors, anchor_vectors)
    outputs = tuple(_gather(candidates, sizes, weights, rows.contiguous()) for rows in anchor_rows)
    # A part at a time: what the reference makes are rows as large as the outputs.
    for left in (sizes < 0).nonzero().squeeze(1).split(_LEFT_ROWS):
        if len(left):
            done = reference.focus_combine(new_vectors[left], anchor_vectors, anchor_rows)
            for output, rows in zip(outputs, done, strict=True):
                output[left] = rows
    return outputs


def _gather(candidates: Tensor, sizes: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    output = rows.new_empty(len(candidates), rows.shape[1])
    # 16 bytes per thread of a warp: of 32k anchors the strip is 17 MB, which each half of an H100's L2 cache can hold.
    bf16, block = rows.dtype == torch.bfloat16, 512 // rows.element_size()
    with torch.cuda.device_of(rows):
        gather_kernel[(len(candidates), triton.cdiv(rows.shape[1], block))](
            candidates,
            sizes,
            weights,
            rows.view(torch.uint16) if bf16 else rows,
            output.view(torch.uint16) if bf16 else output,
            rows.shape[1],
            BF16=bf16,
            CAPACITY=candidates.shape[1],
            GROUP=8,
            BLOCK=block,
            num_warps=1,
        )
    return output
