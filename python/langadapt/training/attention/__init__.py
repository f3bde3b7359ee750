"""Documents of a packed window kept apart: which attention kernels can, and which agrees."""
