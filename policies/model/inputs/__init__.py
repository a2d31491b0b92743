"""From timesteps and texts to token embeddings."""
