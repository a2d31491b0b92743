"""The Trajectory Transformer (arXiv 2106.02039): trajectories as tokens, planned by beam search."""
