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
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.protocol import BenchmarkError
from benchmarks.record import write_json
from benchmarks.references import MEASURED_FILE
from benchmarks.report import Summary
from benchmarks.run import RunSettings, available_cores, describe_policy, run_benchmark
from benchmarks.workers import PolicyChoice, WorkerError
from gato_gym.listing import PROGRAMS, task_rows

EPISODES = {"atari": 100, "babyai": 100, "dm_control": 100, "metaworld": 20, "mujoco": 100}
"""Episodes of each task, by suite."""


def measure(
    suite: str, *, episodes: int, seed: int, workers: int, work: Path, console: Console
) -> dict[str, Any]:
    """Play random actions on a whole suite, and the expert on each task that has one.

    The expert plays its most likely actions.

    Args:
        suite: Suite name.
        episodes: Episodes of each task and player.
        seed: What the episodes' seeds are derived from.
        workers: Processes.
        work: Folder for the runs' records, resumed where they exist.
        console: Where progress is shown.

    Returns:
        ``protocol_hash``, ``protocol``, ``versions`` and ``tasks``: by task id and player
        (``random``, ``expert``) the mean return, its std, the number of episodes, the share
        solved and the mean length.

    Raises:
        BenchmarkError: What was asked for cannot be done.
        WorkerError: Episodes failed; the same command tries them again.
    """
    played: list[tuple[str, Summary]] = []
    for run in _runs(suite, seed):
        console.print(f"{suite}: {run.folder}", highlight=False)
        settings = RunSettings(
            suite,
            work / run.folder,
            tasks=run.tasks,
            policy=run.policy,
            episodes=episodes,
            seed=seed,
            workers=workers,
            resume=True,
        )
        played.append((run.policy.name, run_benchmark(settings, console=console)))
    for player, summary in played:
        if summary.failures:
            first = summary.failures[0]
            raise WorkerError(
                f"{suite}: {len(summary.failures)} episodes of {player} failed, expected none in a "
                f"reference; the first: {first.key.task}, seed {first.key.seed}: {first.reason}"
            )
    header = played[0][1].header
    tasks: dict[str, dict[str, Any]] = {task: {} for task in header.protocol.tasks}
    for player, summary in played:
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


@dataclass(frozen=True)
class _Run:
    """Tasks that one player plays, and the name of their record's folder."""

    folder: str
    policy: PolicyChoice
    tasks: str | None = None


def _runs(suite: str, seed: int) -> list[_Run]:
    """Random actions first; trained experts one by one, so that a new one adds a run of its own."""
    expert = PolicyChoice("expert", seed=seed, deterministic=True)
    runs = [_Run(f"{suite}-random", PolicyChoice("random", seed=seed))]
    rows = [row for row in task_rows(suite) if row.expert is not None]
    if suite in PROGRAMS:
        return [*runs, _Run(f"{suite}-expert", expert)]
    for row in rows:
        weights = describe_policy(expert, [row.id])["weights"]
        runs.append(_Run(f"{row.id}-expert-{weights}", expert, row.id))
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.references.measure",
        description="Measure random and expert play on a whole suite.",
    )
    add = parser.add_argument
    add("--suite", required=True, choices=sorted(EPISODES))
    add("--episodes", type=int, help="of each task (default: 100, 20 on metaworld)")
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
