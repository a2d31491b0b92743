"""Documents placed in the rows of a batch.

* :class:`Document` -- one of a task, before it is placed.
* :class:`BatchSpec` -- what a batch is built for.
* :class:`BatchBuilder` -- places documents and gathers tokens, roles and targets.
* :class:`NextCollector` -- gathers them from shards while documents are placed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policies.model.attention import MEMORIES, TokenRoles
from policies.model.config import NetworkConfig
from policies.model.inputs.embedding import BODY_PLACES, TEXT_PLACES
from policies.model.inputs.sequence import (
    Layout,
    TimestepArrays,
    TokenCollector,
    channels_first,
    pad_stack,
)
from policies.model.network import PackedBatch, Targets
from policies.model.observation_heads import NextParts
from policies.model.return_embedding import TimestepReturns
from policies.training.data.shards import TaskShard
from policies.training.data.text_shards import TextDocument

Ints = NDArray[np.int64]
MEMORY_CODES = {name: code for code, name in enumerate(MEMORIES)}
"""Codes of the memories in :class:`~policies.model.attention.TokenRoles`."""


class NextCollector:
    """Gathers the parts of next observations by their kind."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[NDArray[np.generic], ...]]] = {}

    def add(self, shard: TaskShard, steps: Ints, slots: Ints) -> None:
        """Ask for what follows some timesteps.

        Args:
            shard: Their task's shard.
            steps: int64 ``[n]``, timesteps of the shard.
            slots: int64 ``[n]``, the flattened token that predicts what follows each.
        """
        plan = shard.plan
        goes_on = ~np.isin(steps + 1, shard.ends)
        steps, slots = steps[goes_on], slots[goes_on]
        if not len(steps):
            return
        arrays = shard.timesteps(steps + 1)
        kinds = (
            ("ids", arrays.ids, plan.id_places),
            ("vectors", arrays.vectors, plan.vector_places),
            ("grids", arrays.grids, plan.grid_places),
            ("images", arrays.images, plan.image_places),
        )
        parts = sum(len(local_positions) for _, _, local_positions in kinds)
        for kind, values, local_positions in kinds:
            if not len(local_positions):
                continue
            weights = np.full((len(steps), len(local_positions)), 1.0 / parts, np.float32)
            if kind == "vectors":  # a mean over the numbers that are no padding
                size = values.shape[2]
                first = np.arange(len(local_positions)) * size
                weights *= size / np.clip(plan.vector_length - first, 1, size)
            part = (
                np.repeat(slots, len(local_positions)),
                np.tile(np.minimum(local_positions, BODY_PLACES - 1) + TEXT_PLACES, len(steps)),
                values.reshape(-1, *values.shape[2:]),
                weights.reshape(-1).astype(np.float32),
            )
            self._parts.setdefault(kind, []).append(part)

    def finish(self) -> dict[str, NextParts]:
        """The parts as tensors, by kind."""
        next_parts = {}
        for kind, chunks in self._parts.items():
            chunk_values = [chunk[2] for chunk in chunks]
            if kind == "images":
                chunk_values = channels_first(chunk_values, keep_bytes=False)
            values = pad_stack(chunk_values)
            values = values.astype(np.int64 if kind in ("ids", "grids") else np.float32)
            slots, local_positions, weights = (
                np.concatenate([c[i] for c in chunks]) for i in (0, 1, 3)
            )
            next_parts[kind] = NextParts(
                torch.from_numpy(slots.astype(np.int64)),
                torch.from_numpy(local_positions.astype(np.int64)),
                torch.from_numpy(values),
                torch.from_numpy(weights),
            )
        return next_parts


@dataclass
class Document:
    """One document before it is placed in a row: an optional prompt and the live part.

    Attributes:
        shard: Its task's.
        parts: Layout, arrays, and for each timestep the one whose text it acts under.
        actions: int32 ``[n, A]``, ids to predict.
        hidden: bool ``[n]``, live timesteps whose actions later ones do not see, beside those that
            the task's memory leaves out; None for none.
    """

    shard: TaskShard
    parts: list[tuple[Layout, TimestepArrays, Ints]]
    actions: NDArray[np.int32]
    hidden: NDArray[np.bool_] | None = None

    @property
    def size(self) -> int:
        return sum(len(layout.ids) for layout, _, _ in self.parts)


@dataclass(frozen=True)
class BatchSpec:
    """What a batch is built for.

    Attributes:
        config: The network's sizes.
        length: Tokens of a row.
        sources: Names of the tasks and texts; a target says by number which it is of.
    """

    config: NetworkConfig
    length: int
    sources: tuple[str, ...]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each source."""
        return {source: number for number, source in enumerate(self.sources)}


class BatchBuilder:
    """Places documents into rows and gathers tokens, roles and targets.

    Args:
        spec: What the batch is built for.
        rows: How many.
    """

    def __init__(self, spec: BatchSpec, rows: int) -> None:
        self.spec = spec
        length = spec.length
        self.collector = TokenCollector(rows, length)
        shape = (rows, length)
        self.roles = {
            field.name: np.full(shape, -1 if field.name == "documents" else 0, np.int64)
            for field in dataclasses.fields(TokenRoles)
        }
        self.targets: list[tuple[NDArray[np.generic], ...]] = []
        self.texts: dict[tuple[str, int], int] = {}
        self.text_ids: list[NDArray[np.int32]] = []
        self.task_tokens: dict[str, int] = {}
        self.next = NextCollector() if spec.config.observation_heads else None
        self.residual_masks: list[NDArray[np.float32]] = []
        self.returns: list[tuple[Ints, NDArray[np.float32]]] = []
        self.task_rows = {task: row for row, task in enumerate(spec.config.tasks)}

    def add(
        self,
        doc: Document,
        row: int,
        offset: int,
        document: int,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Place a document at token ``offset`` of a row; the generator draws image positions."""
        plan, task = doc.shard.plan, doc.shard.task
        self.task_tokens[task] = self.task_tokens.get(task, 0) + doc.size
        base = row * self.spec.length + offset
        for index, (layout, arrays, steps) in enumerate(doc.parts):
            live = index == len(doc.parts) - 1
            self.collector.add(plan, layout, arrays, base, generator)
            span = slice(base, base + len(layout.ids))
            roles: dict[str, Any] = {
                "documents": document,
                "positions": layout.positions,
                "timesteps": layout.steps + (1 << 20) * live,
                "actions": layout.actions,
                "prompts": int(not live),
                "memories": MEMORY_CODES[plan.options.memory],
            }
            if live and index == 0 and task in self.task_rows:
                self.collector.tasks.reshape(-1)[span] = np.where(
                    layout.ids < 0, self.task_rows[task], -1
                )
            if live and doc.hidden is not None:
                hides = doc.hidden[layout.steps] & (layout.actions == 1)
                roles["memories"] = np.where(hides, MEMORY_CODES["observations"], 0)
            for name, values in roles.items():
                self.roles[name].reshape(-1)[span] = values
            if plan.has_text:
                condition = np.array([self._condition(doc.shard, int(s)) for s in steps], np.int64)
                self.collector.conditions.reshape(-1)[span] = condition[layout.steps]
            if live:
                self._add_targets(doc, layout, steps, base)
                if self.next is not None:
                    self.next.add(doc.shard, steps, base + layout.predictors[:, -1])
                if self.spec.config.return_conditioned:
                    self._add_returns(doc.shard, steps, base + layout.body_starts)
            base += len(layout.ids)

    def add_text(
        self,
        doc: TextDocument,
        row: int,
        offset: int,
        document: int,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Place a document of text as :meth:`add` does; it remembers everything."""
        layout, vocabulary = doc.layout, self.spec.config.vocabulary
        self.task_tokens[doc.name] = self.task_tokens.get(doc.name, 0) + doc.size
        base = row * self.spec.length + offset
        self.collector.add_text(layout, vocabulary, base, generator)
        span = slice(base, base + doc.size)
        roles: dict[str, Any] = {
            "documents": document,
            "positions": layout.positions,
            "timesteps": layout.passages,
            "memories": MEMORY_CODES["all"],
        }
        for name, values in roles.items():
            self.roles[name].reshape(-1)[span] = values
        count = len(layout.targets)
        self.targets.append(
            (
                base + layout.predictors,
                layout.targets,
                np.full(count, vocabulary.text.start, np.int64),
                np.full(count, vocabulary.text.stop, np.int64),
                np.full(count, -1, np.int64),
                np.zeros((count, 0), np.float16),
                np.ones(count, np.float32),
                np.full(count, self.spec.numbers[doc.name]),
            )
        )

    def _condition(self, shard: TaskShard, step: int) -> int:
        """Number of the text that a timestep acts under; -1 if it is empty, as in acting."""
        index = int(shard.arrays["text_index"][step])
        key = (shard.task, index)
        if key not in self.texts:
            text = shard.text(index)
            self.texts[key] = len(self.text_ids) if len(text) else -1
            if len(text):
                self.text_ids.append(text)
        return self.texts[key]

    def _add_returns(self, shard: TaskShard, steps: Ints, body_starts: Ints) -> None:
        """Every body token of a timestep carries its return to go."""
        count = shard.plan.num_tokens
        values = (shard.returns_to_go[steps] / shard.returns.scale).astype(np.float32)
        slots = (body_starts[:, None] + np.arange(count)).reshape(-1)
        self.returns.append((slots, values.repeat(count)))

    def _add_targets(self, doc: Document, layout: Layout, steps: Ints, base: int) -> None:
        plan = doc.shard.plan
        n, a = doc.actions.shape
        ranges = np.asarray(plan.action_ranges)
        places = np.arange(a) if plan.has_parallel_actions else np.full(a, -1)
        labels = np.asarray(doc.shard.arrays["labels"][steps])
        deviations = labels.shape[1] > 0 and bool(plan.action_is_continuous.all())
        self.targets.append(
            (
                (base + layout.predictors).reshape(-1),
                doc.actions.reshape(-1).astype(np.int64),
                np.tile(ranges[:, 0], n).astype(np.int64),
                np.tile(ranges[:, 1], n).astype(np.int64),
                np.tile(places, n).astype(np.int64),
                labels.reshape(n * a, 1) if deviations else labels.repeat(a, axis=0),
                np.full(n * a, 1.0 / a, np.float32),
                np.full(n * a, self.spec.numbers[doc.shard.task]),
            )
        )

    def finish(self) -> PackedBatch:
        """The batch as tensors."""
        width = max((len(t) for t in self.text_ids), default=1)
        padded = np.full((max(1, len(self.text_ids)), width), -1, np.int64)
        for row, text in enumerate(self.text_ids):
            padded[row, : len(text)] = text
        columns = [pad_stack(list(c)) for c in zip(*self.targets, strict=True)]
        return PackedBatch(
            tokens=self.collector.finish(),
            texts=torch.from_numpy(padded),
            roles=TokenRoles(**{k: torch.from_numpy(v) for k, v in self.roles.items()}),
            targets=_targets(columns),
            task_tokens=self.task_tokens,
            next_parts={} if self.next is None else self.next.finish(),
            residual_mask=torch.from_numpy(np.stack(self.residual_masks))
            if self.residual_masks
            else None,
            returns=self._returns(),
        )

    def _returns(self) -> TimestepReturns | None:
        if not self.returns:
            return None
        slots, values = (np.concatenate(part) for part in zip(*self.returns, strict=True))
        return TimestepReturns(torch.from_numpy(slots), torch.from_numpy(values))


def _targets(columns: list[NDArray[Any]]) -> Targets:
    """Targets of columns in the order of their fields."""
    named = dict(zip((field.name for field in dataclasses.fields(Targets)), columns, strict=True))
    named["soft"] = named["soft"].astype(np.float32)
    return Targets(**{name: torch.from_numpy(column) for name, column in named.items()})
