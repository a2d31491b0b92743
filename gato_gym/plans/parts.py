"""One part of an observation or an action: its path, and how bad values are handled.

* :class:`Part` -- path, space and options; its own parts; arrays without NaN and within bounds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.options import PlanOptions
from gato_gym.plans.bounds import Bounds
from gato_gym.vocabulary import Vocabulary

__all__ = ["Part"]


@dataclass(frozen=True)
class Part:
    """One part of an observation or an action.

    Attributes:
        role: "observation" or "action". The options ``on_nan`` and ``outside`` apply to
            observations. In an action, NaN and integers outside a discrete space are errors, and
            numbers beyond a Box's bounds are clipped.
        space: The part's own space.
        options: The plan's options.
        vocabulary: The plan's vocabulary.
        keys: Dict keys and Tuple indices down to the part.
        outside: Count of rows outside their space, by path; shared by all parts of a plan.
    """

    role: str
    space: gym.Space[Any]
    options: PlanOptions
    vocabulary: Vocabulary
    keys: tuple[Any, ...] = ()
    outside: Counter[str] = field(default_factory=Counter)

    @property
    def path(self) -> str:
        """The keys, joined by "/"."""
        return "/".join(map(str, self.keys))

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.role} {self.path!r}"

    def child(self, key: Any, space: gym.Space[Any]) -> Part:
        """A part of this part."""
        return replace(self, keys=(*self.keys, key), space=space)

    def children(self) -> list[tuple[Any, Part]] | None:
        """Keys and parts of a Dict, sorted, or of a Tuple; None where the space is neither."""
        ordered: list[tuple[Any, gym.Space[Any]]]
        if isinstance(self.space, spaces.Dict):
            ordered = sorted(self.space.spaces.items(), key=lambda item: str(item[0]))
        elif isinstance(self.space, spaces.Tuple):
            ordered = list(enumerate(self.space.spaces))
        else:
            return None
        return [(key, self.child(key, space)) for key, space in ordered]

    def refusal(self) -> ValueError:
        """The error that its space has no tokens, and what to do about it."""
        hint = f"transform it with a gymnasium.Transform{self.role.title()} wrapper"
        if self.role == "observation":
            hint += f", or leave it out with PlanOptions(skip=({self.path!r},))"
        return ValueError(
            f"{self.name} is a {type(self.space).__name__} space: expected Box, Discrete, "
            f"MultiDiscrete, MultiBinary, Text, Dict, Tuple, Sequence, OneOf or Graph; {hint}"
        )

    def array(self, values: Any, rows: int) -> NDArray[Any]:
        """A batch as an array ``[rows, *shape]``.

        Raises:
            ValueError: If it has another shape.
        """
        batch = np.asarray(values)
        if batch.shape != (rows, *(self.space.shape or ())):
            raise ValueError(
                f"{self.name} has shape {batch.shape}: expected "
                f"{(rows, *(self.space.shape or ()))}, a batch of {rows} as vector environments "
                f"have it, of {self.space}"
            )
        return batch

    def numbers(
        self,
        values: Any,
        rows: int,
        bounds: Bounds,
        *,
        discrete: bool = False,
    ) -> NDArray[Any]:
        """A batch as ``[rows, N]``, row-major, without NaN, after :meth:`within`.

        Raises:
            ValueError: Wrong shape, or a value that the options refuse.
        """
        batch = self.array(values, rows).reshape(rows, bounds.low.size)
        if bounds.hold(batch):
            return batch
        if batch.dtype.kind == "f":
            batch = self._without_nan(batch)
        return self.within(batch, bounds.low, bounds.high, discrete=discrete)

    def _without_nan(self, batch: NDArray[Any]) -> NDArray[Any]:
        bad = np.isnan(batch)
        if not bad.any():
            return batch
        if self.role == "observation" and self.options.on_nan == "replace":
            return np.where(bad, self.options.nan_value, batch)
        row, flat = (int(i) for i in np.argwhere(bad)[0])
        index = tuple(int(i) for i in np.unravel_index(flat, self.space.shape or ()))
        hint = "; PlanOptions(on_nan='replace', nan_value=0.0) reads it as 0"
        raise ValueError(
            f"{self.name} is NaN at index {index} of row {row}: expected a number"
            + (hint if self.role == "observation" else "")
        )

    def within(
        self, batch: NDArray[Any], low: NDArray[Any], high: NDArray[Any], *, discrete: bool
    ) -> NDArray[Any]:
        """Numbers ``[rows, N]``, those outside their bounds ``[N]`` handled by the options.

        ``discrete`` spaces refuse them, because their neighbours mean something else.

        Raises:
            ValueError: A number is outside and the options refuse it.
        """
        beyond = (batch < low) | (batch > high)
        if not beyond.any():
            return batch
        choice = "boxes"
        if self.role == "observation":
            choice = self.options.outside
            self.outside[self.path] += int(beyond.any(axis=1).sum())
        if choice == "error" or (choice == "boxes" and discrete):
            row, index = (int(i) for i in np.argwhere(beyond)[0])
            raise ValueError(
                f"{self.name} is {batch[row, index]} at flat index {index} of row {row}: "
                f"expected [{low[index]}, {high[index]}], a member of {self.space}"
                + ("; PlanOptions(outside='clip') clips it" if self.role == "observation" else "")
            )
        clips = choice == "clip" or self.role == "action"
        return np.clip(batch, low, high) if clips else batch
