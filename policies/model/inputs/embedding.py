"""From a timestep's parts to token embeddings.

A token's embedding is the sum of its contributions: a row of the vocabulary table, image patches,
vector patches, symbolic grids, each with its local position. Continuous ids carry the magnitude
of their bin beside their table row.

* :class:`TokenInputs` -- what the network reads: ids and contributions of a batch of tokens.
* :class:`Embedding` -- the module; also the tied output table.

Shapes: B rows, T tokens, D width, N contributions, L text length, C channels, K vector size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.model.config import NetworkConfig
from policies.model.inputs.grids import GridEmbedding, ResidualPatch
from policies.model.inputs.whole_images import WholeImageEmbedding
from policies.model.tensors import Tensors

TEXT_PLACES = 256
BODY_PLACES = 256
ACTION_PLACE = TEXT_PLACES + BODY_PLACES
NUM_PLACES = ACTION_PLACE + 1


@dataclass
class Contributions(Tensors):
    """Parts added into tokens.

    Attributes:
        slots: int64 ``[N]``, index into the flattened ``[B * T]`` tokens.
        local_positions: int64 ``[N]``, local positions in ``[0, BODY_PLACES)``.
        values: ids int64 ``[N]``; vectors float32 ``[N, K]``; grids uint8 ``[N, H, W, planes]``;
            image patches ``[N, C, P, P]``, bytes or what :func:`scale_pixels` makes of them.
        intervals: image patches only: int64 ``[N, 2]``, row and column position bucket.
    """

    slots: Tensor
    local_positions: Tensor
    values: Tensor
    intervals: Tensor | None = None


@dataclass
class TokenInputs(Tensors):
    """A batch of tokens before embedding.

    Attributes:
        ids: int64 ``[B, T]``, vocabulary ids; -1 where a token has no table row of its own
            (body tokens, padding).
        local_positions: int64 ``[B, T]``, local positions in ``[0, NUM_PLACES)`` of the
            tokens with ids.
        conditions: int64 ``[B, T]``, row of the conditions table, -1 for none.
        text_slots: int64 ``[n]``, index into the flattened tokens of those with text ids.
        symbol_slots: int64 ``[n]``, the same for those with other ids.
        added_ids, vectors, grids, images: contributions, or None.
        tasks: int64 ``[B, T]``, row of the learned task embeddings of body tokens, -1 elsewhere and
            where the task has none or a prompt says what is played; None for none at all.
    """

    ids: Tensor
    local_positions: Tensor
    conditions: Tensor
    text_slots: Tensor
    symbol_slots: Tensor
    added_ids: Contributions | None = None
    vectors: Contributions | None = None
    grids: Contributions | None = None
    images: Contributions | None = None
    tasks: Tensor | None = None


def magnitude_features(bins: int, octaves: int = 6) -> Tensor:
    """Linear and Fourier features of the centres of ``bins`` uniform bins on [-1, 1].

    Returns:
        float32 ``[bins, 2 + 2 * octaves]``: the value, its cube, sines and cosines of 1, 2, 4, …
        half turns.
    """
    value = (torch.arange(bins, dtype=torch.float32) + 0.5) * (2.0 / bins) - 1.0
    turns = value[:, None] * math.pi * 2.0 ** torch.arange(octaves)
    return torch.cat([value[:, None], value[:, None] ** 3, turns.sin(), turns.cos()], dim=1)


def scale_pixels(patches: Tensor) -> Tensor:
    """Patches ``[N, C, P, P]`` to float32: bytes, or fractions in [0, 1] of another dtype.

    Pixels go to [-1, 1] and are divided by the square root of the patch size (arXiv 2205.06175,
    section 2.1).
    """
    scale = 127.5 if patches.dtype == torch.uint8 else 0.5
    pixels = patches.to(torch.float32, copy=True)
    return pixels.div_(scale).sub_(1.0).div_(patches.shape[-1] ** 0.5)


class TextCondition(nn.Module):
    """Pools a text into one vector: a width-5 convolution over tokens, then attention pooling."""

    def __init__(self, width: int, queries: int = 4) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 5, padding=2)
        self.queries = nn.Parameter(torch.randn(queries, width) / width**0.5)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(queries * width, width)

    def mixed(self, x_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """The tokens, each with its neighbours."""
        x_NLD = x_NLD * mask_NL[..., None]
        neighbours = F.gelu(self.mix(x_NLD.transpose(1, 2)).transpose(1, 2))
        mixed: Tensor = self.norm(x_NLD + neighbours)
        return mixed

    def forward(self, x_NLD: Tensor, mask_NL: Tensor) -> Tensor:
        """The vector ``[N, D]`` of mixed tokens."""
        scores = x_NLD @ self.queries.T  # [N, L, Q]
        scores = scores.masked_fill(~mask_NL[..., None], -1e9).softmax(dim=1)
        pooled = scores.transpose(1, 2) @ x_NLD  # [N, Q, D]
        return self.out(pooled.flatten(1))


class ImageEmbedding(nn.Module):
    """A 16 x 16 patch to one embedding: one ResNet v2 block, plus row and column positions."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = config.patch_channels
        self.stem = nn.Conv2d(4, c, 3, stride=2, padding=1)
        self.block = ResidualPatch(c, min(32, c), config.width)
        self.out = nn.Linear(c * (config.patch_size // 2) ** 2, config.width)
        self.rows = nn.Embedding(128, config.width)
        self.columns = nn.Embedding(128, config.width)

    def forward(self, patches_NCHW: Tensor, buckets: Tensor, condition_ND: Tensor) -> Tensor:
        x = F.gelu(self.block(self.stem(patches_NCHW), condition_ND))
        return self.out(x.flatten(1)) + self.rows(buckets[:, 0]) + self.columns(buckets[:, 1])


class TaskEmbedding(nn.Module):
    """What the network knows of each task by its id alone.

    A task's rows are added to its body tokens, to the condition of their grids and images, and to
    the hidden layer of their vectors.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        count = len(config.tasks)
        self.token = nn.Embedding(count, config.width)
        self.condition = nn.Embedding(count, config.width)
        self.vector = nn.Embedding(count, config.vector_hidden)
        for table, std in ((self.token, 0.02), (self.condition, 0.5), (self.vector, 0.2)):
            nn.init.normal_(table.weight, std=std)


class Embedding(nn.Module):
    """Token embeddings, and the same table as output weights.

    The text table is factorised: ``[32000, rank]`` times ``[rank, D]``; values, discrete ids and
    the separator have full rows.
    """

    features: Tensor
    frozen_table: Tensor | None

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        d = config.width
        self.register_buffer("frozen_table", None, persistent=False)
        self.config = config
        vocabulary = config.vocabulary
        self.text = nn.Embedding(vocabulary.text.stop, config.text_rank)
        self.text_out = nn.Linear(config.text_rank, d, bias=False)
        self.symbols = nn.Embedding(vocabulary.size - vocabulary.text.stop, d)
        self.register_buffer(
            "features", magnitude_features(len(vocabulary.continuous)), persistent=False
        )
        self.magnitude = nn.Linear(self.features.shape[1], d) if config.numeric_features else None
        self.place = nn.Embedding(NUM_PLACES, d)
        hidden = config.vector_hidden
        self.vector = nn.Sequential(
            nn.Linear(config.vector_size, hidden), nn.GELU(), nn.Linear(hidden, d)
        )
        self.grid = GridEmbedding(config)
        self.image = WholeImageEmbedding(config) if config.image_size else ImageEmbedding(config)
        self.task = TaskEmbedding(config) if config.tasks else None
        self.condition = TextCondition(d)
        self.condition_in = nn.Linear(d, d, bias=False)
        for table in (self.text, self.symbols, self.place):
            nn.init.normal_(table.weight, std=0.02 if table is not self.text else 0.2)

    def symbol_table(self) -> Tensor:
        """Rows of all ids from ``text.stop`` on: float ``[size - text.stop, D]``."""
        if self.frozen_table is not None and not self.training:
            return self.frozen_table
        count = self.features.shape[0]
        table = self.symbols.weight
        if self.magnitude is None:
            return table
        return torch.cat([table[:count] + self.magnitude(self.features), table[count:]])

    def freeze(self) -> None:
        """Keep the rows of :meth:`symbol_table` for inference."""
        self.frozen_table = None
        self.frozen_table = self.symbol_table().detach()

    def embed_symbols(self, ids: Tensor) -> Tensor:
        """Table rows of ids past the text ids: int64 ``[...]`` to float ``[..., D]``."""
        return F.embedding(ids - self.config.vocabulary.text.stop, self.symbol_table())

    def action_tokens(self, ids: Tensor) -> Tensor:
        """Embeddings of action tokens: int64 ``[N]`` to float ``[N, D]``."""
        return self.embed_symbols(ids) + self.place.weight[ACTION_PLACE]

    def text_tokens(self, ids: Tensor) -> Tensor:
        """Embeddings of texts' tokens: int64 ``[..., L]`` to float ``[..., L, D]``."""
        local_positions = torch.arange(ids.shape[-1], device=ids.device).clamp(max=TEXT_PLACES - 1)
        return self.embed_text(ids) + self.place(local_positions)

    def embed_text(self, ids: Tensor) -> Tensor:
        """Text table rows: int64 ``[...]`` to float ``[..., D]``."""
        return self.text_out(self.text(ids))

    def encode_texts(self, texts_NL: Tensor) -> Tensor:
        """Conditions from texts: int64 ``[N, L]`` padded with -1, to float ``[N, condition_size]``.

        These are D numbers of the whole text, and what it says of each object of a grid where the
        network attends to words.
        """
        mask = texts_NL >= 0
        x_NLD = self.condition.mixed(self.text_tokens(texts_NL.clamp(min=0)), mask)
        condition: Tensor = self.condition(x_NLD, mask)
        if self.grid.words is None:
            return condition
        said = self.grid.said_of_objects(x_NLD, mask).to(condition.dtype)
        room = self.config.condition_size - condition.shape[1] - said.shape[1]
        return torch.cat([F.pad(condition, (0, room)), said], 1)

    def forward(self, tokens: TokenInputs, conditions: Tensor) -> Tensor:
        """Embed a batch.

        Args:
            tokens: The tokens.
            conditions: float ``[n, condition_size]``, rows that ``tokens.conditions`` names; the
                first D numbers are enough where there are no grids.

        Returns:
            float ``[B, T, D]``.
        """
        batch, length = tokens.ids.shape
        device, dtype = tokens.ids.device, self.place.weight.dtype  # autocast gives fewer bits
        table = conditions[:, : self.config.width]
        table = torch.cat([table, table.new_zeros(1, table.shape[1])])
        flat = torch.zeros(batch * length, self.config.width, dtype=dtype, device=device)
        ids, local_positions = tokens.ids.flatten(), tokens.local_positions.flatten()
        for slots, rows_of in (
            (tokens.text_slots, self.embed_text),
            (tokens.symbol_slots, self.embed_symbols),
        ):
            if len(slots):
                rows = rows_of(ids[slots]) + self.place(local_positions[slots])
                flat = flat.index_add(0, slots, rows.to(dtype))
        owner = tokens.conditions.flatten()
        known = self.task if tokens.tasks is not None else None
        played = tokens.tasks.flatten() if tokens.tasks is not None else owner

        def of_task(part: Contributions, rows: nn.Embedding) -> Tensor:
            numbers = played[part.slots]
            return rows(numbers.clamp(min=0)) * (numbers >= 0)[:, None]

        def add(part: Contributions, values: Tensor) -> None:
            nonlocal flat
            values = values + self.place(part.local_positions + TEXT_PLACES)
            flat = flat.index_add(0, part.slots, values.to(dtype))

        def condition_of(part: Contributions) -> Tensor:
            condition = F.embedding(owner[part.slots] % table.shape[0], table)
            return condition if known is None else condition + of_task(part, known.condition)

        if known is not None:
            bodies = (played >= 0).nonzero()[:, 0]
            flat = flat.index_add(0, bodies, known.token(played[bodies]).to(dtype))
        if tokens.added_ids is not None:
            add(tokens.added_ids, self.embed_symbols(tokens.added_ids.values))
        if tokens.vectors is not None:
            numbers, first = tokens.vectors.values.to(dtype), self.vector[0]
            assert isinstance(first, nn.Linear)
            hidden = F.linear(numbers, first.weight[:, : numbers.shape[1]], first.bias)
            if known is not None:
                hidden = hidden + of_task(tokens.vectors, known.vector)
            add(tokens.vectors, self.vector[2](F.gelu(hidden)))
        if tokens.grids is not None:
            condition = condition_of(tokens.grids)
            values = self.grid(
                tokens.grids.values, condition, conditions, owner[tokens.grids.slots]
            )
            add(tokens.grids, values + self.condition_in(condition))
        if tokens.images is not None:
            condition = condition_of(tokens.images)
            pixels = tokens.images.values
            if pixels.dtype == torch.uint8:
                pixels = scale_pixels(pixels)
            pixels = pixels.to(dtype)
            if isinstance(self.image, WholeImageEmbedding):
                embedded = self.image(pixels, condition)
            else:
                embedded = self.image(pixels, tokens.images.intervals, condition)
            add(tokens.images, embedded)
        return flat.view(batch, length, -1)
