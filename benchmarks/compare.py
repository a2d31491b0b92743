"""``python -m benchmarks.compare``: the command ``gato-gym compare``."""

import sys
from functools import partial

from benchmarks.commands.compare import Compare
from gato_gym.commands.common import run_command

main = partial(run_command, Compare, prog="python -m benchmarks.compare")

if __name__ == "__main__":
    sys.exit(main())
