"""Members of a space as a fixed number of tokens: one codec for each kind of space.

* :class:`SpaceCodec` -- what every codec offers: legal ids, encode, decode.
* :class:`BoxCodec`, :class:`IntegerBoxCodec`, :class:`IntegerCodec`, :class:`TextCodec`.

Spaces made of spaces are in :mod:`gato_gym.plans.composite_codecs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.plans.bounds import Bounds, integer_range, number_bounds
from gato_gym.plans.codecs import Digits, decode_uniform, encode_uniform, inverse_mu_law, mu_law
from gato_gym.plans.parts import Part
from gato_gym.vocabulary import Vocabulary

__all__ = [
    "BoxCodec",
    "IntegerBoxCodec",
    "IntegerCodec",
    "SpaceCodec",
    "TextCodec",
    "digit_ranges",
]

Ids = NDArray[np.int64]

LARGEST_TABLE = 2**20
"""Largest table of the values of a Box's bins, in entries."""


class SpaceCodec(ABC):
    """Members of one space as a fixed number A of tokens.

    A batch is what vector environments take and give: arrays ``[B, ...]``, a tuple of B strings,
    dicts and tuples of these.

    Args:
        part: The space, where it lies, and the choices.

    Attributes:
        ranges: int64 ``[A, 2]``; legal ids at each position, [start, stop).
        continuous: bool ``[A]``; whether a position holds a bin of a continuous value.
    """

    ranges: Ids
    continuous: NDArray[np.bool_]

    def __init__(self, part: Part) -> None:
        self.part = part
        self.space = part.space
        self.vocabulary = part.vocabulary

    def leaves(self, first: int = 0) -> list[tuple[str, int, int]]:
        """``(path, first position, one past the last)`` of each part that has tokens, in order."""
        count = len(self.ranges)
        return [(self.part.path, first, first + count)] if count else []

    @abstractmethod
    def encode(self, members: Any, rows: int) -> Ids:
        """Ids int64 ``[rows, A]`` of a batch as vector environments take it."""

    @abstractmethod
    def decode(self, ids: Ids) -> Any:
        """The batch of members for legal ids ``[rows, A]``."""

    def batch(self, members: Sequence[Any]) -> Any:
        """The batch whose rows are these members."""
        if not len(members):
            return np.zeros((0, *(self.space.shape or ())), self.space.dtype)
        return np.array(members)

    def member(self, batch: Any, row: int) -> Any:
        """A row of a batch, as a member of the space."""
        return batch[row]

    def rows(self, batch: Any) -> int:
        """Number of rows of a batch."""
        return len(batch)


class BoxCodec(SpaceCodec):
    """A Box, one continuous id a number: bins between its bounds, or companded without them."""

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        space = part.space
        assert isinstance(space, spaces.Box)
        ids = self.vocabulary.continuous
        count = int(np.prod(space.shape, dtype=np.int64))
        self.ranges = np.tile(np.array([[ids.start, ids.stop]], np.int64), (count, 1))
        self.continuous = np.ones(count, np.bool_)
        self._low, self._high = space.low.ravel(), space.high.ravel()
        self._bounds = Bounds(self._low, self._high)
        low, high = number_bounds(space)
        self._bounded = np.isfinite(low) & np.isfinite(high)
        self._floor = np.where(self._bounded, low, 0.0)
        self._ceiling = np.where(self._bounded, high, 1.0)

    def encode(self, members: Any, rows: int) -> Ids:
        batch = self.part.numbers(members, rows, self._bounds)
        unit = np.where(self._bounded, self._fraction(batch) * 2 - 1, mu_law(batch))
        bins = encode_uniform(unit, len(self.vocabulary.continuous))
        return bins.astype(np.int64) + self.vocabulary.continuous.start

    def decode(self, ids: Ids) -> Any:
        if self._members is None:
            members = self._members_of(ids - self.vocabulary.continuous.start)
        else:
            members = self._members.take(ids + self._offsets)
        return members.reshape(len(ids), *(self.space.shape or ()))

    @cached_property
    def _offsets(self) -> Ids:
        """Offset ``[A]`` from an id to its place in the flat table."""
        bins = self.vocabulary.continuous
        return np.arange(len(self.ranges)) * len(bins) - bins.start

    @cached_property
    def _members(self) -> NDArray[Any] | None:
        """The number of every bin ``[A, bins]``; None if the table is too large."""
        bins = len(self.vocabulary.continuous)
        if bins * len(self.ranges) > LARGEST_TABLE:
            return None
        every = np.repeat(np.arange(bins)[:, None], len(self.ranges), axis=1)
        return np.ascontiguousarray(self._members_of(every).T)

    def _members_of(self, bins: Ids) -> NDArray[Any]:
        """Numbers ``[B, A]`` of bins ``[B, A]``, of the space's dtype and within its bounds."""
        unit = decode_uniform(bins, len(self.vocabulary.continuous))
        values = self._at((unit + 1) / 2)
        numbers = np.where(self._bounded, 0.0, inverse_mu_law(unit))
        members = np.where(self._bounded, values, self._cast(numbers))
        return np.clip(members, self._low, self._high).astype(self.space.dtype)

    def member(self, batch: Any, row: int) -> Any:
        return batch[row, ...]

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

    def __init__(self, part: Part) -> None:
        super().__init__(part)
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


class IntegerCodec(SpaceCodec):
    """Discrete, MultiDiscrete and MultiBinary: discrete ids from 0 up, large ranges as digits."""

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        space = part.space
        low, high = integer_range(space)
        self._low, self._high = low.ravel(), high.ravel()
        counts = [int(b) - int(a) + 1 for a, b in zip(self._low, self._high, strict=True)]
        self._digits = Digits(counts, len(self.vocabulary.discrete))
        self.ranges = digit_ranges(self._digits, self.vocabulary)
        self.continuous = np.zeros(len(self.ranges), np.bool_)

    def encode(self, members: Any, rows: int) -> Ids:
        bounds = Bounds(self._low, self._high)
        batch = self.part.numbers(members, rows, bounds, discrete=True).astype(np.int64)
        return self._digits.encode(batch - self._low) + self.vocabulary.discrete.start

    def decode(self, ids: Ids) -> Any:
        members = self._digits.decode(ids - self.vocabulary.discrete.start) + self._low
        return members.astype(self.space.dtype).reshape(len(ids), *(self.space.shape or ()))


class TextCodec(SpaceCodec):
    """Text: one position a character of the longest member, then an end symbol fills the rest.

    A character is its index in the sorted character set; the end symbol comes after the last and
    is not legal before ``min_length``.
    """

    def __init__(self, part: Part) -> None:
        super().__init__(part)
        space = part.space
        assert isinstance(space, spaces.Text)
        self._characters = sorted(space.character_set)
        self._index = {character: i for i, character in enumerate(self._characters)}
        ends = [int(i >= space.min_length) for i in range(space.max_length)]
        self._digits = Digits(
            [len(self._characters) + end for end in ends], len(self.vocabulary.discrete)
        )
        self.ranges = digit_ranges(self._digits, self.vocabulary)
        self.continuous = np.zeros(len(self.ranges), np.bool_)

    def encode(self, members: Any, rows: int) -> Ids:
        space, end = self.space, len(self._characters)
        assert isinstance(space, spaces.Text)
        indices = np.full((rows, space.max_length), end, np.int64)
        for row, text in enumerate(map(str, members)):
            if not space.contains(text):
                raise ValueError(f"{self.part.name} is {text!r}: expected a member of {space}")
            indices[row, : len(text)] = [self._index[character] for character in text]
        return self._digits.encode(indices) + self.vocabulary.discrete.start

    def decode(self, ids: Ids) -> Any:
        end = len(self._characters)
        texts = []
        for row in self._digits.decode(ids - self.vocabulary.discrete.start).tolist():
            length = row.index(end) if end in row else len(row)
            texts.append("".join(self._characters[index] for index in row[:length]))
        return tuple(texts)

    def batch(self, members: Sequence[Any]) -> Any:
        return tuple(map(str, members))


def digit_ranges(digits: Digits, vocabulary: Vocabulary) -> Ids:
    """Legal ids int64 ``[K, 2]`` of each digit."""
    start = vocabulary.discrete.start
    return np.stack([np.full_like(digits.ranges, start), start + digits.ranges], axis=1)
