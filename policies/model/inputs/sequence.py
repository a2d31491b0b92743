"""Timesteps laid out as a sequence of tokens: the only place that decides order and position.

Packed sequences in training, prompts and live steps all use :func:`lay_out`, so that a token has
the same id, place, position and role in each.

* :func:`check_parts` -- whether arrays that were kept are of their types.
* :class:`TimestepArrays` -- the parts of n timesteps, as a plan encodes them.
* :class:`Layout` -- their tokens.
* :func:`with_parts` -- laid out bodies with other contributions.
* :func:`emits_text` -- at which timesteps an instruction is emitted.

A timestep consists of text tokens (if emitted), body tokens and action tokens. Positions advance by
the tokens that stay visible; action tokens that do not are rewound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gato_gym.spaces import Plan, PlanOptions
from gato_gym.vocabulary import Vocabulary
from policies.model.inputs.embedding import (
    ACTION_PLACE,
    BODY_PLACES,
    TEXT_PLACES,
    Contributions,
    TokenInputs,
    scale_pixels,
)
from policies.model.inputs.text_sequence import TextLayout

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TimestepArrays:
    """The parts of n timesteps of one task.

    Attributes:
        ids: int ``[n, I]``, id contributions.
        vectors: float32 ``[n, V, K]``.
        grids: uint8 ``[n, G, H, W, planes]``.
        images: uint8 or float32 ``[n, M, P, P, C]``, in [0, 255] or [0, 1].
        actions: int ``[n, A]``, action ids; only columns that are fed need be filled.
    """

    ids: NDArray[np.integer]
    vectors: NDArray[np.float32]
    grids: NDArray[np.uint8]
    images: NDArray[np.generic]
    actions: NDArray[np.integer]


PARTS = {
    **dict.fromkeys(("ids", "actions"), ("int32 int64", 2)),
    **dict.fromkeys(("text_ids", "text_index"), ("int32 int64", 1)),
    **dict.fromkeys(("ends", "text_ends", "patch_ends"), ("int64", 1)),
    "vectors": ("float32", 3),
    "labels": ("float16", 2),
    "grids": ("uint8", 5),
    "images": ("uint8 float32", 5),
    "patches": ("uint8", 4),
    "intervals": ("int32 int64", 2),
}
"""Arrays that prompts and shards keep: their types, and the number of their axes."""


def check_parts(
    arrays: Mapping[str, NDArray[Any]], what: str, parts: Mapping[str, tuple[str, int]] = PARTS
) -> None:
    """Refuse arrays of other types, or with other axes, than those of a prompt or a shard.

    Args:
        arrays: The arrays, by name.
        what: What they are called in errors.
        parts: By name the types, separated by blanks, and the number of axes.

    Raises:
        ValueError: Names the array.
    """
    for name, array in arrays.items():
        dtypes, axes = parts[name]
        if str(array.dtype) not in dtypes.split() or array.ndim != axes:
            raise ValueError(
                f"{what} has {name} of {array.dtype} with {array.ndim} axes: expected "
                f"{' or '.join(dtypes.split())} with {axes}; take a fresh copy"
            )


@dataclass
class Layout:
    """Tokens of n timesteps, in order: L tokens.

    Attributes:
        ids: int64 ``[L]``, -1 for body tokens.
        local_positions: int64 ``[L]``, local positions.
        positions: int64 ``[L]``.
        steps: int64 ``[L]``, index of the token's timestep in ``[0, n)``.
        actions: int64 ``[L]``, 1 for action tokens.
        predictors: int64 ``[n, A]``, the token whose output predicts each action token.
        body_starts: int64 ``[n]``, first body token of each timestep.
    """

    ids: Ints
    local_positions: Ints
    positions: Ints
    steps: Ints
    actions: Ints
    predictors: Ints
    body_starts: Ints


def emits_text(options: PlanOptions, texts: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Timesteps of an episode at which its text is emitted: bool ``[T]``.

    All if ``options.text`` is "always" or nothing is remembered; else the first, the changes, and
    every ``text_refresh`` timesteps. Equal numbers in ``texts``, int ``[T]``, are equal texts.
    """
    emits = np.ones(len(texts), np.bool_)
    if options.text == "always" or options.memory == "none" or not len(texts):
        return emits
    changed = np.flatnonzero(np.r_[True, texts[1:] != texts[:-1]])
    last = np.repeat(changed, np.diff(np.r_[changed, len(texts)]))
    return (np.arange(len(texts)) - last) % options.text_refresh == 0


def fed_actions(plan: Plan) -> int:
    """Action tokens of a timestep that enter a sequence: none where all are chosen side by side.

    Else all that the next one is predicted from; the last only if it is remembered.
    """
    if plan.has_parallel_actions:
        return 0
    return plan.num_actions if plan.options.memory == "all" else plan.num_actions - 1


def lay_out(
    plan: Plan,
    texts: Sequence[NDArray[np.integer] | None],
    actions: NDArray[np.integer],
    *,
    first_position: int,
    fed: int,
) -> Layout:
    """Lay n timesteps out as tokens.

    Args:
        plan: The task's plan.
        texts: Text ids of each timestep, None where none is emitted.
        actions: int ``[n, A]``, action ids.
        first_position: Position of the first token.
        fed: Action tokens of each timestep that are laid out (from the first).

    Returns:
        The tokens. With memory "none" every timestep starts at ``first_position``.
    """
    n, memory = len(texts), plan.options.memory
    text_sizes = np.array([0 if text is None else len(text) for text in texts], np.int64)
    before = text_sizes + plan.num_tokens
    sizes = before + fed
    starts = np.cumsum(sizes) - sizes
    kept = before + (fed if memory == "all" else 0)
    bases = np.cumsum(kept) - kept if memory != "none" else np.zeros(n, np.int64)
    length = int(sizes.sum())
    steps = np.repeat(np.arange(n), sizes)
    within = np.arange(length) - starts[steps]
    ids = np.full(length, -1, np.int64)
    local_positions = np.zeros(length, np.int64)
    for i, text in enumerate(texts):
        if text is None:
            continue
        span = slice(starts[i], starts[i] + text_sizes[i])
        ids[span] = text
        local_positions[span] = np.minimum(np.arange(text_sizes[i]), TEXT_PLACES - 1)
    body_starts = starts + text_sizes
    is_action = within >= before[steps]
    ahead = np.zeros(plan.num_actions, np.int64)
    if not plan.has_parallel_actions:
        ahead = np.arange(plan.num_actions)
    if fed:
        ids[is_action] = actions[:, :fed].reshape(-1)
        local_positions[is_action] = ACTION_PLACE
    return Layout(
        ids=ids,
        local_positions=local_positions,
        positions=first_position + bases[steps] + within,
        steps=steps,
        actions=is_action.astype(np.int64),
        predictors=(body_starts + plan.num_tokens - 1)[:, None] + ahead,
        body_starts=body_starts,
    )


def prompt_steps(
    plan: Plan,
    length: int,
    text: NDArray[np.integer] | None,
    capacity: int,
    *,
    acted: bool = False,
) -> int:
    """Whole timesteps of an episode of ``length`` that fit a prompt of ``capacity`` tokens."""
    step = plan.num_tokens + _prompt_actions(plan, acted=acted)
    room = capacity - (0 if text is None else len(text))
    return max(0, min(length, room // step))


def _prompt_actions(plan: Plan, *, acted: bool) -> int:
    """Action tokens of a prompt's timestep."""
    return plan.num_actions if acted or plan.options.memory == "all" else 0


def lay_out_prompt(
    plan: Plan,
    text: NDArray[np.integer] | None,
    arrays: TimestepArrays,
    *,
    acted: bool = False,
) -> Layout:
    """A demonstration's timesteps as a prompt: its text first, actions where remembered, or
    ``acted``: a step that was retrieved says what was done in it, whatever the task remembers."""
    n = len(arrays.actions)
    texts: list[NDArray[np.integer] | None] = [text if i == 0 else None for i in range(n)]
    fed = _prompt_actions(plan, acted=acted)
    layout = lay_out(plan, texts, arrays.actions, first_position=0, fed=fed)
    if acted or plan.options.memory == "none":
        layout.positions = np.arange(len(layout.ids))
    return layout


def cut_text(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """A text's ids, cut to the local positions there are."""
    return ids[:TEXT_PLACES]


class TokenCollector:
    """Gathers the contributions of many layouts into one :class:`TokenInputs`.

    Args:
        rows: B.
        length: T.
    """

    def __init__(self, rows: int, length: int) -> None:
        self.ids = np.full((rows, length), -1, np.int64)
        self.local_positions = np.zeros((rows, length), np.int64)
        self.conditions = np.full((rows, length), -1, np.int64)
        self.tasks = np.full((rows, length), -1, np.int64)
        self._first_symbol = 0
        self._parts: dict[str, list[tuple[NDArray[np.generic], ...]]] = {}

    def add(
        self,
        plan: Plan,
        layout: Layout,
        arrays: TimestepArrays,
        offset: int | Ints,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Put a layout at flattened token ``offset``, with its timesteps' contributions.

        An array, int64 ``[L]``, has the flattened token of each of the layout's. ``generator``
        draws image positions within their interval, for training; None takes the rounded mean,
        for evaluation.
        """
        slots = offset + np.arange(len(layout.ids)) if isinstance(offset, int) else offset
        self.ids.reshape(-1)[slots] = layout.ids
        self.local_positions.reshape(-1)[slots] = layout.local_positions
        self._first_symbol = plan.vocabulary.text.stop
        self.add_parts(plan, slots[layout.body_starts], arrays, generator)

    def add_text(
        self,
        layout: TextLayout,
        vocabulary: Vocabulary,
        offset: int,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Put passages at flattened token ``offset``; ``generator`` as in :meth:`add`."""
        span = slice(offset, offset + len(layout.ids))
        self.ids.reshape(-1)[span] = layout.ids
        self.local_positions.reshape(-1)[span] = layout.local_positions
        self._first_symbol = vocabulary.text.stop
        if layout.patches is not None:
            slots = offset + layout.patch_slots
            buckets = patch_buckets(layout.intervals, generator)
            part = (slots, layout.patch_places, layout.patches, buckets)
            self._parts.setdefault("images", []).append(part)

    def add_parts(
        self,
        plan: Plan,
        body_starts: Ints,
        arrays: TimestepArrays,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Put timesteps' contributions at bodies that start at these flattened tokens."""
        bodies = body_starts[:, None]
        for name, values, slots, local_positions in (
            ("ids", arrays.ids, plan.id_slots, plan.id_places),
            ("vectors", arrays.vectors, plan.vector_slots, plan.vector_places),
            ("grids", arrays.grids, plan.grid_slots, plan.grid_places),
            ("images", arrays.images, plan.image_slots, plan.image_places),
        ):
            if len(slots):
                flat = values.reshape(-1, *values.shape[2:])
                where = (bodies + np.asarray(slots)).reshape(-1)
                place = np.tile(np.minimum(local_positions, BODY_PLACES - 1), len(bodies))
                part: tuple[NDArray[np.generic], ...] = (where, place, flat)
                if name == "images":
                    edges = np.tile(plan.image_intervals, (len(bodies), 1)).astype(np.int64)
                    part = (*part, patch_buckets(edges, generator))
                self._parts.setdefault(name, []).append(part)

    def finish(self) -> TokenInputs:
        """The tokens as tensors."""
        parts = {name: self._join(name) for name in self._parts}
        ids = self.ids.reshape(-1)
        text = (ids >= 0) & (ids < self._first_symbol)
        return TokenInputs(
            ids=torch.from_numpy(self.ids),
            local_positions=torch.from_numpy(self.local_positions),
            conditions=torch.from_numpy(self.conditions),
            tasks=torch.from_numpy(self.tasks) if (self.tasks >= 0).any() else None,
            text_slots=torch.from_numpy(np.flatnonzero(text)),
            symbol_slots=torch.from_numpy(np.flatnonzero((ids >= 0) & ~text)),
            added_ids=parts.get("ids"),
            vectors=parts.get("vectors"),
            grids=parts.get("grids"),
            images=parts.get("images"),
        )

    def _join(self, name: str) -> Contributions:
        chunks = self._parts[name]
        slots, local_positions = (
            np.concatenate([c[i] for c in chunks]).astype(np.int64) for i in (0, 1)
        )
        intervals = None
        if name == "images":
            intervals = torch.from_numpy(np.concatenate([c[3] for c in chunks]))
        return Contributions(
            torch.from_numpy(slots),
            torch.from_numpy(local_positions),
            _part_values(name, [c[2] for c in chunks]),
            intervals,
        )


def _part_values(name: str, parts: list[NDArray[Any]]) -> Tensor:
    """Values of contributions of a kind, as the network reads them."""
    values = pad_stack(channels_first(parts) if name == "images" else parts)
    dtype = {"ids": np.int64, "vectors": np.float32}.get(name, values.dtype)
    return torch.from_numpy(values.astype(dtype, copy=False))


def with_parts(tokens: TokenInputs, arrays: TimestepArrays) -> TokenInputs:
    """The tokens of bodies of the same plan, with these contributions."""
    changed: dict[str, Any] = {}
    for name, values, part in (
        ("ids", arrays.ids, tokens.added_ids),
        ("vectors", arrays.vectors, tokens.vectors),
        ("grids", arrays.grids, tokens.grids),
        ("images", arrays.images, tokens.images),
    ):
        if part is not None:
            flat = _part_values(name, [values.reshape(-1, *values.shape[2:])])
            changed["added_ids" if name == "ids" else name] = replace(
                part, values=flat.to(part.slots.device)
            )
    return replace(tokens, **changed)


def pad_stack(chunks: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate along axis 0, zero padding the other axes to the largest."""
    shape = np.max([c.shape[1:] for c in chunks], axis=0) if chunks[0].ndim > 1 else ()
    if all(c.shape[1:] == tuple(shape) for c in chunks):
        return np.concatenate(chunks)
    padded = [
        np.pad(c, [(0, 0)] + [(0, int(m) - s) for m, s in zip(shape, c.shape[1:], strict=True)])
        for c in chunks
    ]
    return np.concatenate(padded)


def channels_first(patches: list[NDArray[Any]], *, keep_bytes: bool = True) -> list[NDArray[Any]]:
    """Patches, each ``[N, P, P, C]``, to ``[N, max(4, C), P, P]``, scaled to float32.

    Bytes may stay bytes where all have the same shape: the network scales them, and a quarter moves
    to its device. Otherwise what is missing in one of them is 0 and not black.
    """
    missing = [max(0, 4 - part.shape[-1]) for part in patches]
    moved = [np.ascontiguousarray(part.transpose(0, 3, 1, 2)) for part in patches]
    same = len({part.shape[1:] for part in moved}) == 1 and not any(missing)
    if keep_bytes and same and all(part.dtype == np.uint8 for part in moved):
        return moved
    scaled = [scale_pixels(torch.from_numpy(part)).numpy() for part in moved]
    return [
        np.pad(part, [(0, 0), (0, gap), (0, 0), (0, 0)])
        for part, gap in zip(scaled, missing, strict=True)
    ]


def patch_buckets(edges: Ints, generator: np.random.Generator | None) -> Ints:
    """Row and column buckets of patches: int64 ``[N, 4]`` intervals to ``[N, 2]`` in [0, 128)."""
    low, high = edges[:, [0, 2]], edges[:, [1, 3]]
    if generator is None:
        return np.minimum(np.rint((low + high) / 2).astype(np.int64), 127)
    return generator.integers(low, np.maximum(high, low + 1))
