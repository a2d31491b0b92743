"""Gymnasium environments as tokens."""
