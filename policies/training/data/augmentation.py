"""What training changes in a document before the network sees it: acting changes none of it.

* :func:`noisy` -- noise on the numbers of observations.
* :func:`hidden_actions` -- timesteps whose actions later ones do not see.
* :func:`kept_blocks` -- the sub-layers that stochastic depth keeps.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.spaces import Plan
from policies.model.inputs.sequence import TimestepArrays


def noisy(
    plan: Plan, arrays: TimestepArrays, std: float, generator: np.random.Generator
) -> TimestepArrays:
    """The timesteps with Gaussian noise on their numbers; symbols, grids and text stay.

    Args:
        plan: Made the timesteps.
        arrays: What it encoded.
        std: Standard deviation: of vectors in the units that they have as tokens (normalised
            ones, where they are), of values that are ids and of pixels in those of [-1, 1].
        generator: Draws the noise.
    """
    changes: dict[str, NDArray[Any]] = {}
    if arrays.vectors.size:
        flat = arrays.vectors.reshape(len(arrays.vectors), -1).copy()
        real = flat[:, : plan.vector_length]  # the rest is padding
        real += std * generator.standard_normal(real.shape).astype(np.float32)
        changes["vectors"] = flat.reshape(arrays.vectors.shape)
    values = plan.vocabulary.continuous
    is_value = (arrays.ids >= values.start) & (arrays.ids < values.stop)
    if is_value.any():
        bins = std * len(values) / 2 * generator.standard_normal(arrays.ids.shape)
        moved = np.clip(arrays.ids + np.rint(bins), values.start, values.stop - 1)
        changes["ids"] = np.where(is_value, moved, arrays.ids).astype(arrays.ids.dtype)
    if arrays.images.size:
        top = 255.0 if arrays.images.dtype == np.uint8 else 1.0
        noise: NDArray[np.float64] = std * top / 2 * generator.standard_normal(arrays.images.shape)
        pixels = np.clip(np.asarray(arrays.images, np.float64) + noise, 0.0, top)
        pixels = np.rint(pixels) if arrays.images.dtype == np.uint8 else pixels
        changes["images"] = pixels.astype(arrays.images.dtype)
    return dataclasses.replace(arrays, **changes)


def hidden_actions(steps: int, share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """bool ``[steps]``: each timestep's actions are hidden with probability ``share``."""
    return generator.random(steps) < share


def kept_blocks(layers: int, share: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Stochastic depth of one row: float32 ``[layers, 2]``, of attention and feed-forward.

    Each is 0 with probability ``share``, else ``1 / (1 - share)``, so that the expectation is that
    of the network that acts, which keeps all (arXiv 1603.09382).
    """
    kept = generator.random((layers, 2)) >= share
    return (kept / (1.0 - share)).astype(np.float32)
