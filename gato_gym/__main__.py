"""``python -m gato_gym``."""

import sys

from gato_gym.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
