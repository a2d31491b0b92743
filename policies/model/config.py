"""The network's configuration and its presets.

* :class:`NetworkConfig` -- every size of the network; JSON in and out.
* :func:`preset` -- the paper's three sizes, and small ones for CPUs.
* :func:`fitted` -- a configuration in which some plans have room.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gato_gym.files.bounded_io import as_type
from gato_gym.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gato_gym.spaces import Plan

WORD_HEAD = 16
"""Key and value size of a head by which a grid's objects attend to words."""
CONTINUOUS_HEADS = ("bins", "regression")
LARGEST_SIZE = 2**16
LIMITS = {
    "layers": (1, 1024),
    "prompt_tokens": (0, LARGEST_SIZE),
    "grid_words": (0, LARGEST_SIZE),
    "image_size": (0, 512),
    "action_places": (0, LARGEST_SIZE),
}
"""Least and largest of each size: a window has no tensor that would show that it is too large."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of one network.

    Attributes:
        width: D, width of the residual stream.
        layers: Number of transformer blocks.
        heads: Attention heads; each has ``head_size`` numbers.
        head_size: Key and value size of a head; even, for rotary positions.
        feed_forward: Inner size of the gated feed-forward (after the gate).
        window: W, live tokens that a token sees, itself included.
        prompt_tokens: Tokens of the pinned prompt region.
        text_rank: Rank of the factorised text table.
        vector_size: Numbers in a vector patch.
        vector_hidden: Hidden size of the vector patch's MLP.
        grid_size: Largest height and width of a symbolic grid, in cells.
        grid_planes: Most symbols in a cell.
        grid_symbols: Values of a symbol.
        grid_channels: Channels of a grid's residual block.
        grid_groups: Groups of that block's normalisation.
        grid_words: Heads by which a grid's objects attend to the words of the instruction; 0 has
            the instruction modulate the block alone.
        patch_size: Height and width of an image patch, in pixels.
        patch_channels: Channels of an image patch's residual block.
        numeric_features: Whether the embedding of a continuous id adds a projection of its value's
            linear and Fourier features to its table row.
        image_size: Side of whole images, in pixels; 0 reads image patches instead.
        image_channels: Most channels of a whole image, all frames of a stack together.
        action_places: Action tokens that a timestep can have side by side; 0 where they are only
            chosen one after another.
        continuous_head: What a continuous action comes from: "bins", a distribution over the ids,
            or "regression", one number.
        tasks: Ids of the tasks with a learned embedding, which says what is played without a
            prompt.
        observation_heads: Whether the network has heads that predict the next observation in
            training.
        return_conditioned: Whether each timestep carries its return to go.
        vocabulary: The ids: those of text first, the continuous ones right after them, then the
            others, for texts and symbols have tables of their own.

    Raises:
        ValueError: A size is below 1 or above what any network has, ``head_size`` is odd,
            ``continuous_head`` is unknown, a task is named twice, or the vocabulary has another
            order.
    """

    width: int = 256
    layers: int = 4
    heads: int = 4
    head_size: int = 64
    feed_forward: int = 512
    window: int = 256
    prompt_tokens: int = 32
    text_rank: int = 48
    vector_size: int = 64
    vector_hidden: int = 512
    grid_size: int = 7
    grid_planes: int = 3
    grid_symbols: int = 16
    grid_channels: int = 32
    grid_groups: int = 4
    grid_words: int = 0
    patch_size: int = 16
    patch_channels: int = 32
    image_size: int = 0
    image_channels: int = 4
    action_places: int = 0
    continuous_head: str = "bins"
    tasks: tuple[str, ...] = ()
    numeric_features: bool = True
    observation_heads: bool = False
    return_conditioned: bool = False
    vocabulary: Vocabulary = dataclasses.field(default_factory=Vocabulary)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            size = getattr(self, field.name)
            least, most = LIMITS.get(field.name, (1, LARGEST_SIZE))
            if type(size) is int and not least <= size <= most:
                raise ValueError(f"{field.name} is {size}: expected {least} to {most}")
        if self.head_size % 2:
            raise ValueError(
                f"head_size is {self.head_size}: rotary positions turn pairs of numbers, "
                "use an even size"
            )
        if self.continuous_head not in CONTINUOUS_HEADS:
            raise ValueError(
                f"continuous_head is {self.continuous_head!r}: expected one of "
                f"{', '.join(CONTINUOUS_HEADS)}"
            )
        if self.grid_words and self.grid_objects > LARGEST_SIZE:
            raise ValueError(
                f"grid_words is {self.grid_words} with grid_symbols {self.grid_symbols}: expected "
                f"at most {LARGEST_SIZE} pairs of symbols that attend to words, or grid_words 0"
            )
        if len(set(self.tasks)) < len(self.tasks):
            twice = sorted({task for task in self.tasks if self.tasks.count(task) > 1})
            raise ValueError(f"tasks names {', '.join(twice)} twice: expected each id once")
        ids = self.vocabulary
        after = min(ids.discrete.start, ids.separator)
        if ids.continuous.start != ids.text.stop or after < ids.continuous.stop:
            raise ValueError(
                f"vocabulary has text {ids.text}, continuous {ids.continuous}, discrete "
                f"{ids.discrete} and separator {ids.separator}: a network takes continuous ids "
                "right after the text's, and discrete ids and the separator after those; use "
                "Vocabulary(), or ranges in this order"
            )

    @property
    def grid_objects(self) -> int:
        """O, pairs of the first two symbols of a cell, or single symbols if cells have one."""
        return self.grid_symbols ** min(2, self.grid_planes)

    @property
    def condition_size(self) -> int:
        """Numbers of an encoded instruction: D, and C for each object if grids attend to words.

        D is rounded up to a multiple of C then, so that an instruction is a table of rows of C.
        """
        if not self.grid_words:
            return self.width
        channels = self.grid_channels
        return (-(-self.width // channels) + self.grid_objects) * channels

    @property
    def least_weights(self) -> int:
        """Numbers that the network's larger tensors hold, without building it: it has no fewer."""
        width, ids = self.width, self.vocabulary
        cells, pixels = self.grid_channels, self.patch_channels
        if self.image_size:  # two convolutions of 6 x 6 and 4 x 4 pixels, by 3 and by 2
            side = ((self.image_size - 6) // 3 - 3) // 2 + 1
            images = pixels * (36 * self.image_channels + 32 * pixels + 2 * side**2 * width)
        else:
            images = pixels * ((self.patch_size // 2) ** 2 * width + 18 * pixels)
        return (
            self.layers * width * (4 * self.heads * self.head_size + 3 * self.feed_forward)
            + ids.text.stop * self.text_rank
            + width * (self.text_rank + ids.size - ids.text.stop + 11 * width)
            + self.vector_hidden * (self.vector_size + width)
            + cells * (self.grid_planes * self.grid_symbols + self.grid_size**2 * (1 + width))
            + 18 * cells**2
            + self.grid_words * WORD_HEAD * 2 * (cells + width)
            + images
            + self.action_places * width
            + len(self.tasks) * (2 * width + self.vector_hidden)
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "tasks": list(self.tasks), "vocabulary": self.vocabulary.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NetworkConfig:
        """The configuration that :meth:`to_json` wrote.

        Raises:
            ValueError: A field is of another type or unknown: the file is of a newer version.
        """
        sizes = dict(as_type(dict[str, Any], values, "network"))
        vocabulary = sizes.pop("vocabulary", None)
        config: NetworkConfig = as_type(cls, sizes, "network")
        if vocabulary is None:
            return config
        return dataclasses.replace(config, vocabulary=Vocabulary.from_json(vocabulary))


_SIZES = (
    *("layers", "width", "heads", "head_size", "feed_forward"),
    *("vector_hidden", "text_rank", "grid_channels", "patch_channels"),
)
PRESETS: dict[str, tuple[int, ...]] = {
    "0.4m": (2, 48, 2, 24, 96, 64, 2, 12, 12),
    "0.7m": (2, 80, 2, 40, 160, 128, 4, 16, 16),
    "1.4m": (3, 112, 2, 56, 224, 192, 8, 24, 16),
    "2.8m": (4, 160, 3, 56, 320, 256, 16, 24, 24),
    "5.8m": (5, 224, 4, 56, 448, 448, 32),
    "tiny": (3, 128, 2, 64, 256, 256, 16),
    "mini": (),
    "small": (6, 384, 6, 64, 768),
    "79m": (8, 768, 24, 32, 1536),
    "364m": (12, 1536, 12, 128, 3072),
    "1.18b": (24, 2048, 16, 128, 4096),
}
"""The first of :data:`_SIZES` by name; the others keep their defaults."""

FAMILY = ("0.4m", "0.7m", "1.4m", "2.8m", "5.8m")
"""Sizes of one shape for ``gato-gym scaling``, named by their parameters, tables included."""

PAPER_SIZES = ("79m", "364m", "1.18b")


def preset(name: str) -> NetworkConfig:
    """A configuration by name: tiny, mini, small, those of :data:`FAMILY`, and the paper's.

    The paper's sizes have its layers, heads, width and feed-forward size (halved by the gate),
    a window of 1024 tokens and a full-rank text table (arXiv 2205.06175, table 5).

    Raises:
        ValueError: No preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
    config = NetworkConfig(**dict(zip(_SIZES, PRESETS[name], strict=False)))  # type: ignore[arg-type]
    if name not in PAPER_SIZES:
        return config
    return dataclasses.replace(
        config,
        window=1024,
        prompt_tokens=1024,
        text_rank=config.width,
        vector_hidden=config.width,
        patch_channels=64,
    )


def fitted(config: NetworkConfig, plans: Iterable[Plan]) -> NetworkConfig:
    """The configuration with patches, grids, whole images and side-by-side actions of some plans.

    Sizes only grow, but for that of whole images, which is the plans'.

    Raises:
        ValueError: Two plans have whole images of different sizes.
    """
    plans = list(plans)
    sizes = sorted({plan.options.image_size for plan in plans if plan.image_shape[2]} - {0})
    if len(sizes) > 1:
        raise ValueError(f"image_size is {sizes}: one network takes whole images of one size")
    whole = [plan.image_shape[2] for plan in plans if plan.options.image_size]
    parallel = [plan.num_actions for plan in plans if plan.has_parallel_actions]
    vectors = [plan.options.vector_size for plan in plans if plan.vector_length]
    grids = [plan.grid_size for plan in plans]
    return dataclasses.replace(
        config,
        vector_size=max(config.vector_size, *vectors, 0),
        grid_size=max(config.grid_size, *(max(height, width) for height, width, _ in grids), 0),
        grid_planes=max(config.grid_planes, *(planes for _, _, planes in grids), 0),
        image_size=max(sizes, default=config.image_size),
        image_channels=max(whole, default=0) or config.image_channels,
        action_places=max(config.action_places, *parallel, 0),
    )
