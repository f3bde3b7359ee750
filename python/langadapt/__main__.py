"""``python -m langadapt``, for ``torchrun -m langadapt train RECIPE``."""

from langadapt.cli import main

main()
