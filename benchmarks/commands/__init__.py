"""The benchmark and studies."""
