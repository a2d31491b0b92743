"""The network: embedding, transformer, cache; numbers in, logits out."""
