"""Episodes to look at, each action's tokens beside the frame: ``python -m benchmarks.watch``."""

import sys

from benchmarks.commands.watch import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
