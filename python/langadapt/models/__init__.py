"""Model folders of Hugging Face: configuration, embedding tables, weights in their shards."""
