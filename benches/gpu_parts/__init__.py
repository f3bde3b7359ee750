"""Sections of `benches/gpu.py`."""
