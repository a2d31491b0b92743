"""Experiments whose results the documentation reports, and ``gato-mini`` itself."""
