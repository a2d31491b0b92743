"""The contributions of all parts of an observation as one array for each kind.

* :func:`join_ids`, :func:`join_images`, :func:`join_grids` -- one array from several parts.

A single part's array stays as it is. Without parts, the result is empty and has the shape ``none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gato_gym.plans.tokenized import no_parts

__all__ = ["join_grids", "join_ids", "join_images"]


def join_ids(parts: Sequence[NDArray[Any]], rows: int) -> NDArray[np.int32]:
    """Ids int32 ``[rows, I]`` of parts ``[rows, I_part]``."""
    if not parts:
        return no_parts(rows, 0, dtype=np.int32)
    if len(parts) == 1:
        return parts[0].astype(np.int32, copy=False)
    return np.concatenate(parts, axis=1, dtype=np.int32, casting="unsafe")


def join_images(parts: Sequence[NDArray[np.uint8]], none: tuple[int, ...]) -> NDArray[np.uint8]:
    """Patches uint8 ``[B, M, P, P, C]`` of parts ``[B, M_part, P, P, up to C]``."""
    if not parts:
        return no_parts(*none, dtype=np.uint8)
    if len(parts) == 1:
        return parts[0]
    channels = none[-1]
    widened = [
        np.pad(part, ((0, 0),) * 4 + ((0, channels - part.shape[-1]),))
        if part.shape[-1] < channels
        else part
        for part in parts
    ]
    return np.concatenate(widened, axis=1)


def join_grids(parts: Sequence[NDArray[np.uint8]], none: tuple[int, ...]) -> NDArray[np.uint8]:
    """Grids uint8 ``[B, G, H, W, planes]`` of parts ``[B, H, W, planes]``."""
    if not parts:
        return no_parts(*none, dtype=np.uint8)
    if len(parts) == 1:
        return parts[0][:, None]
    return np.stack(parts, 1)
