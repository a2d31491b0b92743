"""The parts of an observation space, and which reader each one gets.

* :func:`find_readers` -- the readers of a space, in lexicographic order of their paths.
* :func:`all_paths`, :func:`first_leaf` -- the parts of a space.
* :func:`assemble` -- an observation from its parts.
* :func:`check_paths` -- whether options name paths that exist and fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import singledispatch
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from gato_gym.plans.parts import Part
from gato_gym.plans.photographs import ImageReader, is_photograph
from gato_gym.plans.readers import (
    CodecReader,
    DigitsReader,
    GridReader,
    NumbersReader,
    Reader,
    TextReader,
    ValueReader,
    is_text_space,
)

__all__ = ["all_paths", "assemble", "check_paths", "find_readers", "first_leaf"]


def _is_small_integer(space: spaces.Box, base: int) -> bool:
    if space.dtype.kind not in "iub" or not space.is_bounded() or space.dtype == np.uint64:
        return False
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return bool((high - low < base).all())


@singledispatch
def _reader(space: gym.Space[Any], part: Part) -> Reader:
    if is_text_space(space):
        return TextReader(part)
    raise part.refusal()


@_reader.register
def _(space: spaces.Discrete, part: Part) -> Reader:
    return DigitsReader(part)


@_reader.register(spaces.MultiDiscrete)
@_reader.register(spaces.MultiBinary)
def _(space: gym.Space[Any], part: Part) -> Reader:
    return DigitsReader(part) if part.options.layout == "paper" else NumbersReader(part)


@_reader.register(spaces.Sequence)
@_reader.register(spaces.OneOf)
@_reader.register(spaces.Graph)
def _(space: gym.Space[Any], part: Part) -> Reader:
    return CodecReader(part)


@_reader.register
def _(space: spaces.Box, part: Part) -> Reader:
    path, options = part.path, part.options
    if path in options.grids and options.layout == "lean":
        bounds = (space.low.min(initial=0), space.high.max(initial=0))
        if space.dtype.kind not in "iu" or len(space.shape) not in (2, 3) or bounds[1] > 255:
            raise ValueError(
                f"PlanOptions.grids names {path!r}, which is {space}: expected integers in "
                "[0, 255] of shape [height, width] or [height, width, planes]"
            )
        if bounds[0] < 0:
            raise ValueError(
                f"PlanOptions.grids names {path!r}, whose least symbol is {bounds[0]}: expected 0"
            )
        return GridReader(part)
    if path not in options.grids and is_photograph(part):
        return ImageReader(part)
    if options.layout == "lean":
        return NumbersReader(part)
    if _is_small_integer(space, len(part.vocabulary.discrete)):
        return DigitsReader(part)
    return ValueReader(part)


def find_readers(part: Part) -> list[Reader]:
    """The readers of everything in a part that is not skipped, depth first, keys sorted.

    Raises:
        ValueError: A part's space has no tokens.
    """
    if part.path in part.options.skip:
        return []
    children = part.children()
    if children is None:
        return [_reader(part.space, part)]
    return [reader for _, child in children for reader in find_readers(child)]


def all_paths(part: Part) -> list[str]:
    """Every path of a part, inner nodes included."""
    below = [path for _, child in part.children() or () for path in all_paths(child)]
    return [part.path, *below]


def first_leaf(part: Part) -> Part | None:
    """The first part that has no parts, skipped or not; None when there is none at all."""
    children = part.children()
    if children is None:
        return part
    leaves = (first_leaf(child) for _, child in children)
    return next((leaf for leaf in leaves if leaf is not None), None)


def assemble(part: Part, members: Mapping[tuple[Any, ...], Any]) -> Any:
    """The observation of members by keys; a Dict omits missing ones, a Tuple has None."""
    children = part.children()
    if children is None:
        return members.get(part.keys)
    parts = {key: assemble(child, members) for key, child in children}
    if isinstance(part.space, spaces.Tuple):
        return tuple(parts.values())
    return {key: member for key, member in parts.items() if member is not None}


def check_paths(part: Part, readers: Sequence[Reader]) -> None:
    """Refuse options whose paths do not fit a space, and spaces whose paths collide.

    Raises:
        ValueError: Names the path, and the nearest existing one.
    """
    paths, options = all_paths(part), part.options
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise ValueError(
            f"observation space has two parts with the path {repeated[0]!r}: expected Dict keys "
            'that differ once joined by "/"; rename one with a wrapper'
        )
    for name in ("grids", "images", "stacks", "skip"):
        for path in getattr(options, name):
            if path not in paths:
                nearest = get_close_matches(path, paths, n=1)
                hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
                raise ValueError(
                    f"PlanOptions.{name} names {path!r}: expected one of {paths}{hint}"
                )
    for reader in readers:
        if reader.path in options.stacks and not isinstance(reader, ImageReader):
            raise ValueError(
                f"PlanOptions.stacks names {reader.path!r}, {reader.space}: expected a stack of "
                "uint8 images of 16 pixels or more a side, 32 rows without channels; name it in "
                "PlanOptions.images too to read it as one"
            )
        if reader.path in options.images and not isinstance(reader, ImageReader):
            raise ValueError(
                f"PlanOptions.images names {reader.path!r}, {reader.space}: expected a Box with "
                "bounds that no other option names"
            )
        if reader.path in options.grids and not isinstance(reader.space, spaces.Box):
            raise ValueError(
                f"PlanOptions.grids names {reader.path!r}, {reader.space}: expected a Box of "
                "integers in [0, 255]"
            )
