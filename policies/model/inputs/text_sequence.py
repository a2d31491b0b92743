"""Texts, and images with their texts, as tokens: one order for training and for writing.

* :class:`Passage` -- a text, and the image before it if there is one.
* :class:`TextLayout` -- the tokens of passages in a row.
* :func:`lay_out_passages`, :func:`image_patches` -- make them.

A passage is its image's patches in raster order, then its text. The separator follows the last
piece of the text, and separates the passages of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gato_gym.images import patch_grid, patch_intervals, patchify
from gato_gym.vocabulary import Vocabulary
from policies.model.inputs.embedding import BODY_PLACES, TEXT_PLACES

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Passage:
    """A text, and the image before it if there is one.

    Attributes:
        text: int ``[L]``, ids of its pieces.
        patches: uint8 ``[M, P, P, C]``, of its image in raster order; None without one. Images of
            one document have equally many channels.
        intervals: int ``[M, 4]``, each patch's place, see :func:`gato_gym.images.patch_intervals`.
        first: Pieces of the whole text that come before ``text``, which is an excerpt then.
    """

    text: NDArray[np.integer]
    patches: NDArray[np.uint8] | None = None
    intervals: NDArray[np.integer] | None = None
    first: int = 0

    @property
    def num_patches(self) -> int:
        """M, 0 without an image."""
        return 0 if self.patches is None else len(self.patches)


@dataclass(frozen=True)
class TextLayout:
    """Tokens of passages, one after another: L tokens, all of them live.

    Attributes:
        ids: int64 ``[L]``, -1 for patches.
        local_positions: int64 ``[L]``, local positions of the tokens with ids.
        positions: int64 ``[L]``.
        passages: int64 ``[L]``, the passage of each token.
        patch_slots: int64 ``[M]``, tokens that are patches.
        patch_places: int64 ``[M]``, local positions of the patches.
        patches: uint8 ``[M, P, P, C]``; None where no passage has an image.
        intervals: int64 ``[M, 4]``.
        predictors: int64 ``[N]``, tokens whose output predicts a token of a text.
        targets: int64 ``[N]``, the ids they predict.
    """

    ids: Ints
    local_positions: Ints
    positions: Ints
    passages: Ints
    patch_slots: Ints
    patch_places: Ints
    patches: NDArray[np.uint8] | None
    intervals: Ints
    predictors: Ints
    targets: Ints


def image_patches(
    image: NDArray[np.uint8], *, patch_size: int = 16
) -> tuple[NDArray[np.uint8], Ints]:
    """An image's patches and their places.

    Args:
        image: uint8 ``[H, W, C]``, 1, 3 or 4 channels; padded with zeros at the bottom and the
            right up to a multiple of the patch's side.
        patch_size: Side P of a patch, in pixels.

    Returns:
        uint8 ``[M, P, P, C]`` and int64 ``[M, 4]``, in raster order.

    Raises:
        ValueError: The image has another dtype or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}: expected uint8 [H, W, C] with 1, 3 or 4 "
            "channels"
        )
    if 0 in image.shape:
        raise ValueError(f"image is {list(image.shape)}: expected at least one pixel")
    grid = patch_grid(*image.shape[:2], patch_size=patch_size)
    intervals = patch_intervals(*grid).astype(np.int64)
    return patchify(image[None], patch_size=patch_size)[0], intervals


def lay_out_passages(
    passages: Sequence[Passage],
    vocabulary: Vocabulary,
    *,
    first_position: int,
    budget: int | None = None,
) -> TextLayout:
    """Lay passages out as tokens of one document.

    Each token predicts the following one if that is a piece of text or a separator. The first piece
    of a document that begins with text is not predicted.

    Args:
        passages: One or more, none of them empty.
        vocabulary: The ids.
        first_position: Position of the first token.
        budget: Largest number of tokens; the rest is cropped. None keeps all.

    Returns:
        The tokens. The last separator is predicted but is not a token itself.
    """
    ids: list[Ints] = []
    local_positions: list[Ints] = []
    owners: list[Ints] = []
    for index, passage in enumerate(passages):
        count, text = passage.num_patches, np.asarray(passage.text, np.int64)
        pieces = np.r_[text + vocabulary.text.start, vocabulary.separator]
        place = passage.first + np.arange(len(pieces))
        ids.append(np.r_[np.full(count, -1), pieces])
        local_positions.append(np.r_[np.arange(count), np.minimum(place, TEXT_PLACES - 1)])
        owners.append(np.full(count + len(pieces), index))
    all_ids = np.concatenate(ids).astype(np.int64)
    length = len(all_ids) - 1  # the last separator
    if budget is not None:
        length = min(length, budget)
    kept = all_ids[:length]
    place = np.concatenate(local_positions)[:length].astype(np.int64)
    slots = np.flatnonzero(kept < 0)
    following = all_ids[1 : length + 1]
    predictors = np.flatnonzero(following >= 0)
    images = [p.patches for p in passages if p.patches is not None]
    intervals = [p.intervals for p in passages if p.intervals is not None]
    return TextLayout(
        ids=kept,
        local_positions=np.where(kept < 0, 0, place),
        positions=first_position + np.arange(length),
        passages=np.concatenate(owners)[:length].astype(np.int64),
        patch_slots=slots,
        patch_places=np.minimum(place[slots], BODY_PLACES - 1),
        patches=np.concatenate(images)[: len(slots)] if images else None,
        intervals=(
            np.concatenate(intervals)[: len(slots)].astype(np.int64)
            if intervals
            else np.zeros((0, 4), np.int64)
        ),
        predictors=predictors,
        targets=following[predictors],
    )
