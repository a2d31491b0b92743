"""Experts' episodes as datasets."""
