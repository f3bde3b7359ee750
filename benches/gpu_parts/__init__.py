"""Pieces of `benches/gpu.py` and of `benches/gpu_train.py`."""
