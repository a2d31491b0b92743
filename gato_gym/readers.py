"""Readers: how one part of an observation is read out of a batch.

* :class:`Reader` -- one part: its path, and how to fetch it from an observation.
* :class:`TextReader`, :class:`ImageReader`, :class:`GridReader` -- strings, photographs, symbols.
* :class:`DigitsReader`, :class:`ValueReader`, :class:`NumbersReader` -- numbers as discrete ids, as
  continuous ids, and as they are.
* :func:`is_text_space`, :func:`number_bounds`, :func:`integer_range` -- what a space's members are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.codecs import Digits, encode_uniform, mu_law
from gato_gym.images import patch_grid, patchify
from gato_gym.options import PlanOptions
from gato_gym.vocabulary import Vocabulary

__all__ = [
    "DigitsReader",
    "GridReader",
    "ImageReader",
    "NumbersReader",
    "Reader",
    "TextReader",
    "ValueReader",
    "frame_shape",
    "integer_range",
    "is_channels_first",
    "is_text_space",
    "number_bounds",
]

LARGEST_SCALED_BOUND = 1e3
"""A number whose bounds are larger than this is companded instead of scaled from its bounds."""

UNBOUNDED = 1e30
"""A bound this large is the idiom for "no bound": the largest float32 is 3.4e38."""


def is_text_space(space: gym.Space[Any]) -> bool:
    """Whether members of ``space`` are strings: Text, and MiniGrid's MissionSpace."""
    return isinstance(space, spaces.Text) or hasattr(space, "mission_func")


@dataclass(frozen=True)
class Reader:
    """One part of an observation.

    Attributes:
        path: Dict keys and Tuple indices from the observation to the part, joined by "/".
        keys: The same, one by one.
        space: The part's own space.
        options: The plan's options.
        vocabulary: The plan's vocabulary.
    """

    path: str
    keys: tuple[Any, ...]
    space: gym.Space[Any]
    options: PlanOptions
    vocabulary: Vocabulary

    def fetch(self, observation: Any) -> Any:
        """The part, of one observation or of a batch of them.

        Raises:
            ValueError: If the observation has no such part.
        """
        for depth, key in enumerate(self.keys):
            try:
                observation = observation[key]
            except (KeyError, IndexError, TypeError) as error:
                where = "/".join(map(str, self.keys[:depth])) or "the observation"
                got = sorted(map(str, observation)) if hasattr(observation, "keys") else ""
                raise ValueError(
                    f"{where} has no {key!r} (it is a {type(observation).__name__} {got}): "
                    f"expected the parts of the plan's observation space, with {self.path!r}"
                ) from error
        return observation

    def array(self, values: Any, rows: int) -> NDArray[Any]:
        """The part of a batch as an array ``[rows, *shape]``.

        Raises:
            ValueError: If it has another shape.
        """
        batch = np.asarray(values)
        expected = (rows, *(self.space.shape or ()))
        if batch.shape != expected:
            raise ValueError(
                f"observation {self.path!r} has shape {batch.shape}: expected {expected}, the "
                f"batch of {rows} that vector environments give for {self.space}"
            )
        return batch

    def numbers(self, values: Any, rows: int) -> NDArray[np.float64]:
        """The part of a batch as float64 ``[rows, N]``, row-major, without NaN.

        Raises:
            ValueError: If a number is NaN and the options call that an error.
        """
        batch = self.array(values, rows)
        flat = batch.reshape(rows, -1).astype(np.float64)
        if batch.dtype.kind == "f" and np.isnan(flat).any():
            if self.options.on_nan == "zero":
                return np.where(np.isnan(flat), 0.0, flat)
            row, *index = (int(i) for i in np.argwhere(np.isnan(batch))[0])
            raise ValueError(
                f"observation {self.path!r} is NaN at index {tuple(index)} of row {row}: expected "
                'a number; PlanOptions(on_nan="zero") reads it as 0'
            )
        return flat


@dataclass(frozen=True)
class TextReader(Reader):
    """Strings."""

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
        return texts


@dataclass(frozen=True)
class ImageReader(Reader):
    """Photographs: uint8, [height, width] or [height, width, channels] or channels first."""

    @cached_property
    def _frame_shape(self) -> tuple[int, ...]:
        return frame_shape(self.space, self.path, self.options)

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        first, second, *rest = self._frame_shape
        if is_channels_first(self._frame_shape):
            return (second, rest[0], first)
        return (first, second, rest[0] if rest else 1)

    @cached_property
    def patch_rows_columns(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width, _ = self.size
        return patch_grid(height, width, patch_size=self.options.patch_size)

    def patches(self, values: Any, rows: int) -> NDArray[np.uint8]:
        """uint8 ``[rows, M, P, P, C]``, patches in raster order."""
        images = self.array(values, rows)
        if self.path in self.options.stacks:
            images = images[:, -1]
        if is_channels_first(self._frame_shape):
            images = np.moveaxis(images, 1, -1)
        return patchify(
            images.reshape(rows, *self.size).astype(np.uint8, copy=False),
            patch_size=self.options.patch_size,
            fit=self.options.image_fit,
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
        return self.array(values, rows).astype(np.uint8).reshape(rows, *self.size)


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
        start = self.vocabulary.discrete.start
        return range(start, start + int(self.digits.ranges.max(initial=0)))

    @cached_property
    def _range(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        low, high = integer_range(self.space)
        return low.ravel(), high.ravel()

    @cached_property
    def digits(self) -> Digits:
        """How the integers are spelt."""
        low, high = self._range
        counts = [int(b) - int(a) + 1 for a, b in zip(low, high, strict=True)]
        return Digits(counts, len(self.vocabulary.discrete))

    def ids(self, values: Any, rows: int) -> NDArray[np.int64]:
        """Discrete ids ``[rows, K]``.

        Raises:
            ValueError: If a member of a Discrete space is outside it. Boxes clip.
        """
        low, high = self._range
        batch = self.array(values, rows).reshape(rows, -1).astype(np.int64)
        outside = (batch < low) | (batch > high)
        if outside.any():
            if not isinstance(self.space, spaces.Box):
                row, index = (int(i) for i in np.argwhere(outside)[0])
                raise ValueError(
                    f"observation {self.path!r} is {batch[row, index]} at flat index {index} of "
                    f"row {row}: expected [{low[index]}, {high[index]}], a member of {self.space}"
                )
            batch = np.clip(batch, low, high)
        return self.digits.encode(batch - low) + self.vocabulary.discrete.start


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
        return self.vocabulary.continuous

    @cached_property
    def _companded(self) -> NDArray[np.bool_]:
        low, high = number_bounds(self.space)
        return (low < -1) | (high > 1)

    def ids(self, values: Any, rows: int) -> NDArray[np.int64]:
        """Continuous ids ``[rows, N]``."""
        numbers = self.numbers(values, rows)
        numbers = np.where(self._companded, mu_law(numbers), numbers)
        bins = encode_uniform(numbers, len(self.vocabulary.continuous))
        return bins.astype(np.int64) + self.vocabulary.continuous.start


@dataclass(frozen=True)
class NumbersReader(Reader):
    """Numbers that stay numbers: a piece of the concatenated vector."""

    @cached_property
    def count(self) -> int:
        """How many numbers."""
        return int(np.prod(self.space.shape or (), dtype=np.int64))

    @cached_property
    def scaling(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Centre and half width ``[N]`` of the bounds, and which numbers are companded instead."""
        low, high = number_bounds(self.space)
        companded = np.maximum(np.abs(low), np.abs(high)) > LARGEST_SCALED_BOUND
        low, high = np.where(companded, -1.0, low), np.where(companded, 1.0, high)
        half = (high - low) / 2
        return (low + high) / 2, np.where(half > 0, half, 1.0), companded


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image's channels are its first axis: that is at most 4 and the last is not."""
    return len(shape) == 3 and shape[0] <= 4 < shape[2]


def number_bounds(space: gym.Space[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds float64 ``[N]`` of a space's numbers, row-major; infinite where there is none."""
    if isinstance(space, spaces.Box):
        low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
        below, above = space.bounded_below.ravel(), space.bounded_above.ravel()
        return (
            np.where(below & (low > -UNBOUNDED), low, -np.inf),
            np.where(above & (high < UNBOUNDED), high, np.inf),
        )
    least, greatest = integer_range(space)
    return least.ravel().astype(np.float64), greatest.ravel().astype(np.float64)


@singledispatch
def integer_range(space: gym.Space[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and greatest value of each integer of a member, both inclusive."""
    raise TypeError(f"{type(space).__name__} holds no integers")


@integer_range.register
def _(space: spaces.Discrete) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array(space.start, np.int64), np.array(space.start + (space.n - 1), np.int64)


@integer_range.register
def _(space: spaces.MultiDiscrete) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = np.asarray(space.start, np.int64)
    return start, start + (np.asarray(space.nvec, np.int64) - 1)


@integer_range.register
def _(space: spaces.MultiBinary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros(space.shape, np.int64), np.ones(space.shape, np.int64)


@integer_range.register
def _(space: spaces.Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return space.low.astype(np.int64), space.high.astype(np.int64)


def frame_shape(space: gym.Space[Any], path: str, options: PlanOptions) -> tuple[int, ...]:
    """The shape of a Box's newest frame: its own shape unless the options call it a stack."""
    shape = tuple(space.shape or ())
    if path not in options.stacks:
        return shape
    if len(shape) < 2:
        raise ValueError(
            f"PlanOptions.stacks names {path!r}, of shape {shape}: expected two axes or more, the "
            "first over frames"
        )
    return shape[1:]
