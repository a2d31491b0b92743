"""Where a run's time goes: environments, tokenising, inference, idle rows, loading, and the rest.

* :class:`TimeSpent` -- seconds of each.
* :class:`Clock` -- what measures them where episodes are played.
* :class:`Costs` -- the sum over a run's processes and sittings, kept in ``cost.json``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gato_gym.files.bounded_io import as_type, read_json

NAME = "cost.json"


@dataclass(frozen=True)
class TimeSpent:
    """Seconds of the processes that play, summed.

    Attributes:
        environments: Making, resetting and stepping them.
        tokenising: Encoding observations and decoding actions; 0 for policies without tokens.
        inference: The policy's ``predict``, less tokenising and idle rows.
        idle: The share of ``predict`` that went to rows in which nothing was played.
        loading: Making the policy: importing, reading weights, encoding prompts.
        rest: Everything else between the first unit of work and the last episode.
    """

    environments: float = 0.0
    tokenising: float = 0.0
    inference: float = 0.0
    idle: float = 0.0
    loading: float = 0.0
    rest: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return sum(asdict(self).values())

    def __add__(self, other: TimeSpent) -> TimeSpent:
        """The sum, part by part."""
        return TimeSpent(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def describe(self) -> str:
        """Shares in words.

        Example:
            >>> TimeSpent(environments=3.0, inference=1.0).describe()
            'environments 75 %, tokenising 0 %, inference 25 %, idle 0 %, loading 0 %, rest 0 %'
        """
        total = self.total or 1.0
        return ", ".join(
            f"{name} {100 * part / total:.0f} %" for name, part in asdict(self).items()
        )


class Clock:
    """Measures a process that plays.

    Parts may lie in one another: the seconds of the inner one count for it alone.
    """

    def __init__(self) -> None:
        self._spent = dict.fromkeys(
            ("environments", "tokenising", "inference", "idle", "loading"), 0.0
        )
        self._inner = 0.0
        self._since = time.perf_counter()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count what happens in the context for a part."""
        before = self.begin()
        try:
            yield
        finally:
            self.end(part, before)

    def begin(self) -> tuple[float, float]:
        """The beginning of a part, where a context would cost too much; see :meth:`end`."""
        outer, self._inner = self._inner, 0.0
        return time.perf_counter(), outer

    def end(self, part: str, began: tuple[float, float], *, idle: float = 0.0) -> None:
        """The end of a part that :meth:`begin` began, of which a share was idle."""
        seconds = time.perf_counter() - began[0]
        outer = seconds - self._inner
        self._spent[part] += outer * (1.0 - idle)
        self._spent["idle"] += outer * idle
        self._inner = began[1] + seconds

    def lap(self) -> TimeSpent:
        """The seconds since the last lap, or since the clock was made."""
        now = time.perf_counter()
        measured = sum(self._spent.values())
        lap = TimeSpent(**self._spent, rest=max(0.0, now - self._since - measured))
        self._spent = dict.fromkeys(self._spent, 0.0)
        self._since = now
        return lap


def with_clock(policy: Any, clock: Clock) -> Any:
    """The policy, which reports its tokenising to the clock from now on."""
    if hasattr(policy, "span"):
        policy.span = clock.of
    return policy


@dataclass
class Costs:
    """What a run has cost so far, all its sittings together.

    Attributes:
        spent: By the processes that played.
        wall: Seconds that the sittings lasted.
    """

    spent: TimeSpent = TimeSpent()
    wall: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The content of ``cost.json``: ``wall``, ``total``, and the parts of the total."""
        parts = {name: round(value, 3) for name, value in asdict(self.spent).items()}
        return {"wall": round(self.wall, 3), "total": round(sum(parts.values()), 3), **parts}

    @classmethod
    def of_run(cls, folder: Path) -> Costs | None:
        """What a folder's run has cost; None where it is not recorded, or not to be read."""
        try:
            cost = as_type(dict[str, float], read_json(folder / NAME), NAME)
            parts = {field.name: cost[field.name] for field in fields(TimeSpent)}
            return cls(TimeSpent(**parts), cost["wall"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
