"""Choices made by measuring: which initialiser, whether to replace, extend or trim a vocabulary."""
