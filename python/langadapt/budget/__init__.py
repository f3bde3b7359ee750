"""What a run costs before it is started: FLOPs, bytes, time, and whether it fits. Nothing here imports torch."""
