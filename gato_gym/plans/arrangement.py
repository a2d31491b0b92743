"""Which body token each contribution of a timestep goes to, in both layouts.

* :func:`arrange` -- slots and places of all contributions.
* :class:`Arrangement` -- these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gato_gym.plans.readers import CodecReader, DigitsReader, GridReader, ValueReader

__all__ = ["Arrangement", "Single", "arrange"]

Single = DigitsReader | ValueReader | CodecReader | GridReader
"""Readers whose contributions the lean layout fuses on one token."""


@dataclass(frozen=True)
class Arrangement:
    """Where the contributions of a timestep go.

    Attributes:
        num_tokens: Tokens of the body.
        num_sharing: Contributions on the body's last token, 0 in the paper layout.
        has_separator: Whether the last contribution is the separator's id.
        slots: For each kind ("id", "vector", "image", "grid"), int32, the contributions' tokens.
        places: For each kind, int32, the contributions' places in body order.
    """

    num_tokens: int
    num_sharing: int
    has_separator: bool
    slots: dict[str, NDArray[np.int32]]
    places: dict[str, NDArray[np.int32]]


def arrange(
    images: int,
    vectors: int,
    singles: Sequence[Single],
    *,
    layout: str,
    whole_images: bool = False,
) -> Arrangement:
    """Arrange images, then vector patches, then ids and grids by path, then the separator.

    In the paper layout each contribution is a token. In the lean layout, image patches are tokens,
    and so are whole images and vector patches if there are two or more; everything else shares the
    last token. The separator is present in the paper layout, and if the body would be empty.

    Args:
        images: Number of image patches.
        vectors: Number of vector patches.
        singles: Readers of ids and grids, by path.
        layout: "paper" or "lean".
        whole_images: Whether a patch is a whole image.
    """
    kinds = ["image"] * images + ["vector"] * vectors
    for reader in singles:
        kinds += ["grid"] if isinstance(reader, GridReader) else ["id"] * reader.width
    has_separator = layout == "paper" or not kinds
    kinds += ["id"] * has_separator
    alone = images if images > 1 or not whole_images else 0
    separate = len(kinds) if layout == "paper" else alone + (vectors if vectors > 1 else 0)
    slots = np.minimum(np.arange(len(kinds)), separate).astype(np.int32)
    order = np.array(kinds)
    places = {
        kind: np.flatnonzero(order == kind).astype(np.int32)
        for kind in ("id", "vector", "image", "grid")
    }
    return Arrangement(
        num_tokens=int(slots[-1]) + 1,
        num_sharing=len(kinds) - separate,
        has_separator=has_separator,
        slots={kind: slots[index] for kind, index in places.items()},
        places=places,
    )
