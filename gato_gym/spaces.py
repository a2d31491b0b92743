"""An observation space and an action space, compiled into a flat plan for tokens.

* :func:`compile_plan` -- the plan of a pair of spaces.
* :class:`Plan` -- encodes observations, encodes and decodes actions, says what is legal where.
* :class:`TokenizedBatch`, :class:`TokenizedStep` -- encoded observations.
* :class:`Field` -- one line of a plan's description.
* :class:`PlanOptions` -- the choices, see :mod:`gato_gym.options`.

A timestep is text tokens, then the body, then action tokens. The body has ``num_tokens`` tokens,
each the sum of its contributions: ids to look up, vector patches, image patches, symbolic grids.
Contribution c of a kind goes to token ``<kind>_slots[c]`` of the body and stands at
``<kind>_places[c]`` among all contributions.

Shapes: B rows, I ids, V vector patches of ``vector_size`` numbers, M image patches of P x P pixels
and C channels, G grids of H x W cells and ``planes`` symbols a cell, A action tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from gato_gym.options import PlanOptions
from gato_gym.plans.action_tokens import ActionTokens
from gato_gym.plans.arrangement import Single, arrange
from gato_gym.plans.joining import join_grids, join_ids, join_images
from gato_gym.plans.observations import assemble, check_paths, find_readers, first_leaf
from gato_gym.plans.parts import Part
from gato_gym.plans.photographs import ImageReader
from gato_gym.plans.readers import GridReader, NumbersReader, Reader, TextReader
from gato_gym.plans.restoring import restore
from gato_gym.plans.scaling import VectorScaling
from gato_gym.plans.tokenized import Field, TokenizedBatch, TokenizedStep, field_table, no_parts
from gato_gym.text import TextTokenizer, default_tokenizer
from gato_gym.vocabulary import Vocabulary

__all__ = ["Field", "Plan", "PlanOptions", "TokenizedBatch", "TokenizedStep", "compile_plan"]


class Plan:
    """How observations and actions of one pair of spaces become tokens; made by `compile_plan`.

    Args:
        observation_space: The space of one environment's observations.
        action_space: The space of one environment's actions.
        options: The choices.
        vocabulary: The ids.
        tokenizer: The text model; None loads the packaged one on first use.

    Attributes:
        num_tokens: Tokens of a timestep's body, at least 1.
        num_actions: A, action tokens of a timestep, at least 1.
        action_ranges: int32 ``[A, 2]``; legal ids at each action position, [start, stop).
        action_is_continuous: bool ``[A]``; positions that hold a bin of a continuous value.
        vector_length: Numbers of the concatenated vector, without padding.
        vector_resolution: float64 ``[N]``, relative spacing of the dtype of each of those numbers.
        image_intervals: int32 ``[M, 4]``; see :func:`gato_gym.images.patch_intervals`.
        image_shape: Height, width and channels of an image patch; no channels without images.
        grid_size: Height, width and planes of the grids; zeros without grids.
        outside: Count of encoded observations outside their space, by path; see
            `PlanOptions.outside`.

    Example:
        >>> from gymnasium import spaces
        >>> plan = compile_plan(spaces.Box(-1, 1, (3,)), spaces.Discrete(4))
        >>> plan.num_tokens, plan.num_actions, plan.action_ranges.tolist()
        (1, 1, [[33024, 33028]])
        >>> plan.encode(np.array([1, 0, -0.5], np.float32)).vectors[0, :4].tolist()
        [1.0, 0.0, -0.5, 0.0]
        >>> int(plan.decode([33026]))
        2
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        options: PlanOptions,
        vocabulary: Vocabulary,
        tokenizer: TextTokenizer | None,
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.options = options
        self.vocabulary = vocabulary
        self._tokenizer = tokenizer
        self.outside: Counter[str] = Counter()
        self._root = Part(
            "observation", observation_space, options, vocabulary, outside=self.outside
        )
        readers = find_readers(self._root)
        check_paths(self._root, readers)
        leaf = first_leaf(self._root)
        if leaf is None:
            raise ValueError(f"observation space {observation_space} has no parts: expected one")
        self._rows_from = Reader(leaf)
        self._texts = [reader for reader in readers if isinstance(reader, TextReader)]
        self._images = [reader for reader in readers if isinstance(reader, ImageReader)]
        self._numbers = [reader for reader in readers if isinstance(reader, NumbersReader)]
        self._singles = [reader for reader in readers if isinstance(reader, Single)]
        self._grids = [reader for reader in self._singles if isinstance(reader, GridReader)]
        self._ids = [reader for reader in self._singles if not isinstance(reader, GridReader)]
        self._scaling = VectorScaling(self._numbers, options)
        self.vector_length, self._num_vectors = self._scaling.length, self._scaling.num_patches
        self.vector_resolution = self._scaling.resolution
        self._compile_images()
        self._compile_body()
        self._compile_actions()

    @property
    def has_parallel_actions(self) -> bool:
        """Whether all action tokens of a timestep are chosen side by side."""
        return self.options.actions == "parallel"

    @property
    def image_channels(self) -> dict[str, int]:
        """Channels of each part that is read as images, by path."""
        return {reader.path: reader.size[2] for reader in self._images}

    @property
    def has_text(self) -> bool:
        """Whether the observation holds text."""
        return bool(self._texts)

    @property
    def tokenizer(self) -> TextTokenizer:
        """The text model."""
        if self._tokenizer is None:
            self._tokenizer = default_tokenizer()
        if len(self._tokenizer) > len(self.vocabulary.text):
            raise ValueError(
                f"the tokenizer has {len(self._tokenizer)} pieces: expected at most "
                f"{len(self.vocabulary.text)}, the text ids of the vocabulary"
            )
        return self._tokenizer

    def _compile_images(self) -> None:
        side = self.options.patch_side
        channels = max((reader.size[2] for reader in self._images), default=0)
        intervals = [reader.intervals for reader in self._images]
        self.image_intervals = np.concatenate([np.zeros((0, 4), np.int32), *intervals])
        self.image_shape = (side, side, channels)
        self.grid_size = self._grids[0].size if self._grids else (0, 0, 0)
        for reader in self._grids:
            if reader.size != self.grid_size:
                raise ValueError(
                    f"PlanOptions.grids names {reader.path!r} of size {reader.size} and "
                    f"{self._grids[0].path!r} of size {self.grid_size}: expected one size for all"
                )

    def _compile_body(self) -> None:
        body = arrange(
            len(self.image_intervals),
            self._num_vectors,
            self._singles,
            layout=self.options.layout,
            whole_images=self.options.image_size > 0,
        )
        self.num_tokens, self._num_sharing = body.num_tokens, body.num_sharing
        self._has_separator = body.has_separator
        self.id_slots, self.id_places = body.slots["id"], body.places["id"]
        self.vector_slots, self.vector_places = body.slots["vector"], body.places["vector"]
        self.image_slots, self.image_places = body.slots["image"], body.places["image"]
        self.grid_slots, self.grid_places = body.slots["grid"], body.places["grid"]

    def _compile_actions(self) -> None:
        self._actions = ActionTokens(
            Part("action", self.action_space, self.options, self.vocabulary)
        )
        self.action_ranges = self._actions.ranges
        self.action_is_continuous = self._actions.is_continuous
        self.num_actions = len(self.action_ranges)

    def encode(self, observation: Any) -> TokenizedStep:
        """Encode one observation.

        Args:
            observation: A member of the observation space.

        Raises:
            ValueError: As `encode_batch`.
        """
        return self._encode(observation, single=True, rows=1).row(0)

    def encode_batch(self, observations: Any) -> TokenizedBatch:
        """Encode B observations at once.

        Args:
            observations: A batch as vector environments give it: arrays ``[B, ...]``, a tuple or
                an array of str for text, dicts and tuples of these.

        Raises:
            ValueError: A part is missing or has another shape, or the options refuse a value.
        """
        first = self._rows_from.fetch(observations)
        return self._encode(observations, single=False, rows=len(first))

    def _encode(self, observations: Any, *, single: bool, rows: int) -> TokenizedBatch:
        def fetch(reader: Reader) -> Any:
            part = reader.fetch(observations)
            return reader.batch_of_one(part) if single else part

        ids: list[NDArray[Any]] = [reader.ids(fetch(reader), rows) for reader in self._ids]
        if self._has_separator:
            ids.append(np.full((rows, 1), self.vocabulary.separator, np.int32))
        images = [reader.patches(fetch(reader), rows) for reader in self._images]
        grids = [reader.symbols(fetch(reader), rows) for reader in self._grids]
        return TokenizedBatch(
            text=self._encode_text([r.strings(fetch(r), rows) for r in self._texts], rows),
            ids=join_ids(ids, rows),
            vectors=self._scaling.scale([r.numbers(fetch(r), rows) for r in self._numbers], rows),
            images=join_images(images, (rows, 0, *self.image_shape)),
            grids=join_grids(grids, (rows, 0, *self.grid_size)),
        )

    def _encode_text(self, texts: list[list[str]], rows: int) -> tuple[NDArray[np.int32], ...]:
        if not texts:
            return (no_parts(0, dtype=np.int32),) * rows
        encode, start = self.tokenizer.encode_cached, self.vocabulary.text.start
        if len(texts) == 1 and start == 0:
            return tuple(encode(text) for text in texts[0])
        return tuple(
            np.concatenate([encode(text) for text in row]) + np.int32(start)
            for row in zip(*texts, strict=True)
        )

    def raw_vectors(self, observations: Any) -> NDArray[np.float64]:
        """The concatenated vectors of a batch before scaling; ``vector_mean`` is their mean.

        Returns:
            float64 ``[B, vector_length]``.
        """
        rows = len(self._rows_from.fetch(observations))
        parts = [reader.numbers(reader.fetch(observations), rows) for reader in self._numbers]
        return np.concatenate([np.zeros((rows, 0)), *parts], axis=1, dtype=np.float64)

    def decode_observation(self, step: TokenizedStep) -> Any:
        """The observation of an encoded one.

        Discrete values, text, pixels and integers with fewer values than bins are exact; binned
        numbers are within half a bin, vectors are float32. The newest frame of a stack replaces
        all. Skipped parts are missing from their Dict, and None in their Tuple.

        Args:
            step: What `encode` returned.

        Returns:
            A member of the observation space, apart from skipped parts.

        Raises:
            ValueError: The observation has several texts, which tokens cannot separate.
        """
        leaves: dict[tuple[Any, ...], Any] = {}
        if len(self._texts) > 1:
            paths = [reader.path for reader in self._texts]
            raise ValueError(f"tokens cannot separate the texts {paths}: expected one text")
        for text in self._texts:
            ids = step.text - np.int32(self.vocabulary.text.start)
            leaves[text.part.keys] = self.tokenizer.decode(ids.tolist())
        groups: tuple[tuple[Sequence[Reader], Sequence[int], NDArray[Any]], ...] = (
            (self._ids, [reader.width for reader in self._ids], step.ids),
            (self._numbers, [r.count for r in self._numbers], self._scaling.unscale(step.vectors)),
            (self._images, [reader.num_patches for reader in self._images], step.images),
        )
        for readers, counts, content in groups:
            stops = np.cumsum([0, *counts]).tolist()
            for reader, first, stop in zip(readers, stops, stops[1:], strict=False):
                leaves[reader.part.keys] = restore(reader, content[first:stop])
        for grid, symbols in zip(self._grids, step.grids, strict=True):
            leaves[grid.part.keys] = restore(grid, symbols)
        return assemble(self._root, leaves)

    def encode_action(self, action: Any) -> NDArray[np.int32]:
        """Ids int32 ``[A]`` of one member of the action space; see `encode_actions`."""
        return self._actions.encode_one(action)

    def encode_actions(self, actions: Any) -> NDArray[np.int32]:
        """Ids int32 ``[B, A]`` of a batch of actions as vector environments take it.

        Numbers of a Box beyond its bounds are read as the bound.

        Raises:
            ValueError: If an action has another shape, is NaN or is outside its discrete space.
        """
        return self._actions.encode(actions)

    def decode(self, action_ids: ArrayLike) -> Any:
        """The action of ids ``[A]``: always a member of the action space.

        Raises:
            ValueError: There are not A ids, or one is outside its legal range.
        """
        return self._actions.decode_one(np.asarray(action_ids))

    def decode_batch(self, action_ids: ArrayLike) -> Any:
        """The actions of ids ``[B, A]``, as vector environments take them.

        Raises:
            ValueError: A row does not have A ids, or one is outside its legal range.
        """
        return self._actions.decode(np.asarray(action_ids))

    def action_mask(self) -> NDArray[np.bool_]:
        """bool ``[A, vocabulary.size]``: which ids are legal at each action position."""
        ids = np.arange(self.vocabulary.size)
        return (ids >= self.action_ranges[:, :1]) & (ids < self.action_ranges[:, 1:])

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """What a timestep is made of, in order."""
        fields = [Field(reader.path, "text", 0, 0, self.vocabulary.text) for reader in self._texts]
        for image in self._images:
            fields.append(Field(image.path, "image", image.num_patches, image.num_patches))
        alone = self._num_sharing == 1
        if self._numbers:
            path = ", ".join(reader.path for reader in self._numbers)
            tokens = self._num_vectors if self._num_vectors > 1 else int(alone)
            fields.append(Field(path, "vector", tokens, self._num_vectors))
        for single in self._singles:
            tokens = single.width if self.options.layout == "paper" else int(alone)
            fields.append(Field(single.path, single.kind, tokens, single.width, single.id_range))
        if self._has_separator:
            separator = range(self.vocabulary.separator, self.vocabulary.separator + 1)
            fields.append(Field("", "separator", 1, 1, separator))
        for path, first, stop in self._actions.leaves():
            ranges = self.action_ranges[first:stop]
            ids = range(int(ranges[:, 0].min()), int(ranges[:, 1].max()))
            fields.append(Field(path, "action", stop - first, stop - first, ids))
        return tuple(fields)

    def __repr__(self) -> str:
        counts = f"{self.num_tokens} body and {self.num_actions} action tokens a timestep"
        return f"Plan({self.options.layout}: {'text, ' if self.has_text else ''}{counts})"

    def __str__(self) -> str:
        return field_table(self.fields)


def compile_plan(
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    options: PlanOptions | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    tokenizer: TextTokenizer | None = None,
) -> Plan:
    """Compile the plan of a pair of spaces, once; encoding then follows it.

    Args:
        observation_space: Box, Discrete, MultiDiscrete, MultiBinary, Text (or MiniGrid's
            MissionSpace), and Dict, Tuple, Sequence, OneOf and Graph of these, nested.
        action_space: The same but MissionSpace.
        options: The choices; None for the lean layout with its defaults.
        vocabulary: The ids; None for disjoint ranges.
        tokenizer: The text model; None for the packaged one.

    Returns:
        The plan.

    Raises:
        ValueError: If a space is of another kind, or an option does not fit the spaces.

    Example:
        >>> from gymnasium import spaces
        >>> observation = spaces.Dict(speed=spaces.Box(-9, 9, (2,)), gear=spaces.Discrete(5))
        >>> print(compile_plan(observation, spaces.Box(-1, 1, (2,)), PlanOptions(layout="paper")))
        path   kind       tokens  ids
        gear   discrete   1       [33024, 33029)
        speed  value      2       [32000, 33024)
        -      separator  1       [34048, 34049)
        -      action     2       [32000, 33024)
    """
    return Plan(
        observation_space,
        action_space,
        options or PlanOptions(),
        vocabulary or Vocabulary(),
        tokenizer,
    )
