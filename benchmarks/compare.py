"""What changed from one run to another: ``python -m benchmarks.compare``."""

import sys

from benchmarks.commands.compare import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
