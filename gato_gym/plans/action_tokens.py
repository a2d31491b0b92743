"""The actions of a space as tokens: ids of fixed ranges, one for each position.

* :class:`ActionTokens` -- encodes actions, and decodes ids that it has checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.plans.bounds import Bounds
from gato_gym.plans.composite_codecs import compile_codec
from gato_gym.plans.parts import Part

__all__ = ["ActionTokens"]


class ActionTokens:
    """The actions of a space as A ids each.

    Attributes:
        ranges: int32 ``[A, 2]``; legal ids at each position, [start, stop).
        is_continuous: bool ``[A]``; positions that hold a bin of a continuous value.

    Raises:
        ValueError: The space has nothing to choose, or no codec.
    """

    def __init__(self, part: Part) -> None:
        self._codec = compile_codec(part)
        self.ranges = self._codec.ranges.astype(np.int32)
        self.is_continuous = self._codec.continuous
        self._legal_ids = Bounds(self.ranges[:, 0], self.ranges[:, 1] - 1)
        if not len(self.ranges):
            raise ValueError(
                f"action space {part.space} has nothing to choose: expected one number or more"
            )

    def leaves(self) -> list[tuple[str, int, int]]:
        """Path of each number's space, and its first and last positions, [start, stop)."""
        return self._codec.leaves()

    def encode_one(self, action: Any) -> NDArray[np.int32]:
        """Ids int32 ``[A]`` of one action."""
        ids: NDArray[Any] = self._codec.encode(self._codec.batch([action]), 1)[0]
        return ids.astype(np.int32)

    def encode(self, actions: Any) -> NDArray[np.int32]:
        """Ids int32 ``[B, A]`` of a batch of actions as vector environments take it."""
        return self._codec.encode(actions, self._codec.rows(actions)).astype(np.int32)

    def decode_one(self, ids: NDArray[Any]) -> Any:
        """The action of ids ``[A]``."""
        return self._codec.member(self._codec.decode(self._legal(ids[None], ids.shape)), 0)

    def decode(self, ids: NDArray[Any]) -> Any:
        """The actions of ids ``[B, A]``, as vector environments take them."""
        return self._codec.decode(self._legal(ids, ids.shape))

    def _legal(self, ids: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.int64]:
        if ids.ndim != 2 or ids.shape[1] != len(self.ranges) or ids.dtype.kind not in "iu":
            raise ValueError(
                f"action tokens are {ids.dtype} of shape {shape}: expected ints, "
                f"{len(self.ranges)} for each action"
            )
        if not self._legal_ids.hold(ids):
            outside = (ids < self.ranges[:, 0]) | (ids >= self.ranges[:, 1])
            row, position = (int(i) for i in np.argwhere(outside)[0])
            start, stop = self.ranges[position].tolist()
            raise ValueError(
                f"action token {ids[row, position]} at position {position} is outside its range "
                f"[{start}, {stop}): decode takes what encode_action or predict returned"
            )
        return ids.astype(np.int64, copy=False)
