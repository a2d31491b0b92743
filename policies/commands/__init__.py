"""Datasets, networks and experts."""
