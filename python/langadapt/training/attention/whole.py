"""Attention over whole windows, whose documents may see each other: causal and without a mask.

Then SDPA has kernels to choose from, and takes FlashAttention 2 before cuDNN's, whichever is the faster on this GPU
and for these heads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

CUDNN = "langadapt_cudnn"
CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""The others for what cuDNN does not take, such as a mask of padding in a validation."""


def cudnn_first(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """SDPA behind transformers' attention interface, with cuDNN's kernel wherever it takes the inputs."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with sdpa_kernel(CUDNN_FIRST, set_priority=True):
        return sdpa_attention_forward(module, query, key, value, *args, **kwargs)


def register() -> None:
    """Make `CUDNN` known to transformers, with SDPA's masks."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(CUDNN, cudnn_first)
    ALL_MASK_ATTENTION_FUNCTIONS.register(CUDNN, sdpa_mask)
