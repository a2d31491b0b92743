"""What changed from one run to another: ``python -m benchmarks.compare A B``.

* :func:`main` -- the command. Exit status 0, or 2 when the two cannot be compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.protocol import BenchmarkError
from benchmarks.report.compare import compare, render
from benchmarks.store.run_store import read_run
from gato_gym.atomic_io import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description="What changed from run A to run B, regressions first.",
    )
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="folder of the run that is compared with")
    add("b", type=Path, metavar="B", help="folder of the run that is compared")
    add("--force", action="store_true", help="compare runs of different protocols")
    add("--output", type=Path, metavar="FILE", help="write the comparison as JSON, too")
    options = parser.parse_args(argv)
    try:
        comparison = compare(read_run(options.a), read_run(options.b), force=options.force)
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.output, comparison.to_json())
    except (BenchmarkError, OSError) as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 2
    Console().print(render(comparison))
    return 0


if __name__ == "__main__":
    sys.exit(main())
