"""Measure random and expert play: ``python -m benchmarks.experts``."""

import sys

from benchmarks.commands.measure_references import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
