"""From experts' episodes to a checkpoint: collect, shards, packing, loss, loop, recipes."""
