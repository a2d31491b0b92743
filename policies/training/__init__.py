"""From episodes to a checkpoint: batches, loss, optimiser, trainer, export."""
