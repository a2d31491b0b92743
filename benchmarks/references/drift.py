"""Whether the experts still play as they did when they were measured.

* :data:`PINNED` -- how many episodes of each expert are kept one by one.
* :func:`pin` -- their returns.
* :func:`find_drift` -- plays them again and tells what differs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from benchmarks.protocol import (
    EpisodeFailure,
    EpisodeResult,
    Protocol,
    differences,
    installed_versions,
    listed,
)
from benchmarks.workers.processes import WorkerError, play_episodes
from benchmarks.workers.worker import PolicyChoice
from policies.rollout.timing import TimeSpent

PINNED = 3
"""Episodes of each expert whose returns are kept: the first ones of the measurement."""

TOLERANCE = 0.02
"""Share of the pinned mean by which an expert may differ."""


def pin(protocol: Protocol, tasks: Sequence[str], *, workers: int) -> dict[str, list[float]]:
    """The expert's returns in the first :data:`PINNED` episodes of some tasks.

    Args:
        protocol: Whose episodes.
        tasks: Task ids of the protocol, each with an expert.
        workers: Processes.

    Raises:
        BenchmarkError: A task or its expert cannot be made.
        WorkerError: A worker process or an episode failed.
    """
    first = dataclasses.replace(protocol, episodes=min(PINNED, protocol.episodes))
    pending = {task: first.episodes_of(task) for task in tasks}
    choice = PolicyChoice("expert", seed=protocol.seed, deterministic=None)
    with closing(play_episodes(pending, choice, workers=workers)) as played:
        results = [report for report in played if not isinstance(report, TimeSpent)]
    for result in results:
        if isinstance(result, EpisodeFailure):
            raise WorkerError(
                f"{result.key.task}, seed {result.key.seed} failed, and its expert cannot be "
                f"checked: {result.reason}"
            )
    return first_returns([each for each in results if isinstance(each, EpisodeResult)])


def first_returns(results: Sequence[EpisodeResult]) -> dict[str, list[float]]:
    """Returns of the first :data:`PINNED` episodes, by task, in the order of their numbers."""
    ordered = sorted(results, key=lambda result: (result.key.task, result.key.index))
    found: dict[str, list[float]] = {}
    for result in ordered:
        if result.key.index < PINNED:
            found.setdefault(result.key.task, []).append(round(result.total_return, 6))
    return found


def find_drift(entry: Mapping[str, Any], tasks: Sequence[str], *, workers: int) -> list[str]:
    """Experts that no longer score what they did, a line each.

    Args:
        entry: A suite's part of ``measured.json``.
        tasks: Task ids; those without pinned episodes are told of too.
        workers: Processes.

    Raises:
        BenchmarkError: A task or its expert cannot be made.
        WorkerError: A worker process failed.
    """
    protocol = Protocol.from_json(entry["protocol"])
    pinned = {task: entry["tasks"].get(task, {}).get("expert", {}).get("first") for task in tasks}
    found = [
        f"{task}: no pinned episodes of its expert are recorded, expected {PINNED}"
        for task, returns in pinned.items()
        if not returns
    ]
    known = [task for task, returns in pinned.items() if returns]
    played = pin(protocol, known, workers=workers)
    installed = installed_versions(tuple(protocol.simulators))
    changed = differences(dict(protocol.simulators), installed, path="simulators")
    note = f" ({listed(changed)})" if changed else ""
    for task in known:
        before, now = (math.fsum(part) / len(part) for part in (pinned[task], played[task]))
        if not abs(now - before) <= TOLERANCE * abs(before):
            found.append(
                f"{task}: its expert scored {before:.6g} in the first {len(pinned[task])} "
                f"episodes when it was measured, and {now:.6g} now{note}"
            )
    return found
