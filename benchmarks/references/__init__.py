"""What scores are compared with.

* :func:`measured` -- random and expert returns measured by this harness and written to the file
  that a suite names by ``python -m benchmarks.experts``: what scores are normalised by.
* :func:`measured_protocol` -- the protocol they were measured under.
* :func:`published` -- random, expert, human and JAT returns as published with JAT, and the
  source of each (``published.json``): shown beside scores, never mixed with them.
* :func:`published_normalised` -- JAT's or a human's score of a task, by JAT's own references.
* :func:`published_aggregates` -- published averages over a whole suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.protocol import ALL, Protocol
from benchmarks.statistics.scores import beats_random, normalised_score
from gato_gym.files.bounded_io import read_json
from gato_gym.tasks import get_suite, list_suites


@dataclass(frozen=True)
class Reference:
    """Somebody's score on a task.

    Attributes:
        mean: Mean return of an episode.
        std: Standard deviation over episodes; None where none is published.
        episodes: Number of episodes; None where it is not known.
        success: Share of episodes that solved the task; None where it is not known.
        source: Where the figure is from.
        length: Mean number of timesteps; None where it is not known.
        distinct: How many of the episodes are no other again, where that is fewer; else None.
    """

    mean: float
    std: float | None
    episodes: int | None
    success: float | None
    source: str
    length: float | None = None
    distinct: int | None = None


@dataclass(frozen=True)
class TaskReferences:
    """Everybody's score on a task; None for those who have none."""

    random: Reference | None = None
    expert: Reference | None = None
    human: Reference | None = None
    jat: Reference | None = None

    def normalise(self, returns: ArrayLike) -> NDArray[np.float64] | None:
        """Returns on a scale where random play is 0 and the expert 1; None where there is none,
        because one of the two is not known or the expert does not beat random."""
        if self.random is None or self.expert is None:
            return None
        random, expert = self.random.mean, self.expert.mean
        if not beats_random(random=random, expert=expert):
            return None
        return normalised_score(returns, random=random, expert=expert)


def measured(suite: str) -> Mapping[str, TaskReferences]:
    """Random and expert returns measured by this harness, by task id; empty when none are.

    Args:
        suite: Suite name; ``all`` for those of every suite.
    """
    entries = map(_measured, list_suites() if suite == ALL else [suite])
    source = "benchmarks.experts"
    return {
        task: _references(entry, {}, source)
        for of in entries
        for task, entry in (of or {}).get("tasks", {}).items()
    }


def measured_protocol(suite: str) -> Protocol | None:
    """The protocol under which :func:`measured` was measured; None when nothing was."""
    entry = _measured(suite)
    return None if entry is None else Protocol.from_json(entry["protocol"])


@cache
def published() -> Mapping[str, TaskReferences]:
    """Returns as published with JAT for its 157 tasks, known misprints corrected.

    Example:
        >>> published()["atari-tennis"].human.mean
        -8.3
    """
    content = _load("published.json")
    return {
        task: _references(entry, content["sources"], "") for task, entry in content["tasks"].items()
    }


def published_normalised(task: str, player: Literal["jat", "human"] = "jat") -> float | None:
    """A published score, normalised by the random and the expert published with JAT.

    Returns:
        The score; None for a task where the player has none or whose expert does not beat random.
    """
    entry = published().get(task, TaskReferences())
    played: Reference | None = getattr(entry, player)
    score = None if played is None else entry.normalise(played.mean)
    return None if score is None else float(score)


def human_normalised(task: str, returns: ArrayLike) -> NDArray[np.float64] | None:
    """Returns float64 ``[N]`` as Atari's literature states them: 0 is random play, 1 a human.

    Both are as published; None for a task that they are not published of.

    Example:
        >>> human_normalised("atari-pong", [-20.7, 14.6]).round(6).tolist()
        [0.0, 1.0]
    """
    entry = published().get(task, TaskReferences())
    if entry.random is None or entry.human is None:
        return None
    return normalised_score(returns, random=entry.random.mean, expert=entry.human.mean)


def published_aggregates(suite: str) -> Mapping[str, float]:
    """Published averages over a suite, by a name that says whose and of what."""
    aggregates = _load("published.json")["aggregates"].get(suite, {})
    return {name: float(entry["mean"]) for name, entry in aggregates.items()}


def _references(
    entry: Mapping[str, Any], sources: Mapping[str, str], default: str
) -> TaskReferences:
    def reference(who: str) -> Reference | None:
        if who not in entry:
            return None
        value = entry[who]
        return Reference(
            mean=float(value["mean"]),
            std=value.get("std"),
            episodes=value.get("episodes"),
            success=value.get("success"),
            source=sources[value["source"]] if "source" in value else default,
            length=value.get("length"),
            distinct=value.get("distinct"),
        )

    return TaskReferences(*map(reference, ("random", "expert", "human", "jat")))


def _measured(suite: str) -> dict[str, Any] | None:
    """A suite's entry in the file of its references; None where there is none."""
    path = get_suite(suite).references_path if suite in list_suites() else None
    if path is None or not path.is_file():
        return None
    entry: dict[str, Any] | None = _read(path)["suites"].get(suite)
    return entry


@cache
def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    return content


def _load(name: str) -> dict[str, Any]:
    return _read(Path(str(resources.files(__name__).joinpath(name))))
