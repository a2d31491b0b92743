"""Measure random and expert play: ``python -m benchmarks.experts --suite babyai``.

* :func:`main` -- the command. Exit status 0, 1 where an expert drifted or a worker was lost, 2 when
  what was asked for cannot be done, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.measure_references import EPISODES, check, measure_into_file
from benchmarks.protocol import BenchmarkError
from benchmarks.workers.common import available_cores
from gato_gym.tasks.registry import SUITES
from policies.processes import WorkerError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experts",
        description="Measure random and expert play on a whole suite.",
    )
    add = parser.add_argument
    add("--suite", choices=SUITES, help="with --check, default: all")
    add("--tasks", metavar="PATTERN", help="task ids or patterns, separated by commas")
    add("--player", choices=("random", "expert"), help="only this one (default: both)")
    add("--check", action="store_true", help="fail where an expert drifted from what is recorded")
    add("--episodes", type=int, default=EPISODES, help="of each task (default: %(default)s)")
    add("--seed", type=int, default=0, help="chooses the episodes (default: 0)")
    add("--workers", type=int, default=available_cores(), help="processes (default: %(default)s)")
    add("--work", type=Path, default=Path("results/references"), help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.suite is None and (options.tasks or not options.check):
        parser.error("--suite is missing: expected one of " + ", ".join(SUITES))
    console = Console()
    try:
        if options.check:
            drifted = check(options.suite, options.tasks, workers=options.workers, console=console)
            return 1 if drifted else 0
        measure_into_file(
            options.suite,
            episodes=options.episodes,
            seed=options.seed,
            workers=options.workers,
            work=options.work,
            console=console,
            tasks=options.tasks,
            player=options.player,
        )
    except (BenchmarkError, WorkerError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2 if isinstance(error, BenchmarkError) else 1
    except KeyboardInterrupt:
        console.print("stopped; finished episodes are kept. The same command continues.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
