"""``python -m benchmarks.watch``: the command ``gato-gym watch``."""

import sys
from functools import partial

from benchmarks.commands.watch import Watch
from gato_gym.commands.common import run_command

main = partial(run_command, Watch, prog="python -m benchmarks.watch")

if __name__ == "__main__":
    sys.exit(main())
