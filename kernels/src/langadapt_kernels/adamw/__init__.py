"""AdamW for pure bf16 training: the step as a function, and as a `torch.optim.Optimizer`."""

from .optimizer import FusedAdamW
from .step import adamw_step

__all__ = ["FusedAdamW", "adamw_step"]
