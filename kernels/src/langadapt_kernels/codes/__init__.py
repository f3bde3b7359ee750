"""Optimizer states as companded codes of a byte: in Triton, and as torch reference. Not public."""

GROUP = 64
"""Neighbouring elements of a row that share a scale."""
