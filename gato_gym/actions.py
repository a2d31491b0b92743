"""Actions as tokens: one codec for each kind of action space.

* :class:`ActionCodec` -- what every codec offers: legal ids, encode, decode.
* :func:`compile_action` -- the codec of an action space, nested ones included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.codecs import Digits, decode_uniform, encode_uniform, inverse_mu_law, mu_law
from gato_gym.readers import integer_range, number_bounds
from gato_gym.vocabulary import Vocabulary

__all__ = ["ActionCodec", "compile_action"]

Ids = NDArray[np.int64]


class ActionCodec(ABC):
    """Actions of one space as a fixed number A of tokens.

    Args:
        space: The space.
        path: Where it lies in the whole action, for errors.
        vocabulary: The ids.

    Attributes:
        ranges: int64 ``[A, 2]``; legal ids at each position, [start, stop).
        continuous: bool ``[A]``; whether a position holds a bin of a continuous value.
    """

    ranges: Ids
    continuous: NDArray[np.bool_]

    def __init__(self, space: gym.Space[Any], path: str, vocabulary: Vocabulary) -> None:
        self.space = space
        self.path = path
        self.vocabulary = vocabulary

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        """``(path, first position, one past the last)`` of each part that has tokens, in order."""
        count = len(self.ranges)
        return [(self.path, first, first + count)] if count else []

    @abstractmethod
    def encode(self, actions: Any, rows: int) -> Ids:
        """Ids int64 ``[rows, A]`` of a batch as vector environments take it."""

    @abstractmethod
    def decode(self, ids: Ids) -> Any:
        """The batch of members that legal ids ``[rows, A]`` stand for."""

    def batch_of_one(self, action: Any) -> Any:
        """The batch whose only row is ``action``."""
        return np.asarray(action)[None]

    def first(self, actions: Any) -> Any:
        """Row 0 of a batch, as a member of the space."""
        return actions[0]

    def rows(self, actions: Any) -> int:
        """Number of rows of a batch."""
        return len(actions)

    def _array(self, actions: Any, rows: int) -> NDArray[Any]:
        batch = np.asarray(actions)
        expected = (rows, *(self.space.shape or ()))
        if batch.shape != expected:
            raise ValueError(
                f"action {self.path!r} has shape {batch.shape}: expected {expected}, a batch of "
                f"members of {self.space}"
            )
        return batch.reshape(rows, -1)


class BoxCodec(ActionCodec):
    """A Box, one continuous id a number: bins between its bounds, or companded without them."""

    def __init__(self, space: spaces.Box, path: str, vocabulary: Vocabulary) -> None:
        super().__init__(space, path, vocabulary)
        ids = vocabulary.continuous
        count = int(np.prod(space.shape, dtype=np.int64))
        self.ranges = np.tile(np.array([[ids.start, ids.stop]], np.int64), (count, 1))
        self.continuous = np.ones(count, np.bool_)
        self._low, self._high = space.low.ravel(), space.high.ravel()
        low, high = number_bounds(space)
        self._bounded = np.isfinite(low) & np.isfinite(high)
        self._floor = np.where(self._bounded, low, 0.0)
        self._ceiling = np.where(self._bounded, high, 1.0)

    def encode(self, actions: Any, rows: int) -> Ids:
        batch = self._array(actions, rows)
        if batch.dtype.kind == "f" and np.isnan(batch).any():
            row, index = (int(i) for i in np.argwhere(np.isnan(batch))[0])
            raise ValueError(
                f"action {self.path!r} is NaN at flat index {index} of row {row}: expected a number"
            )
        unit = np.where(self._bounded, self._fraction(batch) * 2 - 1, mu_law(batch))
        bins = encode_uniform(unit, len(self.vocabulary.continuous))
        return bins.astype(np.int64) + self.vocabulary.continuous.start

    def decode(self, ids: Ids) -> Any:
        unit = decode_uniform(
            ids - self.vocabulary.continuous.start, len(self.vocabulary.continuous)
        )
        values = self._at((unit + 1) / 2)
        numbers = np.where(self._bounded, 0.0, inverse_mu_law(unit))
        companded = self._cast(numbers)
        members = np.where(self._bounded, values, companded)
        members = np.clip(members, self._low, self._high)
        return members.astype(self.space.dtype).reshape(len(ids), *(self.space.shape or ()))

    def first(self, actions: Any) -> Any:
        return actions[0, ...]

    def _fraction(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        """How far between its bounds each number lies, in [0, 1]; 0.5 where they are equal."""
        width = self._ceiling - self._floor
        values = np.clip(batch.astype(np.float64), self._floor, self._ceiling)
        return np.where(width > 0, (values - self._floor) / np.where(width > 0, width, 1.0), 0.5)

    def _at(self, fraction: NDArray[np.float64]) -> NDArray[Any]:
        """The number at a fraction of the way between the bounds."""
        return self._cast(self._floor * (1 - fraction) + self._ceiling * fraction)

    def _cast(self, numbers: NDArray[np.float64]) -> NDArray[Any]:
        largest = float(np.finfo(np.dtype(self.space.dtype).name).max)
        members: NDArray[Any] = np.clip(numbers, -largest, largest).astype(self._low.dtype)
        return members


class IntegerBoxCodec(BoxCodec):
    """A Box of integers or bools: the same bins, in exact integer arithmetic.

    A Box of fewer values than bins keeps every one of them: half a bin is less than half a unit.
    """

    def __init__(self, space: spaces.Box, path: str, vocabulary: Vocabulary) -> None:
        super().__init__(space, path, vocabulary)
        self._base = self._low.astype(np.uint64)
        self._width = self._high.astype(np.uint64) - self._base

    def _fraction(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        if np.result_type(batch, self._low).kind == "f":
            return super()._fraction(np.rint(batch))
        inside = np.clip(batch, self._low, self._high).astype(self._low.dtype)
        offset = (inside.astype(np.uint64) - self._base).astype(np.float64)
        width = self._width.astype(np.float64)
        return np.where(width > 0, offset / np.where(width > 0, width, 1.0), 0.5)

    def _at(self, fraction: NDArray[np.float64]) -> NDArray[Any]:
        offset = np.rint(fraction * self._width.astype(np.float64)).astype(np.uint64)
        members: NDArray[Any] = (self._base + offset).astype(self._low.dtype)
        return members

    def _cast(self, numbers: NDArray[np.float64]) -> NDArray[Any]:
        integers = np.rint(numbers).astype(np.int64)
        if self._low.dtype.kind == "i":
            integers = np.clip(integers, self._low, self._high)
        return integers.astype(self._low.dtype)


class IntegerCodec(ActionCodec):
    """Discrete, MultiDiscrete and MultiBinary: discrete ids from 0 up, large ranges as digits."""

    def __init__(self, space: gym.Space[Any], path: str, vocabulary: Vocabulary) -> None:
        super().__init__(space, path, vocabulary)
        low, high = integer_range(space)
        self._low, self._high = low.ravel(), high.ravel()
        counts = [int(b) - int(a) + 1 for a, b in zip(self._low, self._high, strict=True)]
        self._digits = Digits(counts, len(vocabulary.discrete))
        self.ranges = digit_ranges(self._digits, vocabulary)
        self.continuous = np.zeros(len(self.ranges), np.bool_)

    def encode(self, actions: Any, rows: int) -> Ids:
        batch = self._array(actions, rows).astype(np.int64)
        outside = (batch < self._low) | (batch > self._high)
        if outside.any():
            row, index = (int(i) for i in np.argwhere(outside)[0])
            raise ValueError(
                f"action {self.path!r} is {batch[row, index]} at flat index {index} of row {row}: "
                f"expected [{self._low[index]}, {self._high[index]}], a member of {self.space}"
            )
        return self._digits.encode(batch - self._low) + self.vocabulary.discrete.start

    def decode(self, ids: Ids) -> Any:
        members = self._digits.decode(ids - self.vocabulary.discrete.start) + self._low
        return members.astype(self.space.dtype).reshape(len(ids), *(self.space.shape or ()))


class TextCodec(ActionCodec):
    """Text: one position a character of the longest member, then an end symbol fills the rest.

    A character is its index in the sorted character set; the end symbol comes after the last and
    is not legal before ``min_length``.
    """

    def __init__(self, space: spaces.Text, path: str, vocabulary: Vocabulary) -> None:
        super().__init__(space, path, vocabulary)
        self._characters = sorted(space.character_set)
        self._index = {character: i for i, character in enumerate(self._characters)}
        ends = [int(i >= space.min_length) for i in range(space.max_length)]
        self._digits = Digits(
            [len(self._characters) + end for end in ends], len(vocabulary.discrete)
        )
        self.ranges = digit_ranges(self._digits, vocabulary)
        self.continuous = np.zeros(len(self.ranges), np.bool_)

    def encode(self, actions: Any, rows: int) -> Ids:
        space, end = self.space, len(self._characters)
        assert isinstance(space, spaces.Text)
        indices = np.full((rows, space.max_length), end, np.int64)
        for row, text in enumerate(map(str, actions)):
            if not space.contains(text):
                raise ValueError(f"action {self.path!r} is {text!r}: expected a member of {space}")
            indices[row, : len(text)] = [self._index[character] for character in text]
        return self._digits.encode(indices) + self.vocabulary.discrete.start

    def decode(self, ids: Ids) -> Any:
        end = len(self._characters)
        texts = []
        for row in self._digits.decode(ids - self.vocabulary.discrete.start).tolist():
            length = row.index(end) if end in row else len(row)
            texts.append("".join(self._characters[index] for index in row[:length]))
        return tuple(texts)

    def batch_of_one(self, action: Any) -> Any:
        return (str(action),)


class NestedCodec(ActionCodec):
    """Dict and Tuple: their parts' tokens one after another, keys sorted."""

    def __init__(
        self,
        space: gym.Space[Any],
        path: str,
        vocabulary: Vocabulary,
        *,
        children: Mapping[Any, ActionCodec],
    ) -> None:
        super().__init__(space, path, vocabulary)
        self._children = dict(children)
        parts = list(self._children.values())
        self.ranges = np.concatenate([np.zeros((0, 2), np.int64), *(p.ranges for p in parts)])
        self.continuous = np.concatenate([np.zeros(0, np.bool_), *(p.continuous for p in parts)])
        self._stops = np.cumsum([len(part.ranges) for part in parts])

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        found: list[tuple[str, int, int]] = []
        for child in self._children.values():
            found += child.leaves(first)
            first += len(child.ranges)
        return found

    def encode(self, actions: Any, rows: int) -> Ids:
        parts = [
            child.encode(self._part(actions, key), rows) for key, child in self._children.items()
        ]
        return np.concatenate([np.zeros((rows, 0), np.int64), *parts], axis=1)

    def decode(self, ids: Ids) -> Any:
        pieces = np.split(ids, self._stops[:-1], axis=1)
        return self._join(
            child.decode(piece)
            for child, piece in zip(self._children.values(), pieces, strict=True)
        )

    def batch_of_one(self, action: Any) -> Any:
        return self._join(
            child.batch_of_one(self._part(action, key)) for key, child in self._children.items()
        )

    def first(self, actions: Any) -> Any:
        return self._join(child.first(actions[key]) for key, child in self._children.items())

    def rows(self, actions: Any) -> int:
        key, child = next(iter(self._children.items()))
        rows: int = child.rows(self._part(actions, key))
        return rows

    def _part(self, actions: Any, key: Any) -> Any:
        try:
            return actions[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"action {self.path!r} is a {type(actions).__name__} without {key!r}: expected a "
                f"member of {self.space}"
            ) from error

    def _join(self, parts: Any) -> Any:
        if isinstance(self.space, spaces.Tuple):
            return tuple(parts)
        return dict(zip(self._children, parts, strict=True))


def digit_ranges(digits: Digits, vocabulary: Vocabulary) -> Ids:
    """Legal ids int64 ``[K, 2]`` of each digit."""
    start = vocabulary.discrete.start
    return np.stack([np.full_like(digits.ranges, start), start + digits.ranges], axis=1)


@singledispatch
def compile_action(
    space: gym.Space[Any], vocabulary: Vocabulary, *, keys: Sequence[Any] = ()
) -> ActionCodec:
    """The codec of an action space.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary, Text, or a Dict or Tuple of these.
        vocabulary: The ids.
        keys: Where ``space`` lies in the whole action.

    Raises:
        ValueError: If the space is of another kind.
    """
    raise ValueError(
        f"action {'/'.join(map(str, keys))!r} is a {type(space).__name__} space: expected Box, "
        "Discrete, MultiDiscrete, MultiBinary, Text, Dict or Tuple; transform it with a wrapper"
    )


@compile_action.register
def _(space: spaces.Box, vocabulary: Vocabulary, *, keys: Sequence[Any] = ()) -> ActionCodec:
    codec = BoxCodec if space.dtype.kind == "f" else IntegerBoxCodec
    return codec(space, "/".join(map(str, keys)), vocabulary)


@compile_action.register(spaces.Discrete)
@compile_action.register(spaces.MultiDiscrete)
@compile_action.register(spaces.MultiBinary)
def _(space: gym.Space[Any], vocabulary: Vocabulary, *, keys: Sequence[Any] = ()) -> ActionCodec:
    return IntegerCodec(space, "/".join(map(str, keys)), vocabulary)


@compile_action.register
def _(space: spaces.Text, vocabulary: Vocabulary, *, keys: Sequence[Any] = ()) -> ActionCodec:
    return TextCodec(space, "/".join(map(str, keys)), vocabulary)


@compile_action.register
def _(space: spaces.Dict, vocabulary: Vocabulary, *, keys: Sequence[Any] = ()) -> ActionCodec:
    ordered = sorted(space.spaces.items(), key=lambda item: str(item[0]))
    children = {k: compile_action(sub, vocabulary, keys=(*keys, k)) for k, sub in ordered}
    return NestedCodec(space, "/".join(map(str, keys)), vocabulary, children=children)


@compile_action.register(spaces.Tuple)
def _(space: spaces.Tuple[Any], vocabulary: Vocabulary, *, keys: Sequence[Any] = ()) -> ActionCodec:
    children = {
        i: compile_action(sub, vocabulary, keys=(*keys, i)) for i, sub in enumerate(space.spaces)
    }
    return NestedCodec(space, "/".join(map(str, keys)), vocabulary, children=children)
