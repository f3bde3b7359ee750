"""Moments of a byte each: companded codes, and a float32 scale for each group of `GROUP` neighbours of a row.

First moment `m`, code in [-127, 127], scale `s = max |m|` of the group: `code = round(254 m / (s + |m|))`, back
`m = s code / (254 - |code|)`; beside zero the step is half of what equal steps would be.
Second moment `v`, code in [0, 255], scale `s = max v**(1/4)` of the group: `code = round(255 v**(1/4) / s)`, back
`v = (code s / 255)**4`. Adam divides by `sqrt(v)`: its square root is what is cut into equal steps, so that a
denominator of a hundredth of the group's largest is still known to 4 %.

Source: FlashOptim (arXiv 2602.23349), whose first moment this is; it cuts `sqrt(v)` itself, rounds to nearest and has
float16 scales for groups of 32, in as many bytes. Two things are added. A second moment above zero never becomes zero:
its first moment would be divided by `eps` alone. And its codes can be rounded stochastically: what a step takes of a
moment is less than half a code wherever the code is small, and to nearest, such a moment could not shrink.

A group with a number that is not finite has the scale NaN, and so are all its numbers in the next step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import GROUP

_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000


def encode_average(values: Tensor, still: Tensor | None) -> tuple[Tensor, Tensor]:
    """float32 `[n]` to int8 codes `[n]` and float32 scales `[n / GROUP]`; elements that are `still` have no say."""
    scales = _scales(values, still)
    scale = scales.repeat_interleave(GROUP)
    codes = torch.round(values / (scale + values.abs()) * 254)
    return torch.where(scale > 0, codes, 0).to(torch.int8), scales


def decode_average(codes: Tensor, scales: Tensor) -> Tensor:
    """float32 `[n]` of `encode_average`."""
    codes = codes.float()
    return codes / (254 - codes.abs()) * scales.repeat_interleave(GROUP)


def encode_variance(values: Tensor, bits: Tensor | None, still: Tensor | None) -> tuple[Tensor, Tensor]:
    """float32 `[n]`, none negative, to uint8 codes `[n]` and float32 scales `[n / GROUP]`.

    With 16 random `bits` (int32 `[n]`) per element codes are rounded up with the probability of what is cut off.
    """
    roots = _root(_root(values))
    scales = _scales(roots, still)
    scale = scales.repeat_interleave(GROUP)
    codes = (roots / scale * 255 + (0.5 if bits is None else bits.float() * 2**-16)).floor()
    codes = torch.where(roots > 0, codes.clamp(min=1), codes)
    return torch.where(scale > 0, codes, 0).to(torch.uint8), scales


def decode_variance(codes: Tensor, scales: Tensor) -> Tensor:
    """float32 `[n]` of `encode_variance`."""
    squares = (codes.float() * (scales / 255).repeat_interleave(GROUP)).square()
    return squares.square()


def _root(values: Tensor) -> Tensor:
    # torch's float32 square root on a CPU may be off by a unit in the last place.
    return values.double().sqrt().float()


def _scales(values: Tensor, still: Tensor | None) -> Tensor:
    """The largest magnitude of each group; NaN where one is not finite. As patterns, among which NaN is the largest."""
    patterns = values.view(torch.int32) & _MAGNITUDE
    if still is not None:
        patterns = torch.where(still, 0, patterns)
    most = patterns.view(-1, GROUP).amax(dim=1)
    return torch.where(most >= _INFINITY, float("nan"), most.view(torch.float32))
