"""``python -m benchmarks.experts``: measure random and expert play."""

import sys
from functools import partial

from benchmarks.commands.measure_references import MeasureReferences
from gato_gym.commands.common import run_command

main = partial(run_command, MeasureReferences, prog="python -m benchmarks.experts")

if __name__ == "__main__":
    sys.exit(main())
