"""Scores, their averages and their intervals; no environment, no policy."""
