"""Which parts of an observation are photographs, and how they become patches.

* :func:`is_photograph` -- whether a part is read as images.
* :class:`ImageReader` -- the reader of such a part.
* :func:`frame_shape` -- the shape of one frame.

An image becomes patches of its newest frames, or one token of all its frames, by
``PlanOptions.image_size``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gato_gym.images import patch_grid, patch_intervals, patchify, shrink
from gato_gym.plans.bounds import Bounds
from gato_gym.plans.parts import Part
from gato_gym.plans.readers import Reader

__all__ = ["ImageReader", "frame_shape", "is_channels_first", "is_photograph"]

SMALLEST_PHOTOGRAPH = 16
"""A Box with fewer rows or columns is not an image unless the options name it."""

LEAST_GREY_ROWS = 32
"""A Box without channels and with fewer rows is a grid of characters: a terminal has 21 to 25."""


def is_photograph(part: Part) -> bool:
    """Whether a Box is read as images.

    It is if the options name it, or if it has at least 16 rows and columns and is

    * uint8 between 0 and 255, with channels or at least 32 rows, or
    * a float of 1, 3 or 4 channels between 0 and 1 or 0 and 255.

    Boards of zeros and ones and grids of characters are numbers, therefore.

    Raises:
        ValueError: The options name it and its shape or bounds are not an image's.
    """
    space, named = part.space, part.path in part.options.images
    assert isinstance(space, spaces.Box)
    shape = frame_shape(part)
    if named:
        _check_named(part, space, shape)
        return True
    if len(shape) not in (2, 3):
        return False
    height, width, channels = _size(shape)
    if min(height, width) < SMALLEST_PHOTOGRAPH:
        return False
    low, tops = (space.low == 0).all(), [(space.high == top).all() for top in (1, 255)]
    if space.dtype == np.uint8:
        return bool(low and tops[1] and (len(shape) == 3 or height >= LEAST_GREY_ROWS))
    floats = space.dtype.kind == "f" and low and any(tops)
    return bool(floats and len(shape) == 3 and channels in (1, 3, 4))


def _check_named(part: Part, space: spaces.Box, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or not space.is_bounded() or (space.low == space.high).any():
        raise ValueError(
            f"PlanOptions.images names {part.path!r}, {space}: expected a Box with bounds, of "
            "shape [height, width], with channels first or last, and frames before these"
        )


def frame_shape(part: Part) -> tuple[int, ...]:
    """The shape of one frame of a Box: its own, without a first axis over frames.

    A Box has frames if it has four axes or ``PlanOptions.stacks`` names it.

    Raises:
        ValueError: A stack has fewer than two axes.
    """
    shape = tuple(part.space.shape or ())
    if part.path not in part.options.stacks:
        return shape[1:] if len(shape) == 4 else shape
    if len(shape) < 2:
        raise ValueError(
            f"PlanOptions.stacks names {part.path!r}, of shape {shape}: expected two axes or more, "
            "the first over frames"
        )
    return shape[1:]


def is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether an image's channels are its first axis: the shorter of the first and the last."""
    return len(shape) == 3 and shape[0] < shape[2]


def _size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of a frame."""
    first, second, *rest = shape
    if is_channels_first(shape):
        return (second, rest[0], first)
    return (first, second, rest[0] if rest else 1)


@dataclass(frozen=True)
class ImageReader(Reader):
    """Images: [height, width] or with channels, first or last; with a first axis over frames."""

    @cached_property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame, as the space has it."""
        return frame_shape(self.part)

    @property
    def _has_frames(self) -> bool:
        return len(self.frame_shape) < len(self.space.shape or ())

    @property
    def is_whole(self) -> bool:
        """Whether the image is one token, its frames side by side as channels."""
        return self.part.options.image_size > 0

    @property
    def stacked(self) -> int:
        """Frames whose channels one image has: more than one in a whole image of a stack."""
        return (self.space.shape or ())[0] if self._has_frames and self.is_whole else 1

    @property
    def frames(self) -> int:
        """Number of images read: all frames, or one of a stack that the options name."""
        newest_only = self.is_whole or self.path in self.part.options.stacks
        return (self.space.shape or ())[0] if self._has_frames and not newest_only else 1

    @cached_property
    def size(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = _size(self.frame_shape)
        return height, width, channels * self.stacked

    @cached_property
    def patch_rows_columns(self) -> tuple[int, int]:
        """Rows and columns of a frame's patches."""
        if self.is_whole:
            return 1, 1
        height, width, _ = self.size
        return patch_grid(height, width, patch_size=self.part.options.patch_size)

    @property
    def num_patches(self) -> int:
        """M, patches of all frames."""
        rows, columns = self.patch_rows_columns
        return self.frames * rows * columns

    @property
    def intervals(self) -> NDArray[np.int32]:
        """int32 ``[M, 4]``; see :func:`gato_gym.images.patch_intervals`."""
        return np.tile(patch_intervals(*self.patch_rows_columns), (self.frames, 1))

    def patches(self, values: Any, rows: int) -> NDArray[np.uint8]:
        """uint8 ``[rows, M, P, P, C]``: frame by frame, patches in raster order."""
        pixels = self._as_bytes(self.part.array(values, rows))
        if self.is_whole:
            return self._whole(pixels)[:, None]
        if self._has_frames:
            pixels = pixels[:, -self.frames :].reshape(rows * self.frames, *self.frame_shape)
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        elif is_channels_first(self.frame_shape):
            pixels = np.moveaxis(pixels, 1, -1)
        options = self.part.options
        patches = patchify(pixels, patch_size=options.patch_size, fit=options.image_fit)
        return patches.reshape(rows, self.num_patches, *patches.shape[2:])

    def _whole(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images uint8 ``[rows, S, S, C]``, the channels of the oldest frame first."""
        height, width, channels = self.size
        planes = pixels.reshape(len(pixels), self.stacked, *self.frame_shape)
        if len(self.frame_shape) == 3 and not is_channels_first(self.frame_shape):
            planes = np.moveaxis(planes, -1, 2)
        planes = planes.reshape(len(pixels), channels, height, width)
        small = shrink(planes, self.part.options.image_size)
        return np.moveaxis(small, 1, -1).copy()  # an image of this size is not shrunk

    def enlarged(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A whole image ``[S, S, C]`` as the space has it, each pixel repeated."""
        height, width, channels = self.size
        side = len(image)
        rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
        planes = np.moveaxis(image[rows][:, columns, :channels], -1, 0)
        planes = planes.reshape(self.stacked, -1, height, width)
        if len(self.frame_shape) == 3 and not is_channels_first(self.frame_shape):
            planes = np.moveaxis(planes, 1, -1)
        return np.ascontiguousarray(planes.reshape(self.space.shape or ()))

    def _as_bytes(self, images: NDArray[Any]) -> NDArray[np.uint8]:
        """Pixels as uint8: as they are, or their bounds scaled to [0, 255]."""
        if self.keeps_bytes:
            return images.astype(np.uint8, copy=False)
        low, high = (bound.ravel() for bound in self._bounds)
        batch = self.part.numbers(images, len(images), Bounds(low, high)).astype(np.float64)
        scaled = np.clip((batch - low) / (high - low) * 255, 0, 255)
        return np.rint(scaled).astype(np.uint8).reshape(images.shape)

    def from_bytes(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Bytes scaled to the space's bounds."""
        low, high = self._bounds
        return low + pixels / 255.0 * (high - low)

    @cached_property
    def keeps_bytes(self) -> bool:
        """Whether pixels are the space's own bytes, not scaled from narrower bounds."""
        low, high = self._bounds
        named = self.path in self.part.options.images
        fills = bool((low == 0).all() and (high == 255).all())
        return self.space.dtype == np.uint8 and (fills or not named)

    @cached_property
    def _bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        assert isinstance(self.space, spaces.Box)
        return self.space.low.astype(np.float64), self.space.high.astype(np.float64)
