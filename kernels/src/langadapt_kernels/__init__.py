"""Triton kernels of langadapt, each with a torch reference that runs on a CPU."""

__version__ = "0.1.0"
