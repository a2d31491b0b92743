"""Images as square patches, and where in its image each patch lies.

* :func:`patch_grid` -- how many patches an image becomes.
* :func:`patchify`, :func:`join_patches` -- images to patches in raster order, and back.
* :func:`shrink`, :func:`halved` -- smaller images, each pixel the mean of those it covers.
* :func:`patch_intervals` -- a patch's rows and columns in 128ths of its image.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "POSITION_BUCKETS",
    "halved",
    "join_patches",
    "patch_grid",
    "patch_intervals",
    "patchify",
    "shrink",
]

POSITION_BUCKETS = 128
"""Buckets of a patch's place in its image, along rows and along columns."""


def patch_grid(height: int, width: int, *, patch_size: int = 16) -> tuple[int, int]:
    """Rows and columns of patches that cover an image.

    Example:
        >>> patch_grid(64, 80), patch_grid(210, 160)
        ((4, 5), (14, 10))
    """
    return -(-height // patch_size), -(-width // patch_size)


def patchify(
    images: NDArray[np.uint8], *, patch_size: int = 16, fit: str = "pad"
) -> NDArray[np.uint8]:
    """Cut images into patches, row by row.

    Args:
        images: uint8 ``[B, H, W, C]``.
        patch_size: Side P of a patch, in pixels.
        fit: "pad" adds zeros at the bottom and the right up to a multiple of P; "resize" stretches
            to it (bilinear, half-pixel centres).

    Returns:
        uint8 ``[B, M, P, P, C]``, M patches in raster order.
    """
    height, width = images.shape[1:3]
    rows, columns = patch_grid(height, width, patch_size=patch_size)
    if images.strides[3] != images.itemsize:  # channels first: one long copy for each
        interleaved = np.empty(images.shape, np.uint8)
        for channel in range(images.shape[3]):
            interleaved[..., channel] = images[..., channel]
        images = interleaved
    full = (rows * patch_size, columns * patch_size)
    if full != (height, width) and fit == "resize":
        images = _resize(images, *full)
    return _cut(images, rows, columns, patch_size)


def _cut(images: NDArray[np.uint8], rows: int, columns: int, side: int) -> NDArray[np.uint8]:
    """Patches of images that are padded on the way: every pixel is copied once."""
    batch, height, width, channels = images.shape
    patches = np.empty((batch, rows, columns, side, side * channels), np.uint8)
    places = patches.transpose(0, 1, 3, 2, 4)  # [B, rows, side, columns, side * C]
    # what the image does not cover is 0
    if height < rows * side:
        places[:, -1, height % side :] = 0
    if width < columns * side:
        places[:, :, :, -1, width % side * channels :] = 0
    lines = images.reshape(batch, height, width * channels)
    if lines.strides[2] != 1:  # mirrored images of one channel, for one
        lines = np.ascontiguousarray(lines)
    # each part has whole patches, or what is left of one, along its rows and along its columns
    for first_row, last_row, high in _stretches(height, side):
        for first_column, last_column, wide in _stretches(width, side):
            first, run = first_column * side * channels, wide * channels
            count = last_column - first_column
            part = lines[
                :, first_row * side : (last_row - 1) * side + high, first : first + count * run
            ].reshape(batch, last_row - first_row, high, count, run)
            place = places[:, first_row:last_row, :high, first_column:last_column, :run]
            # a patch's line of pixels is copied as one item: half the time of byte by byte
            item = np.dtype((np.void, run))
            place.view(item)[...] = part.view(item)
    return patches.reshape(batch, rows * columns, side, side, channels)


def _stretches(length: int, side: int) -> list[tuple[int, int, int]]:
    """First patch, one past the last, and pixels of each: the whole ones, and what is left."""
    whole, left = divmod(length, side)
    intervals = [(0, whole, side)] if whole else []
    return [*intervals, (whole, whole + 1, left)] if left else intervals


def join_patches(
    patches: NDArray[np.uint8], *, rows: int, height: int, width: int, fit: str = "pad"
) -> NDArray[np.uint8]:
    """The images that patches were cut from; resized ones are resized back, roughly.

    Args:
        patches: uint8 ``[B, M, P, P, C]``, as :func:`patchify` gives them.
        rows: Rows of patches.
        height: H.
        width: W.
        fit: As in :func:`patchify`.

    Returns:
        uint8 ``[B, H, W, C]``.
    """
    batch, count, side, _, channels = patches.shape
    columns = count // rows
    cut = patches.reshape(batch, rows, columns, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    whole = cut.reshape(batch, rows * side, columns * side, channels)
    if fit == "resize" and whole.shape[1:3] != (height, width):
        return _resize(whole, height, width)
    return np.ascontiguousarray(whole[:, :height, :width])


def halved(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames of half the height and width: the mean of each two by two pixels, rounded.

    Args:
        frames: uint8 ``[..., height, width]``, both even.

    Returns:
        uint8 ``[..., height / 2, width / 2]``.
    """
    rows = frames[..., ::2, :].astype(np.uint16) + frames[..., 1::2, :]
    mean: NDArray[np.uint8] = ((rows[..., ::2] + rows[..., 1::2] + 2) >> 2).astype(np.uint8)
    return mean


def shrink(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images as squares: each pixel is the mean of what it covers, rounded.

    Args:
        images: uint8 ``[..., H, W]``.
        side: Height and width S of the result; a larger one repeats pixels.

    Returns:
        uint8 ``[..., S, S]``.

    Example:
        >>> shrink(np.array([[0, 100, 7], [100, 200, 7]], np.uint8)[:, :2], 1).tolist()
        [[100]]
    """
    height, width = images.shape[-2:]
    if (height, width) == (side, side):
        return images
    if (height, width) == (2 * side, 2 * side):
        return halved(images)
    rows, columns = _coverage(height, side), _coverage(width, side)
    means = np.einsum("yh,...hw,xw->...yx", rows, images.astype(np.float32), columns, optimize=True)
    pixels: NDArray[np.uint8] = np.rint(means).clip(0, 255).astype(np.uint8)
    return pixels


@lru_cache(maxsize=64)
def _coverage(source: int, target: int) -> NDArray[np.float32]:
    """Share of each target pixel that each source pixel covers: float32 ``[target, source]``."""
    edges = np.arange(target + 1) * (source / target)
    first, last = edges[:-1, None], edges[1:, None]
    pixels = np.arange(source)
    overlap = np.minimum(last, pixels + 1) - np.maximum(first, pixels)
    return (np.clip(overlap, 0.0, None) * (target / source)).astype(np.float32)


def patch_intervals(rows: int, columns: int) -> NDArray[np.int32]:
    """Each patch's place in its image, as intervals of 128 buckets.

    Training draws a bucket uniformly inside an interval, evaluation takes its rounded mean.

    Args:
        rows: Rows of patches.
        columns: Columns of patches.

    Returns:
        int32 ``[rows * columns, 4]``: row low, row high, column low, column high, in [0, 128],
        low below high, in raster order.

    Example:
        >>> patch_intervals(4, 5)[6].tolist()
        [32, 64, 26, 51]
    """
    row_edges, column_edges = _edges(rows), _edges(columns)
    row, column = (index.ravel() for index in np.indices((rows, columns)))
    return np.stack(
        [row_edges[row, 0], row_edges[row, 1], column_edges[column, 0], column_edges[column, 1]],
        axis=1,
    ).astype(np.int32)


def _edges(count: int) -> NDArray[np.int64]:
    """Low and high bucket ``[count, 2]`` of each of ``count`` equal intervals, never empty."""
    marks = np.floor(np.arange(count + 1) * POSITION_BUCKETS / count + 0.5).astype(np.int64)
    low = np.minimum(marks[:-1], POSITION_BUCKETS - 1)
    return np.stack([low, np.maximum(marks[1:], low + 1)], axis=1)


@lru_cache(maxsize=64)
def _interpolation(source: int, target: int) -> NDArray[np.float32]:
    """Bilinear weights float32 ``[target, source]``: each row sums to 1."""
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    low = np.clip(np.floor(centres), 0, source - 1).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    part = np.clip(centres - low, 0.0, 1.0)
    weights = np.zeros((target, source))
    np.add.at(weights, (np.arange(target), low), 1.0 - part)
    np.add.at(weights, (np.arange(target), high), part)
    return weights.astype(np.float32)


def _resize(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    pixels = images.astype(np.float32)
    rows, columns = (
        _interpolation(images.shape[1], height),
        _interpolation(images.shape[2], width),
    )
    stretched = np.einsum("yh,bhwc->bywc", rows, pixels, optimize=True)
    stretched = np.einsum("xw,bywc->byxc", columns, stretched, optimize=True)
    pixels_out: NDArray[np.uint8] = np.clip(np.rint(stretched), 0, 255).astype(np.uint8)
    return pixels_out
