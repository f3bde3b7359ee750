"""From token stores to batches: windows, packing, mixtures of languages."""
