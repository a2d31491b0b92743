"""Stacks of frames, each frame kept once.

An observation that is a stack of the last S frames repeats S - 1 frames of the one before it.

* :func:`stacks_of` -- stacks as a view of their frames.
* :func:`frames_of` -- the frames of stacks, if all of these overlap.
* :class:`ObservationList` -- an episode's observations as they come, frames kept once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BLOCK = 256
"""Stacks compared at a time."""


def stacks_of(frames: NDArray[Any], depth: int) -> NDArray[Any]:
    """Every run of ``depth`` frames, the newest last.

    Args:
        frames: ``[N, ...]``, N at least ``depth``.
        depth: S, frames in a stack.

    Returns:
        A read-only view ``[N - S + 1, S, ...]`` of the same memory.

    Example:
        >>> stacks_of(np.arange(4), 3).tolist()
        [[0, 1, 2], [1, 2, 3]]
    """
    return np.moveaxis(sliding_window_view(frames, depth, axis=0), -1, 1)


def frames_of(stacks: NDArray[Any]) -> NDArray[Any] | None:
    """The frames that stacks are made of; the inverse of :func:`stacks_of`.

    Args:
        stacks: ``[N, S, ...]``.

    Returns:
        ``[N + S - 1, ...]``; None if a stack is not the previous one advanced by one frame.

    Example:
        >>> frames_of(np.array([[0, 1, 2], [1, 2, 3]])).tolist()
        [0, 1, 2, 3]
        >>> frames_of(np.array([[0, 1, 2], [0, 2, 3]])) is None
        True
    """
    if stacks.ndim < 2 or min(stacks.shape[:2]) < 2:
        return None
    if stacks.strides[0] != stacks.strides[1]:  # equal: one memory, which overlaps by itself
        for first in range(1, len(stacks), BLOCK):
            later = stacks[first : first + BLOCK]
            before = stacks[first - 1 : first - 1 + len(later)]
            if not np.array_equal(later[:, :-1], before[:, 1:]):
                return None
    return np.concatenate([stacks[0], stacks[1:, -1]])


class ObservationList:
    """An episode's observations in order.

    While each stack is the previous one advanced by one frame, only its newest frame is kept: half
    an hour of Atari takes 190 MB instead of 760.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._depth = 0

    def append(self, observation: Any) -> None:
        """Take an observation; arrays of stacks are copied."""
        stacked = isinstance(observation, np.ndarray) and observation.ndim == 3
        if stacked and not self._parts and len(observation) > 1:
            self._depth = len(observation)
            self._parts.extend(observation.copy())
        elif self._depth and stacked and self._moves_on(observation):
            self._parts.append(observation[-1].copy())
        else:
            if self._depth:
                self._parts = list(self.stacked())
                self._depth = 0
            self._parts.append(observation)

    def _moves_on(self, stack: NDArray[Any]) -> bool:
        """Whether a stack advances the newest one by one frame."""
        if len(stack) != self._depth:
            return False
        newest = self._parts[1 - self._depth :]
        return all(map(np.array_equal, stack[:-1], newest))

    def stacked(self) -> NDArray[Any]:
        """The stacks so far, as :func:`stacks_of` gives them."""
        return stacks_of(np.stack(self._parts), self._depth)

    @property
    def overlap(self) -> bool:
        """Whether the observations are stacks that overlap."""
        return self._depth > 0

    def parts(self) -> list[Any]:
        """The observations, if they do not :attr:`overlap`."""
        return self._parts
