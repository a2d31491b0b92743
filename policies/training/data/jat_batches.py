"""Batches of JAT's timesteps and texts, in the shares of a mixture.

* :class:`JatBatch` -- stretches of episodes, by what is observed and chosen in them.
* :class:`JatPacker` -- batch number ``k`` of a seed, always the same one.

A document is a stretch of consecutive timesteps, two tokens each, at positions from 0 on. Of the
stretches of one kind, which are rows of a tensor, the shorter ones are padded; padding counts as no
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from policies.jat.network import EpisodeBatch, TextBatch
from policies.model.tensors import Tensors
from policies.training.data.jat_shards import JatShard
from policies.training.data.jat_texts import JatTexts, Passage, draw_passage, text_batch
from policies.training.data.packing import DocumentSampler, Mixture

LONGEST = {"image": 32, "continuous": 256, "discrete": 256}
"""Timesteps of a stretch as published."""

LOSS_WEIGHTS = {
    "mujoco-pendulum": 50.0, "mujoco-doublependulum": 20.0, "mujoco": 10.0, "metaworld": 50.0,
}  # fmt: skip
"""Weights of tasks, or of suites, in the published loss; others have 1."""


@dataclass(frozen=True)
class JatBatch(Tensors):
    """Stretches of episodes.

    Attributes:
        groups: By what is observed and chosen.
        tasks: int64 ``[B]``, the source's number of each row, by group or kind of texts.
        task_tokens: Tokens of each source.
        texts: By whether they have images, "pairs" or "texts".
    """

    groups: dict[str, EpisodeBatch]
    tasks: dict[str, Tensor]
    task_tokens: dict[str, int] = field(default_factory=dict)
    texts: dict[str, TextBatch] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """Timesteps ``[begin, stop)`` of a shard."""

    shard: JatShard
    begin: int
    stop: int

    @property
    def steps(self) -> slice:
        """Of the shard's arrays."""
        return slice(self.begin, self.stop)

    @property
    def length(self) -> int:
        """Number of timesteps."""
        return self.stop - self.begin

    @property
    def size(self) -> int:
        """Tokens."""
        return 2 * self.length

    @property
    def name(self) -> str:
        """The task."""
        return self.shard.task


class JatPacker(DocumentSampler[JatShard, JatBatch]):
    """Batches of a mixture of shards.

    Args:
        shards, mixture, rows, length, seed: As
            :class:`~policies.training.data.packing.DocumentSampler` has them. A row's tokens may
            be of several stretches.
        positions: Tokens that the network has positions for, the most of a stretch.
        texts: Texts and pairs, by name.
    """

    def __init__(
        self,
        shards: Mapping[str, JatShard],
        mixture: Mixture,
        *,
        rows: int,
        length: int,
        seed: int,
        positions: int,
        texts: Mapping[str, JatTexts] | None = None,
    ) -> None:
        self.most = max(2, min(length, positions))
        super().__init__(shards, mixture, rows=rows, length=length, seed=seed, texts=texts)

    def num_tokens(self, task: str) -> int:
        """As :meth:`DocumentSampler.num_tokens`."""
        if task in self.texts:
            return int(self.texts[task].lengths.sum())
        return 2 * self.shards[task].num_steps

    def count_documents(self, batch: JatBatch) -> tuple[int, int]:
        """As :meth:`DocumentSampler.count_documents`: none is prompted."""
        return sum(len(tasks) for tasks in batch.tasks.values()), 0

    def batch(self, index: int, *, rank: int = 0, world: int = 1) -> JatBatch:
        """As :meth:`DocumentSampler.batch`."""
        stretches: dict[str, list[Stretch]] = {}
        passages: dict[str, list[Passage]] = {}
        tokens: dict[str, int] = {}
        for row in range(rank, self.rows, world):
            generator = np.random.default_rng([self.seed, index, row])
            left = self.length
            while left >= max(2, self.mixture.smallest):
                document = self._draw(generator, left)
                if document is None:
                    break
                left -= document.size
                tokens[document.name] = tokens.get(document.name, 0) + document.size
                if isinstance(document, Passage):
                    passages.setdefault(document.kind, []).append(document)
                else:
                    stretches.setdefault(document.shard.kind, []).append(document)
        numbers = {
            kind: torch.tensor([self.numbers[document.name] for document in documents])
            for drawn in (stretches, passages)
            for kind, documents in drawn.items()
        }
        return JatBatch(
            {kind: episode_batch(drawn) for kind, drawn in sorted(stretches.items())},
            numbers,
            tokens,
            {kind: text_batch(drawn) for kind, drawn in sorted(passages.items())},
        )

    def _usual_size(self, task: str) -> float:
        if task in self.texts:
            return float(np.minimum(self.texts[task].lengths, self.most).mean())
        shard = self.shards[task]
        longest = self._longest(shard)
        lengths, counts = np.unique(shard.ends - shard.starts, return_counts=True)
        left = (np.arange(length, 0, -max(1, longest // 2)) for length in lengths)
        means = [np.minimum(steps, longest).mean() for steps in left]
        return float(2 * np.average(means, weights=counts))

    def _longest(self, shard: JatShard) -> int:
        return min(LONGEST[shard.modalities.observation], self.most // 2)

    def _draw(self, generator: np.random.Generator, left: int) -> Stretch | Passage | None:
        """A document of at most ``left`` tokens; None after several that did not fit."""
        for _ in range(8):
            source = self.draw_source(generator)
            if source not in self.texts:
                return self._stretch(self.shards[source], generator, left // 2)
            passage = draw_passage(self.texts[source], generator, min(left, self.most))
            if passage is not None:
                return passage
        return None

    def _stretch(self, shard: JatShard, generator: np.random.Generator, most: int) -> Stretch:
        """At most so many timesteps, from every half of a stretch on."""
        episode, longest = int(generator.integers(len(shard.ends))), self._longest(shard)
        start, stop = int(shard.starts[episode]), int(shard.ends[episode])
        half = max(1, longest // 2)
        begin = start + half * int(generator.integers(-(-(stop - start) // half)))
        return Stretch(shard, begin, min(stop, begin + min(longest, most)))


def loss_weight(task: str) -> float:
    """A task's weight in the loss."""
    return LOSS_WEIGHTS.get(task, LOSS_WEIGHTS.get(task.partition("-")[0], 1.0))


def episode_batch(stretches: Sequence[Stretch]) -> EpisodeBatch:
    """Stretches of one kind as a batch, the shorter ones padded with zeros."""
    first = stretches[0].shard
    observation, action = first.modalities.observation, first.modalities.action
    rows = [stretch.shard.observations(stretch.steps) for stretch in stretches]
    parts: dict[str, Tensor | None] = {
        "rewards": _padded(stretches, "rewards"),
        "mask": _stacked([np.ones(stretch.length, np.bool_) for stretch in stretches]),
        "weights": _stacked(
            [np.full(s.length, loss_weight(s.shard.task), np.float32) for s in stretches]
        ),
    }
    if observation == "image":
        parts["image_observations"] = _stacked(rows).float() / 127.5 - 1
    else:
        parts[f"{observation}_observations"] = _stacked(rows)
    if observation == "continuous":
        parts["observation_sizes"] = torch.tensor([row.shape[1] for row in rows])
    actions, past = _padded(stretches, "actions"), None
    if any(stretch.shard.arrays["executed"].shape[1] for stretch in stretches):
        past = _stacked([_executed(stretch) for stretch in stretches])
    if action == "discrete":
        actions, past = actions[..., 0].long(), None if past is None else past[..., 0].long()
        parts["soft"] = soft if (soft := _padded(stretches, "labels").float()).shape[2] else None
    else:
        sizes = [stretch.shard.arrays["actions"].shape[1] for stretch in stretches]
        parts["action_sizes"] = torch.tensor(sizes)
    parts |= {f"{action}_actions": actions, "past_actions": past}
    return EpisodeBatch(**parts)  # type: ignore[arg-type]


def _executed(stretch: Stretch) -> Any:
    arrays = stretch.shard.arrays
    name = "executed" if arrays["executed"].shape[1] else "actions"
    return arrays[name][stretch.steps]


def _padded(stretches: Sequence[Stretch], name: str) -> Tensor:
    return _stacked([stretch.shard.arrays[name][stretch.steps] for stretch in stretches])


def _stacked(rows: Sequence[Any]) -> Tensor:
    """Arrays of any sizes as one, ``[B, ...]``, padded with zeros."""
    shape = np.max([row.shape for row in rows], axis=0)
    stacked = np.zeros((len(rows), *shape), rows[0].dtype)
    for number, row in enumerate(rows):
        place: Any = (number, *map(slice, row.shape))
        stacked[place] = row
    return torch.from_numpy(stacked)
