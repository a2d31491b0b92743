"""Pictures reach the network as bytes where they can, and are scaled as the paper says."""

from __future__ import annotations

import numpy as np
import torch

from policies.model.inputs.embedding import scale_pixels
from policies.model.inputs.sequence import channels_first

GENERATOR = np.random.default_rng(0)


def expected(patches: np.ndarray, top: float) -> np.ndarray:
    """Pixels in [-1, 1] over the root of the side, in float64, missing channels 0."""
    count, side, _, channels = patches.shape
    scaled = np.zeros((count, max(4, channels), side, side))
    for channel in range(channels):
        scaled[:, channel] = (2 * patches[..., channel].astype(float) / top - 1) / side**0.5
    return scaled


def test_bytes_of_one_shape_stay_bytes_and_are_scaled_in_the_network() -> None:
    parts = [GENERATOR.integers(0, 256, (count, 8, 8, 4), np.uint8) for count in (2, 3)]
    moved = channels_first(parts)
    assert all(part.dtype == np.uint8 for part in moved)
    for part, patches in zip(moved, parts, strict=True):
        scaled = scale_pixels(torch.from_numpy(part)).numpy()
        np.testing.assert_allclose(scaled, expected(patches, 255), atol=1e-6)


def test_what_is_missing_in_one_of_several_is_nothing_and_not_black() -> None:
    parts = [GENERATOR.integers(0, 256, (1, 8, 8, channels), np.uint8) for channels in (3, 5)]
    moved = channels_first(parts)
    for part, patches in zip(moved, parts, strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected(patches, 255), atol=1e-6)


def test_bytes_beside_fractions_are_scaled() -> None:
    pixels = GENERATOR.integers(0, 256, (1, 8, 8, 4), np.uint8)
    fractions = GENERATOR.random((2, 8, 8, 4)).astype(np.float32)
    first, second = channels_first([pixels, fractions])
    np.testing.assert_allclose(first, expected(pixels, 255), atol=1e-6)
    np.testing.assert_allclose(second, expected(fractions, 1), atol=1e-6)


def test_targets_are_scaled() -> None:
    pixels = GENERATOR.integers(0, 256, (1, 8, 8, 4), np.uint8)
    (moved,) = channels_first([pixels], keep_bytes=False)
    np.testing.assert_allclose(moved, expected(pixels, 255), atol=1e-6)
