"""What a run costs: FLOPs, bytes and seconds on known devices. Nothing here imports torch."""
