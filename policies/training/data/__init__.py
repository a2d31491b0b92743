"""From episodes to batches: shards, packing, batches of tokens."""
