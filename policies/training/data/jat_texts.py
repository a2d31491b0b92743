"""Texts, and images with texts, as JAT reads them.

* :class:`JatTexts` -- a source's texts, in the tokens of a run.
* :func:`shard_jat_texts` -- from sources to shards.
* :func:`draw_passage` -- what a batch shows of a text; :func:`text_batch` -- several of them.

A shard has ``text_bytes`` and ``text_ends`` as :mod:`policies.training.data.jat_shards` describes
them, and of pairs ``pictures``, uint8 ``[X, S, S, 3]``: images scaled and cropped to the network's
size. The network's text tokens are a run's, and a text ends with the one that pads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gato_gym.files.atomic_io import file_name
from policies.jat.config import JatConfig
from policies.jat.gpt2_text import Gpt2Tokenizer
from policies.jat.modalities import normalized_captions
from policies.jat.network import TextBatch
from policies.training.data.shards import check_ends, is_made_of, load_arrays, save_arrays
from policies.training.data.text_sources import TextSource

PARTS = {"text_bytes": ("uint8", 1), "text_ends": ("int64", 1), "pictures": ("uint8", 4)}
"""Types and number of axes of each array."""


@dataclass(frozen=True)
class JatTexts:
    """A source's texts.

    Attributes:
        name: The source's.
        pairs: Whether each text has an image.
        arrays: Memory-mapped arrays by the names of the module's table.
        sizes: The network's.
        tokenizer: The run's; None while it is not known.
    """

    name: str
    pairs: bool
    arrays: dict[str, NDArray[Any]]
    sizes: JatConfig
    tokenizer: Gpt2Tokenizer | None = None

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.arrays["text_ends"])

    @cached_property
    def texts(self) -> list[str]:
        """The texts."""
        content, ends = self.arrays["text_bytes"].tobytes(), self.arrays["text_ends"].tolist()
        return [content[a:b].decode() for a, b in zip([0, *ends], ends, strict=False)]

    @cached_property
    def ids(self) -> list[NDArray[np.int64]]:
        """The tokens of each text."""
        assert self.tokenizer is not None
        end = self.sizes.eos_token_id
        return [np.array([*self.tokenizer.encode(text), end], np.int64) for text in self.texts]

    @property
    def patches(self) -> int:
        """Tokens of an image."""
        return (self.sizes.image_size // self.sizes.patch_size) ** 2 if self.pairs else 0

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, with its image: int64 ``[X]``."""
        return np.array([len(ids) for ids in self.ids]) + self.patches


@dataclass(frozen=True)
class Passage:
    """What a batch shows of a text.

    Attributes:
        source: The text's.
        ids: int64 ``[P]``.
        number: The text's.
    """

    source: JatTexts
    ids: NDArray[np.int64]
    number: int

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def kind(self) -> str:
        """Those of one kind can be in one batch."""
        return "pairs" if self.source.pairs else "texts"

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.ids) + self.source.patches


def draw_passage(source: JatTexts, generator: np.random.Generator, most: int) -> Passage | None:
    """A text, or a uniformly drawn part of one that is longer; None where it has no room.

    Args:
        source: Draws one of its texts.
        generator: Draws.
        most: Tokens that there is room for, an image's among them.
    """
    number, room = int(generator.integers(len(source))), most - source.patches
    if room < 2:
        return None
    ids = source.ids[number]
    begin = int(generator.integers(max(1, len(ids) - room + 1))) if not source.pairs else 0
    return Passage(source, ids[begin : begin + room], number)


def text_batch(passages: Sequence[Passage]) -> TextBatch:
    """Passages of one kind, the shorter ones padded."""
    ids = np.zeros((len(passages), max(len(passage.ids) for passage in passages)), np.int64)
    mask = np.zeros(ids.shape, np.bool_)
    for row, passage in enumerate(passages):
        ids[row, : len(passage.ids)], mask[row, : len(passage.ids)] = passage.ids, True
    images = None
    if passages[0].source.pairs:
        pictures = [passage.source.arrays["pictures"][passage.number] for passage in passages]
        images = normalized_captions(np.stack(pictures))
    return TextBatch(torch.from_numpy(ids), images, torch.from_numpy(mask))


def shard_jat_texts(
    sources: Sequence[TextSource], folder: Path, sizes: JatConfig
) -> dict[str, JatTexts]:
    """Write sources as shards; those that are there, made of the same files, are kept.

    Raises:
        FileNotFoundError, ImportError, ValueError: As in iterating a source.
    """
    shards = {}
    for source in sources:
        place = folder / file_name(source.name)
        meta = {
            "format": "jat-texts-1",
            "image_size": sizes.image_size,
            "made_of": source.identity(),
        }
        if not is_made_of(place, meta):
            pairs = list(source)
            pieces = [np.frombuffer(text.encode(), np.uint8) for text, _ in pairs]
            pictures = [_fitted(image, sizes.image_size) for _, image in pairs if image is not None]
            empty = np.zeros((0, sizes.image_size, sizes.image_size, 3), np.uint8)
            arrays: dict[str, NDArray[Any]] = {
                "text_bytes": np.concatenate(pieces),
                "text_ends": np.cumsum([len(piece) for piece in pieces]).astype(np.int64),
                "pictures": np.stack(pictures) if pictures else empty,
            }
            save_arrays(place, arrays, meta)
        stored = load_arrays(place, PARTS, PARTS)
        check_ends(place, stored, {"text_ends": "text_bytes"})
        shards[source.name] = JatTexts(source.name, source.pairs, stored, sizes)
    return shards


def _fitted(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image ``[H, W, 3]`` scaled so that its shorter side fits, and its middle."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = side / min(height, width)
    wide, high = max(side, round(width * scale)), max(side, round(height * scale))
    scaled = Image.fromarray(image).resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - side) // 2, (high - side) // 2
    return np.array(scaled.crop((left, top, left + side, top + side)), np.uint8)
