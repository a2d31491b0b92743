"""Returns to go: what a policy is still to collect in an episode.

* :func:`returns_to_go` -- of the rewards of episodes.
* :class:`ReturnScale` -- what a checkpoint knows of a task's returns, and targets to play for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def returns_to_go(
    rewards: ArrayLike, ends: NDArray[np.int64], discount: float = 1.0
) -> NDArray[np.float64]:
    """The sum of the rewards from each timestep to its episode's end.

    Args:
        rewards: ``[N]``, of episodes one after another.
        ends: int64 ``[E]``, one past the last timestep of each episode.
        discount: Factor of each later reward, in (0, 1].

    Returns:
        float64 ``[N]``.

    Example:
        >>> returns_to_go([1, 2, 4, 5], np.array([3, 4])).tolist()
        [7.0, 6.0, 4.0, 5.0]
    """
    values = np.array(rewards, np.float64)
    if discount == 1.0:
        for part in np.split(values, ends[:-1]):
            part[:] = part[::-1].cumsum()[::-1]
        return values
    last = np.zeros(len(values), np.bool_)
    last[np.asarray(ends, np.int64) - 1] = True
    for step in range(len(values) - 2, -1, -1):
        if not last[step]:
            values[step] += discount * values[step + 1]
    return values


@dataclass(frozen=True)
class ReturnScale:
    """What a checkpoint knows of a task's returns.

    Attributes:
        scale: What returns to go are divided by, above 0; those of training then are in [-1, 1].
        best: The largest return of an episode in training.
        expert: The largest mean return of a window of its episodes.

    Raises:
        ValueError: A value is not finite, or the scale is not above 0.
    """

    scale: float = 1.0
    best: float = 0.0
    expert: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.scale, self.best, self.expert))) or self.scale <= 0:
            raise ValueError(f"returns are {self}: expected finite numbers and a scale above 0")

    @classmethod
    def of(cls, to_go: NDArray[np.float64], best: float, expert: float) -> ReturnScale:
        """The scale of returns to go ``[N]``."""
        largest = float(np.abs(to_go).max(initial=0.0))
        return cls(largest or 1.0, best, expert)

    def target(self, share: float | None = None, total: float | None = None) -> float:
        """A return to play for.

        Args:
            share: Share of the expert's return. Below a return under zero there is as much room:
                0.9 of -100 is -110.
            total: The return itself, in the environment's units. With neither it is the best.

        Raises:
            ValueError: Both are given, or one is not finite.

        Example:
            >>> returns = ReturnScale(scale=200, best=150, expert=100)
            >>> returns.target(0.9), returns.target(total=120), returns.target()
            (90.0, 120.0, 150.0)
        """
        if share is not None and total is not None:
            raise ValueError(f"share is {share} and total is {total}: expected one of them")
        chosen = self.best if total is None else float(total)
        if share is not None:
            chosen = self.expert - (1 - share) * abs(self.expert)
        if not math.isfinite(chosen):
            raise ValueError(f"the return to play for is {chosen}: expected a finite number")
        return float(chosen)

    def read(self, target: float | str | None) -> float:
        """The return that a setting asks for: a number of points, such as "90%", or None.

        Raises:
            ValueError: It is neither.
        """
        if not isinstance(target, str):
            return self.target(total=target)
        try:
            number = float(target.removesuffix("%"))
        except ValueError:
            raise ValueError(
                f"target_return is {target!r}: expected a number, or a share of the expert's "
                "return such as '90%'"
            ) from None
        return self.target(number / 100) if target.endswith("%") else self.target(total=number)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {"scale": self.scale, "best": self.best, "expert": self.expert}
