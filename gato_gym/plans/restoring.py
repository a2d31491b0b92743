"""From an encoded observation back to a member of its space.

* :func:`restore` -- one part, by the reader that read it.

Tokens do not keep the older frames of a stack, the pixels of a resized image, or the precision
beyond a bin or a vector patch.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.images import join_patches
from gato_gym.plans.bounds import member_bounds
from gato_gym.plans.codecs import decode_uniform, inverse_mu_law
from gato_gym.plans.photographs import ImageReader, is_channels_first
from gato_gym.plans.readers import (
    CodecReader,
    DigitsReader,
    GridReader,
    NumbersReader,
    Reader,
    ValueReader,
)

__all__ = ["restore"]


@singledispatch
def restore(reader: Reader, content: NDArray[Any]) -> Any:
    """The member of a part's space with this content.

    ``content`` is ids ``[K]``, unscaled numbers ``[N]``, patches ``[M, P, P, C]`` or a grid ``[H,
    W, planes]``.
    """
    raise TypeError(f"{type(reader).__name__} restores nothing")


@restore.register
def _(reader: DigitsReader, content: NDArray[Any]) -> Any:
    digits = content[None].astype(np.int64) - reader.part.vocabulary.discrete.start
    return _member(reader, reader.digits.decode(digits)[0] + reader.bounds.low.astype(np.int64))


@restore.register
def _(reader: ValueReader, content: NDArray[Any]) -> Any:
    ids = reader.part.vocabulary.continuous
    unit = decode_uniform(content.astype(np.int64) - ids.start, len(ids))
    return _member(reader, np.where(reader.companded, inverse_mu_law(unit), unit))


@restore.register
def _(reader: NumbersReader, content: NDArray[Any]) -> Any:
    return _member(reader, content)


@restore.register
def _(reader: GridReader, content: NDArray[Any]) -> Any:
    return _member(reader, content.ravel())


@restore.register
def _(reader: CodecReader, content: NDArray[Any]) -> Any:
    return reader.codec.member(reader.codec.decode(content[None].astype(np.int64)), 0)


@restore.register
def _(reader: ImageReader, content: NDArray[Any]) -> Any:
    assert isinstance(reader.space, spaces.Box)
    if reader.is_whole:
        pixels = reader.enlarged(content[0])
        return pixels if reader.keeps_bytes else _member(reader, reader.from_bytes(pixels))
    rows, columns = reader.patch_rows_columns
    height, width, channels = reader.size
    frames = join_patches(
        content[..., :channels].reshape(reader.frames, rows * columns, *content.shape[1:3], -1),
        rows=rows,
        height=height,
        width=width,
        fit=reader.part.options.image_fit,
    )
    shape = reader.space.shape
    if is_channels_first(reader.frame_shape):
        frames = np.moveaxis(frames, -1, 1)
    frames = frames.reshape(reader.frames, *reader.frame_shape)
    if len(shape) > len(reader.frame_shape):
        frames = np.broadcast_to(frames, shape) if reader.frames == 1 else frames
    pixels = frames.reshape(shape)
    return pixels.copy() if reader.keeps_bytes else _member(reader, reader.from_bytes(pixels))


def _member(reader: Reader, numbers: NDArray[Any]) -> Any:
    """The member whose numbers are nearest to these ``[N]``."""
    space = reader.space
    bounds = member_bounds(space)
    low, high = bounds.low, bounds.high
    dtype = np.dtype(space.dtype)
    values = np.asarray(numbers).ravel()
    if dtype.kind == "f":
        info = np.finfo(dtype.name)
        values = np.clip(values.astype(np.float64), float(info.min), float(info.max)).astype(dtype)
    elif values.dtype.kind == "f":
        # the bounds of 64-bit integers are no floats: compare before the cast
        floats, values = np.rint(values.astype(np.float64)), np.zeros(values.shape, low.dtype)
        within = (floats > low.astype(np.float64)) & (floats < high.astype(np.float64))
        values[within] = floats[within].astype(low.dtype)
        values = np.where(floats >= high.astype(np.float64), high, np.where(within, values, low))
    member = np.clip(values, low, high).astype(dtype).reshape(space.shape or ())
    return member if isinstance(space, spaces.Box) or space.shape else member[()]
