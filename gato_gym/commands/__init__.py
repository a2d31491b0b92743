"""Environments as tokens."""
