"""Triton kernels of langadapt, each with a torch reference that runs on a CPU.

`FusedAdamW` / `adamw_step`: AdamW for pure bf16 training, one launch for a whole model.
`focus_combine`: cosine similarity, row-wise sparsemax and the convex combination of rows, without the matrix of
similarities.
`cross_entropy_`: softmax, loss and gradient of logits in their place, for the head of a large vocabulary.
`sparsemax`: the projection onto the simplex, forward and backward, for rows of any length.

Importing this package needs torch alone. Triton is imported by the first call that runs a kernel; on a CPU, or without
Triton, the references do the work.
"""

from .adamw import FusedAdamW, adamw_step
from .cross_entropy import cross_entropy_
from .focus import focus_combine
from .sparsemax import sparsemax

__version__ = "0.1.0"

__all__ = ["FusedAdamW", "adamw_step", "cross_entropy_", "focus_combine", "sparsemax"]
