"""Shares of tasks that follow how far each task is from where it should be.

* :class:`Adaptive` -- what they follow, and when they change.
* :class:`TaskShares` -- where they are; JSON in and out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gato_gym.files.bounded_io import as_type
from gato_gym.ranges import check_range

SOURCES = ("scores", "loss")


@dataclass(frozen=True)
class Adaptive:
    """What the shares of tasks follow.

    A task's distance is in [0, 1]. By "scores", in episodes with training's seeds, it is 1 where
    the network returns what random play does and 0 from the recorded policy's return on; a task
    that cannot be played has the mean of the others. By "loss" it is the part that is left of the
    task's first mean loss. A task at the distance d has the share ``1 + (most - 1) * d`` of its
    group, beside its emphasis: none falls below a part in ``most`` of another's.

    Attributes:
        by: "scores" or "loss".
        every: Steps between two changes.
        episodes: Episodes of each task that are played for it; 0 where nothing is played.
        most: Share of a task at the distance 1 over that of one at 0; 1 or more.
        smoothing: Weight of the distance before in that after a measurement, in [0, 1).

    Raises:
        ValueError: A value is outside its range.
    """

    by: str
    every: int
    episodes: int = 0
    most: float = 4.0
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        if self.by not in SOURCES:
            raise ValueError(f"adaptive is {self.by!r}: expected one of {', '.join(SOURCES)}")
        check_range(self, "every", "most", low=1)
        check_range(self, "episodes")
        check_range(self, "smoothing", high=1, below=True)


class TaskShares:
    """Where adaptive shares are: a function of what was measured, and of nothing else.

    Args:
        adaptive: What they follow.
        tasks: Ids of all tasks, in the order of a loss report's.

    Attributes:
        step: Step of the last change; 0 before the first.

    Example:
        >>> shares = TaskShares(Adaptive("scores", every=10, smoothing=0.0), ["far", "near"])
        >>> shares.measure(10, {"far": 1.0, "near": 0.0})
        >>> shares.factors
        {'far': 4.0, 'near': 1.0}
    """

    def __init__(self, adaptive: Adaptive, tasks: Sequence[str]) -> None:
        self.adaptive, self.tasks, self.step = adaptive, list(tasks), 0
        self._distances: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._sums = [[0.0, 0.0] for _ in self.tasks]

    @property
    def factors(self) -> dict[str, float]:
        """Factor of each task's share; empty before the first measurement."""
        known = self._distances
        if not known:
            return {}
        mean = sum(known.values()) / len(known)
        more = self.adaptive.most - 1
        return {task: 1 + more * known.get(task, mean) for task in self.tasks}

    def is_due(self, step: int) -> bool:
        """Whether shares change after a step, and have not yet."""
        return step > self.step and step % self.adaptive.every == 0

    def measure(self, step: int, distances: Mapping[str, float]) -> None:
        """Change the shares by distances in [0, 1], measured after a step, of some tasks."""
        old = self.adaptive.smoothing
        for task, distance in sorted(distances.items()):
            before = self._distances.get(task, distance)
            self._distances[task] = old * before + (1 - old) * distance
        self.step = step

    def add_losses(self, step: int, losses: Tensor) -> bool:
        """Take in an update's losses, if shares follow them; whether that changed the shares.

        Args:
            step: Steps done, this one included.
            losses: float ``[sources, 2]``, as :class:`policies.training.loss.LossReport` has them;
                the first are the tasks'.
        """
        if self.adaptive.by != "loss":
            return False
        for sums, row in zip(self._sums, losses[: len(self.tasks)].tolist(), strict=True):
            sums[0], sums[1] = sums[0] + row[0], sums[1] + row[1]
        if not self.is_due(step):
            return False
        means = {
            task: loss / weight
            for task, (weight, loss) in zip(self.tasks, self._sums, strict=True)
            if weight > 0
        }
        self._sums = [[0.0, 0.0] for _ in self.tasks]
        self._first = {**means, **self._first}
        left = {task: mean / self._first[task] for task, mean in means.items() if self._first[task]}
        self.measure(step, {task: min(1.0, part) for task, part in left.items()})
        return True

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {
            "step": self.step,
            "distances": self._distances,
            "first": self._first,
            "sums": self._sums,
        }

    def load(self, values: Mapping[str, Any]) -> None:
        """Take up what :meth:`to_json` gave.

        Raises:
            ValueError: It is of other tasks, or of another type.
        """
        self.step = as_type(int, values.get("step"), "shares.step")
        self._distances = as_type(dict[str, float], values.get("distances"), "shares.distances")
        self._first = as_type(dict[str, float], values.get("first"), "shares.first")
        self._sums = as_type(list[list[float]], values.get("sums"), "shares.sums")
        if len(self._sums) != len(self.tasks):
            raise ValueError(
                f"shares are of {len(self._sums)} tasks: expected {len(self.tasks)}; the run's "
                "folder holds another run's progress"
            )
