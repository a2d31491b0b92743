"""Texts, and pairs of an image and a text, as tokens to train on beside tasks.

* :class:`TextShard` -- its tokens as arrays, memory-mapped.
* :func:`shard_texts` -- from sources to shards.
* :class:`TextDocument` -- one before it is placed in a row.
* :func:`draw_text_document` -- draws one.
* :func:`usual_text_size` -- how long one is.

A shard is a folder of ``.npy`` files and ``meta.json``, whose ``kind`` is "texts" or "pairs":

===============  ================  =============================================================
file             shape             holds
===============  ================  =============================================================
text_ids         [L]               the pieces of all texts, one after another, int32
text_ends        [X]               one past the last piece of each text, int64
patches          [M, 16, 16, 3]    of pairs: patches of all images in RGB, in raster order, uint8
patch_ends       [X]               of pairs: one past the last patch of each image, int64
intervals        [M, 4]            of pairs: rows and columns of each patch in 128ths of its image
===============  ================  =============================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gato_gym.files.atomic_io import file_name
from gato_gym.files.bounded_io import (
    as_type,
    read_json,
)
from gato_gym.text import default_tokenizer
from policies.model.config import NetworkConfig
from policies.model.inputs.text_sequence import Passage, TextLayout, image_patches, lay_out_passages
from policies.training.data.shards import check_ends, is_made_of, load_arrays, save_arrays
from policies.training.data.text_sources import TextSource


@dataclass(frozen=True)
class TextShard:
    """A source's tokens.

    Attributes:
        name: The source's.
        pairs: Whether each text has an image.
        arrays: Memory-mapped arrays by the names of the module's table.
    """

    name: str
    pairs: bool
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def open(cls, folder: Path) -> TextShard:
        """Open a shard's folder.

        Raises:
            FileNotFoundError: It holds no shard.
        """
        if not (folder / "meta.json").exists():
            raise FileNotFoundError(f"{folder} holds no shard: gato-gym train --text makes it")
        path = folder / "meta.json"
        meta = as_type(dict[str, Any], read_json(path), str(path))
        source = as_type(str, meta.get("name"), f"{path}: name")
        kind = as_type(Literal["texts", "pairs"], meta.get("kind"), f"{path}: kind")
        pairs = kind == "pairs"
        names = ("text_ids", "text_ends", *(("patches", "patch_ends", "intervals") * pairs))
        arrays = load_arrays(folder, names)
        ends = {"text_ends": "text_ids", **({"patch_ends": "patches"} if pairs else {})}
        check_ends(folder, arrays, ends)
        if pairs and len(arrays["intervals"]) != len(arrays["patches"]):
            raise ValueError(f"{folder} has another number of intervals than patches: delete it")
        return cls(source, pairs, arrays)

    def __len__(self) -> int:
        """X, how many texts it holds."""
        return len(self.arrays["text_ends"])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """int64 ``[X]``: tokens of each text, with those of its image and the separator."""
        sizes = np.diff(self.arrays["text_ends"], prepend=0) + 1
        if self.pairs:
            sizes = sizes + np.diff(self.arrays["patch_ends"], prepend=0)
        return np.asarray(sizes, np.int64)

    def passage(self, index: int, *, first: int = 0, most: int | None = None) -> Passage:
        """Text ``index`` with its image, from piece ``first`` on, ``most`` pieces at most."""
        begin, end = self._span("text_ends", index)
        stop = end if most is None else min(end, begin + first + most)
        text = np.asarray(self.arrays["text_ids"][begin + first : stop], np.int64)
        if not self.pairs:
            return Passage(text, first=first)
        begin, end = self._span("patch_ends", index)
        patches = np.asarray(self.arrays["patches"][begin:end])
        return Passage(text, patches, np.asarray(self.arrays["intervals"][begin:end]), first)

    def _span(self, ends: str, index: int) -> tuple[int, int]:
        stops = self.arrays[ends]
        return int(stops[index - 1]) if index else 0, int(stops[index])


def shard_texts(sources: Sequence[TextSource], folder: Path) -> dict[str, TextShard]:
    """Encode sources into shards; those that are there, made of the same files, are kept.

    Args:
        sources: The sources.
        folder: The shards' folder.

    Returns:
        The shards by name.

    Raises:
        FileNotFoundError, ImportError, ValueError: A source cannot be read, see
            :class:`TextSource`.
    """
    shards = {}
    for source in sources:
        place = folder / file_name(source.name)
        meta = {"name": source.name, "group": source.name, **source.identity()}
        if not is_made_of(place, meta):
            save_arrays(place, _encoded(source), meta)
        shards[source.name] = TextShard.open(place)
    return shards


def _encoded(source: TextSource) -> dict[str, NDArray[Any]]:
    tokenizer = default_tokenizer()
    texts, images = [], []
    for text, image in source:
        texts.append(tokenizer.encode(text))
        if image is not None:
            images.append(image_patches(image))
    if not texts:
        files = ", ".join(str(file) for file in source.files)
        raise ValueError(f"{files} holds no text: expected at least one")
    arrays: dict[str, NDArray[Any]] = {
        "text_ids": np.concatenate(texts).astype(np.int32),
        "text_ends": np.cumsum([len(text) for text in texts]).astype(np.int64),
    }
    if source.pairs:
        arrays["patches"] = np.concatenate([patches for patches, _ in images])
        arrays["patch_ends"] = np.cumsum([len(patches) for patches, _ in images]).astype(np.int64)
        arrays["intervals"] = np.concatenate([places for _, places in images]).astype(np.int32)
    return arrays


@dataclass(frozen=True)
class TextDocument:
    """A document whose targets are the tokens of its texts.

    Attributes:
        name: Its shard's.
        layout: Its tokens.
    """

    name: str
    layout: TextLayout

    @property
    def size(self) -> int:
        return len(self.layout.ids)


def draw_text_document(
    shard: TextShard,
    generator: np.random.Generator,
    config: NetworkConfig,
    *,
    budget: int,
    length: int,
    pairs: int,
) -> TextDocument | None:
    """A document of a shard.

    Args:
        shard: Shard of texts or of pairs.
        generator: Draws it.
        config: The network's sizes.
        budget: Most tokens; what is beyond is cropped.
        length: Tokens of a row.
        pairs: How many pairs one has.

    Returns:
        The document; None where not even an image fits.
    """
    first = 0
    if shard.pairs:
        drawn = generator.choice(len(shard), size=min(pairs, len(shard)), replace=False)
        passages = [shard.passage(int(index)) for index in drawn]
        sizes = shard.sizes[drawn]
        images = np.array([passage.num_patches for passage in passages])
        # an image whose text is cropped away altogether would teach nothing
        fits = np.cumsum(sizes) - sizes + images <= budget
        passages = passages[: int(np.argmin(np.r_[fits, False]))]
        if not passages:
            return None
    else:
        index = int(generator.integers(len(shard)))
        pieces = int(shard.sizes[index]) - 1
        first = int(generator.choice(np.arange(0, pieces, max(1, length // 2))))
        # one piece more than fits: the last token that does predicts it
        passages = [shard.passage(index, first=first, most=budget + 1)]
    start = config.prompt_tokens + first
    layout = lay_out_passages(passages, config.vocabulary, first_position=start, budget=budget)
    return TextDocument(shard.name, layout)


def usual_text_size(shard: TextShard, *, length: int, pairs: int) -> float:
    """Expected tokens of a document of this shard."""
    if shard.pairs:
        return min(float(length), min(pairs, len(shard)) * float(shard.sizes.mean()))
    return float(np.minimum(shard.sizes, length).mean())
