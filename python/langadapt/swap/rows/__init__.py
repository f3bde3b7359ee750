"""Rows for new tokens: one module per initialiser, each with its paper and equation."""
