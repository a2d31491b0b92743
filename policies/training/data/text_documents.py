"""Documents of text, and of images with their texts, drawn from shards.

* :class:`TextDocument` -- one before it is placed in a row.
* :func:`draw_text_document` -- draws one.
* :func:`usual_text_size` -- how long one is.

A document of pairs is several of them, one after another, as Gato's vision-language rows are (arXiv
2205.06175, section 2.2): each sees those before it. A document of text is a text, or the run of it
that fits, from its beginning or from any half row of pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.model.config import NetworkConfig
from policies.model.text_sequence import TextLayout, lay_out_passages
from policies.training.data.text_shards import TextShard


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
        shard: Of texts or of pairs.
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
