"""Measure random and expert play: ``python -m benchmarks.references.measure --suite babyai``.

Both play the same episodes under the benchmark's own protocol; the result replaces the suite's
part of ``measured.json``. Interrupted, it resumes when started again.

* :func:`measure` -- plays both and returns the suite's entry.
* :func:`main` -- the command.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.protocol import BenchmarkError
from benchmarks.record import write_json
from benchmarks.references import MEASURED_FILE
from benchmarks.report import Summary
from benchmarks.run import RunSettings, available_cores, run_benchmark
from benchmarks.workers import PolicyChoice, WorkerError

EPISODES = {"babyai": 100, "metaworld": 20}
"""Episodes of each task, by suite."""


def measure(
    suite: str, *, episodes: int, seed: int, workers: int, work: Path, console: Console
) -> dict[str, Any]:
    """Play random actions and the expert on a whole suite.

    Args:
        suite: Suite name.
        episodes: Episodes of each task and player.
        seed: What the episodes' seeds are derived from.
        workers: Processes.
        work: Folder for the two runs' records, resumed where they exist.
        console: Where progress is shown.

    Returns:
        ``protocol_hash``, ``protocol``, ``versions`` and ``tasks``: by task id and player
        (``random``, ``expert``) the mean return, its std, the number of episodes, the share
        solved and the mean length.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: Episodes failed; the same command tries them again.
    """
    summaries: dict[str, Summary] = {}
    for player in ("random", "expert"):
        console.print(f"{suite}: {player}", highlight=False)
        summaries[player] = run_benchmark(
            RunSettings(
                suite,
                work / f"{suite}-{player}",
                policy=PolicyChoice(player, seed=seed),
                episodes=episodes,
                seed=seed,
                workers=workers,
                resume=True,
            ),
            console=console,
        )
    for player, summary in summaries.items():
        if summary.failures:
            first = summary.failures[0]
            raise WorkerError(
                f"{suite}: {len(summary.failures)} episodes of {player} failed, expected none in a "
                f"reference; the first: {first.key.task}, seed {first.key.seed}: {first.reason}"
            )
    header = summaries["expert"].header
    tasks: dict[str, dict[str, Any]] = {task: {} for task in header.protocol.tasks}
    for player, summary in summaries.items():
        for task in summary.tasks:
            tasks[task.task][player] = {
                "mean": round(task.mean, 6),
                "std": round(task.std, 6),
                "episodes": task.episodes,
                "success": None if task.success is None else round(task.success, 6),
                "length": round(task.length, 3),
            }
    return {
        "protocol_hash": header.protocol.hash,
        "protocol": header.protocol.to_json(),
        "versions": dict(header.versions),
        "tasks": tasks,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.references.measure",
        description="Measure random and expert play on a whole suite.",
    )
    add = parser.add_argument
    add("--suite", required=True, choices=sorted(EPISODES))
    add("--episodes", type=int, help="of each task (default: 100 on babyai, 20 on metaworld)")
    add("--seed", type=int, default=0, help="chooses the episodes (default: 0)")
    add("--workers", type=int, default=available_cores(), help="processes (default: %(default)s)")
    add("--work", type=Path, default=Path("results/references"), help="default: %(default)s")
    options = parser.parse_args(argv)
    console = Console()
    try:
        entry = measure(
            options.suite,
            episodes=options.episodes or EPISODES[options.suite],
            seed=options.seed,
            workers=options.workers,
            work=options.work,
            console=console,
        )
    except (BenchmarkError, WorkerError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2 if isinstance(error, BenchmarkError) else 1
    except KeyboardInterrupt:
        console.print("stopped; finished episodes are kept. The same command continues.")
        return 130
    path = Path(str(resources.files("benchmarks.references").joinpath(MEASURED_FILE)))
    content = json.loads(path.read_text())
    content["suites"][options.suite] = entry
    write_json(path, content)
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
