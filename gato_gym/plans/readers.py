"""Readers: how one part of an observation is read from a batch.

* :class:`Reader` -- one part, and how to fetch it from an observation.
* :class:`TextReader`, :class:`GridReader` -- strings and symbols; images are in
  :mod:`gato_gym.plans.photographs`.
* :class:`DigitsReader`, :class:`ValueReader`, :class:`NumbersReader` -- numbers as discrete ids, as
  continuous ids, and as they are.
* :class:`CodecReader` -- a Sequence, a OneOf or a Graph, as the ids of its codec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.plans.bounds import Bounds, integer_range, member_bounds, number_bounds
from gato_gym.plans.codecs import Digits, encode_uniform, mu_law
from gato_gym.plans.composite_codecs import compile_codec
from gato_gym.plans.parts import Part
from gato_gym.plans.space_codecs import SpaceCodec

__all__ = [
    "CodecReader",
    "DigitsReader",
    "GridReader",
    "NumbersReader",
    "Reader",
    "TextReader",
    "ValueReader",
]

LARGEST_SCALED_BOUND = 1e3
"""A number of a Box whose bounds are larger is companded instead of scaled from its bounds."""


@dataclass(frozen=True)
class Reader:
    """One part of an observation.

    Attributes:
        part: Its space and path, and the plan's options and vocabulary.
    """

    part: Part

    @property
    def path(self) -> str:
        """Dict keys and Tuple indices from the observation to the part, joined by "/"."""
        return self.part.path

    @property
    def space(self) -> gym.Space[Any]:
        """The part's own space."""
        return self.part.space

    @cached_property
    def bounds(self) -> Bounds:
        """The bounds of each number of a member; see :func:`member_bounds`."""
        return member_bounds(self.space)

    def fetch(self, observation: Any) -> Any:
        """The part, from one observation or a batch.

        Raises:
            ValueError: The observation has no such part.
        """
        keys = self.part.keys
        for depth, key in enumerate(keys):
            try:
                observation = observation[key]
            except (KeyError, IndexError, TypeError) as error:
                where = "/".join(map(str, keys[:depth])) or "the observation"
                got = sorted(map(str, observation)) if hasattr(observation, "keys") else ""
                raise ValueError(
                    f"{where} has no {key!r} (it is a {type(observation).__name__} {got}): "
                    f"expected the parts of the plan's observation space, with {self.path!r}"
                ) from error
        return observation

    def batch_of_one(self, part: Any) -> Any:
        """The batch whose only row is this part of one observation."""
        return np.asarray(part)[None]


@dataclass(frozen=True)
class TextReader(Reader):
    """Strings."""

    def __reduce__(self) -> tuple[Any, ...]:
        return TextReader, (self.part,)  # without the cache, which does not pickle

    def strings(self, values: Any, rows: int) -> list[str]:
        """The strings of a batch, one a row.

        Raises:
            ValueError: If there is not one string a row.
        """
        texts = [str(text) for text in values] if not isinstance(values, str) else []
        if len(texts) != rows:
            raise ValueError(
                f"observation {self.path!r} holds {len(texts)} strings: expected one for each of "
                f"{rows} rows, as a tuple or an array of str"
            )
        if isinstance(self.space, spaces.Text):
            self._refuse_foreign(texts, self.space)
        return texts

    def batch_of_one(self, part: Any) -> Any:
        return (str(part),)

    @cached_property
    def _is_member(self) -> Callable[[str], bool]:
        return lru_cache(maxsize=4096)(self.space.contains)

    def _refuse_foreign(self, texts: list[str], space: spaces.Text) -> None:
        """Count strings outside a Text space; the options may refuse them."""
        foreign = [row for row, text in enumerate(texts) if not self._is_member(text)]
        if not foreign:
            return
        self.part.outside[self.path] += len(foreign)
        if self.part.options.outside == "error":
            raise ValueError(
                f"observation {self.path!r} is {texts[foreign[0]]!r} in row {foreign[0]}: expected "
                f"a member of {space}"
            )


@dataclass(frozen=True)
class GridReader(Reader):
    """Small symbolic grids: each cell holds a tuple of symbols in [0, 256)."""

    kind = "grid"
    width = 1
    id_range = range(0)

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Height, width and planes."""
        shape = self.space.shape or ()
        return (shape[0], shape[1], shape[2] if len(shape) == 3 else 1)

    def symbols(self, values: Any, rows: int) -> NDArray[np.uint8]:
        """uint8 ``[rows, H, W, planes]``."""
        inside = self.part.numbers(values, rows, self.bounds, discrete=True)
        return inside.astype(np.uint8).reshape(rows, *self.size)


@dataclass(frozen=True)
class DigitsReader(Reader):
    """Integers of a small range, each one discrete id, or several when it has many values."""

    kind = "discrete"

    @property
    def width(self) -> int:
        """How many ids."""
        return len(self.digits.ranges)

    @property
    def id_range(self) -> range:
        """The ids it may hold."""
        start = self.part.vocabulary.discrete.start
        return range(start, start + int(self.digits.ranges.max(initial=0)))

    @cached_property
    def _range(self) -> Bounds:
        low, high = integer_range(self.space)
        return Bounds(low.ravel(), high.ravel())

    @cached_property
    def digits(self) -> Digits:
        """How the integers are spelt."""
        low, high = self._range.low, self._range.high
        counts = [int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)]
        return Digits(counts, len(self.part.vocabulary.discrete))

    def ids(self, values: Any, rows: int) -> NDArray[np.int64]:
        """Discrete ids ``[rows, K]``.

        Raises:
            ValueError: If a member of a Discrete space is outside it. Boxes clip.
        """
        low, high = self._range.low, self._range.high
        discrete = not isinstance(self.space, spaces.Box)
        batch = self.part.numbers(values, rows, self._range, discrete=discrete).astype(np.int64)
        if not discrete:
            batch = np.minimum(np.maximum(batch, low), high)
        ids = self.digits.encode(batch - low)
        ids += self.part.vocabulary.discrete.start
        return ids


@dataclass(frozen=True)
class ValueReader(Reader):
    """Numbers, each one continuous id: companded unless its bounds are within [-1, 1]."""

    kind = "value"

    @cached_property
    def width(self) -> int:
        """How many ids."""
        return int(np.prod(self.space.shape or (), dtype=np.int64))

    @property
    def id_range(self) -> range:
        """The ids it may hold."""
        return self.part.vocabulary.continuous

    @cached_property
    def companded(self) -> NDArray[np.bool_]:
        """Which numbers are companded: bool ``[N]``."""
        low, high = number_bounds(self.space)
        return (low < -1) | (high > 1)

    @cached_property
    def _all_companded(self) -> bool:
        return bool(self.companded.all())

    @cached_property
    def _any_companded(self) -> bool:
        return bool(self.companded.any())

    def ids(self, values: Any, rows: int) -> NDArray[np.int32]:
        """Continuous ids ``[rows, N]``."""
        numbers = self.part.numbers(values, rows, self.bounds)
        if self._all_companded:
            numbers = mu_law(numbers)
        elif self._any_companded:
            numbers = np.where(self.companded, mu_law(numbers), numbers)
        bins = encode_uniform(numbers, len(self.part.vocabulary.continuous))
        bins += np.int32(self.part.vocabulary.continuous.start)
        return bins


@dataclass(frozen=True)
class NumbersReader(Reader):
    """Numbers that stay numbers: a piece of the concatenated vector."""

    def numbers(self, values: Any, rows: int) -> NDArray[Any]:
        """The part of a batch as ``[rows, N]``, row-major, without NaN."""
        discrete = not isinstance(self.space, spaces.Box)
        return self.part.numbers(values, rows, self.bounds, discrete=discrete)

    @cached_property
    def count(self) -> int:
        """How many numbers."""
        return int(np.prod(self.space.shape or (), dtype=np.int64))

    @cached_property
    def scaling(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Centre and half width ``[N]`` of the bounds, and which numbers are companded instead."""
        low, high = number_bounds(self.space)
        companded = np.maximum(np.abs(low), np.abs(high)) > LARGEST_SCALED_BOUND
        if not isinstance(self.space, spaces.Box):  # choices: companding would merge large ones
            companded = np.zeros_like(companded)
        low, high = np.where(companded, -1.0, low), np.where(companded, 1.0, high)
        half = (high - low) / 2
        return (low + high) / 2, np.where(half > 0, half, 1.0), companded


@dataclass(frozen=True)
class CodecReader(Reader):
    """A Sequence, a OneOf or a Graph: the ids that its codec spells it with."""

    @cached_property
    def codec(self) -> SpaceCodec:
        """The codec."""
        return compile_codec(self.part)

    @property
    def kind(self) -> str:
        """The kind of space, in small letters."""
        kinds = {spaces.Sequence: "sequence", spaces.OneOf: "oneof", spaces.Graph: "graph"}
        return next(kind for base, kind in kinds.items() if isinstance(self.space, base))

    @property
    def width(self) -> int:
        """How many ids."""
        return len(self.codec.ranges)

    @property
    def id_range(self) -> range:
        """The ids it may hold."""
        return range(int(self.codec.ranges.min()), int(self.codec.ranges.max()))

    def ids(self, values: Any, rows: int) -> NDArray[np.int64]:
        """Ids ``[rows, K]``."""
        return self.codec.encode(values, rows)

    def batch_of_one(self, part: Any) -> Any:
        return self.codec.batch([part])
